"""Small real corpora written to a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

WriteCorpus = Callable[[Mapping[str, str | bytes]], Path]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def write_corpus(tmp_path: Path) -> WriteCorpus:
    """Writes files by name below a new folder `corpus` and returns the folder."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "corpus"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write


@pytest.fixture(scope="session")
def question_line() -> Callable[..., str]:
    """One line of a question file about `petrel.md`, with any key replaced."""

    def line(**changes: Any) -> str:
        row = {
            "id": "q1",
            "question": "Who built Petrel?",
            "answers": ["Marrable Yard"],
            "document": "petrel.md",
            "answerable": True,
        }
        return json.dumps({**row, **changes}, ensure_ascii=False) + "\n"

    return line


@pytest.fixture(scope="session")
def petrel() -> str:
    return "# Petrel\n\nPetrel came from the Marrable Yard in 2009. She takes 62 cars.\n"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Published question sets kept beside the checkout, where there are any."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no published question sets at {folder}")
    return folder
