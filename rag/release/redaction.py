"""What may be written down: URLs lose their credentials before anything logs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>|]+")


def without_credentials(value: Any) -> Any:
    """A copy of plain data in which every URL is without user, password, query and fragment.

    >>> without_credentials("see https://me:secret@host:6333/a?key=1")
    'see https://host:6333/a'
    """
    if isinstance(value, str):
        return _URL.sub(lambda match: _bare(match.group()), value)
    if isinstance(value, Mapping):
        return {key: without_credentials(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_credentials(item) for item in value]
    return value


def _bare(url: str) -> str:
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(url)
    except ValueError:  # a URL that cannot be read is not known to be without a password
        return f"{scheme}://..."
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
