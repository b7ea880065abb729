"""What our pages share: a template that is filled once, and data that cannot leave its element."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any


def template_text(folder: str, name: str) -> str:
    """A file of a template folder of this package."""
    return (resources.files("rag.evaluation") / folder / name).read_text(encoding="utf-8")


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Each `{{name}}` of the template once replaced; what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def json_for_html(data: Any) -> str:
    """JSON that cannot end its script element or start a comment in it, whatever the data says."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
