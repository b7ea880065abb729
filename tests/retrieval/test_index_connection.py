"""rag/retrieval/index_connection.py: what is said of a server that is not there."""

from __future__ import annotations

import pytest

from rag.errors import RagError
from rag.retrieval.index_connection import connect, safe_url


def test_a_server_that_does_not_answer_is_one_clear_line() -> None:
    with pytest.raises(
        RagError, match=r"no Qdrant server to use at http://127\.0\.0\.1:9 "
    ) as error:
        connect("http://someone:secret@127.0.0.1:9", None)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host:6333/path", "https://host:6333/path"),
        ("https://token@host", "https://host"),
        ("http://localhost:6333", "http://localhost:6333"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert safe_url(url) == shown
