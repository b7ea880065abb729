"""Questions with the passages that a reader is trained on, and a corpus for the retriever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.finetune.examples import ReadingExample
from rag.params import Params
from rag.records import Passage, Question
from tests.retrieval_toy import retrieval_params, write_retrieval_project
from tests.tiny_bert import save_tiny_sentence_transformer


@pytest.fixture
def example() -> Callable[..., ReadingExample]:
    """An example from its question, its passages' texts and its answers."""

    def make(text: str, passages: Sequence[str], *answers: str) -> ReadingExample:
        question = Question(f"id of {text}", text, answers, None, bool(answers), "train", "en")
        shown = tuple(Passage(f"c{i}", "d", part, 1.0, i) for i, part in enumerate(passages, 1))
        return ReadingExample(question, shown, answers[0] if answers else "")

    return make


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence-transformers model; not to be changed."""
    return save_tiny_sentence_transformer(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def tuning(tiny_encoder: Path) -> Callable[..., Params]:
    """Params from the mode and overrides."""

    def make(mode: str, *overrides: str) -> Params:
        return retrieval_params(tiny_encoder, mode, *overrides)

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Artifacts]:
    """A project in which the retriever has yet to be tuned."""

    def make(name: str = "project", changed: Mapping[str, Any] | None = None) -> Artifacts:
        return write_retrieval_project(tmp_path / name, changed)

    return make
