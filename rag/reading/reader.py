"""What every reader does: answer questions from passages, and tell how likely an answer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.records import Answer, Evidence, Passage

MANIFEST = "reader.json"
Progress = Callable[[int], None]
Array = npt.NDArray[np.float32]


class Reader(Protocol):
    """Passages to answers. B questions, K passages each (K may differ between questions)."""

    def answer(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        *,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """One answer a question, in order; without passages it answers from memory alone."""

    def log_likelihood(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[str],
    ) -> Array:
        """log p(answer | question, passage), shape (B, K): each passage on its own."""


def load_reader(params: ReaderParams, cache: Path, folder: Path | None) -> Reader:
    """The tuned reader in `folder` (an output of train_reader), or the untuned model for None."""
    if folder is not None:
        _check_manifest(params, read_manifest(folder))
    if params.kind == "causal":
        from rag.reading.causal import CausalReader

        return CausalReader(params, cache, folder)
    from rag.reading.extractive import ExtractiveReader

    return ExtractiveReader(params, cache, folder)


def write_manifest(folder: Path, **facts: Any) -> None:
    """`reader.json`: what the reader was tuned from, and the threshold of its answers."""
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{path}: no tuned reader here; run: ragloop run")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _check_manifest(params: ReaderParams, manifest: dict[str, Any]) -> None:
    found = manifest["kind"], manifest["model"]
    if found != (params.kind, params.model):
        raise ModelError(
            f"the tuned reader is {found[0]} on {found[1]}, params.yaml says "
            f"{params.kind} on {params.model}; run: ragloop run"
        )


def as_evidence(passages: Sequence[Passage]) -> tuple[Evidence, ...]:
    """The passages that were read, with the score that retrieval gave each."""
    return tuple(
        Evidence(passage.chunk_id, passage.document_id, passage.text, passage.score, passage.rank)
        for passage in passages
    )
