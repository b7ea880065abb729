"""What every reader does: answer questions from passages, and tell how likely an answer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.prompts import Example
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


def load_reader(
    params: ReaderParams,
    cache: Path,
    folder: Path | None,
    *,
    prior_temperature: float = 1.0,
    query_likelihood: float = 0.0,
    examples: Sequence[Example] = (),
) -> Reader:
    """The tuned reader in `folder` (an output of train_reader), or the untuned model for None.

    `prior_temperature` is that of p(z|x), `query_likelihood` the weight of log p(x|z) in it, which
    only a causal reader knows; `examples` stand in every prompt. `read_manifest` has the values
    that go with a tuned reader.
    """
    if folder is not None:
        _check_manifest(params, read_manifest(folder))
    if params.kind == "causal":
        from rag.reading.causal import CausalReader

        return CausalReader(
            params,
            cache,
            folder,
            prior_temperature=prior_temperature,
            query_likelihood=query_likelihood,
            examples=examples,
        )
    if params.kind == "seq2seq":
        from rag.reading.seq2seq import Seq2SeqReader

        return Seq2SeqReader(
            params, cache, folder, prior_temperature=prior_temperature, examples=examples
        )
    from rag.reading.extractive import ExtractiveReader

    return ExtractiveReader(
        params, cache, folder, prior_temperature=prior_temperature, examples=examples
    )


def write_manifest(folder: Path, **facts: Any) -> None:
    """`reader.json`: what the reader was tuned from, its threshold, and what its prompts hold."""
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{path}: no tuned reader here; run: ragloop run")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def manifest_temperature(manifest: Mapping[str, Any]) -> float:
    """The temperature of p(z|x); 1 for a reader that was written before there was another."""
    return float(manifest.get("prior_temperature", 1.0))


def manifest_query_likelihood(manifest: Mapping[str, Any]) -> float:
    """The weight of log p(x|z) in p(z|x); 0 for a reader that was written before there was one."""
    return float(manifest.get("query_likelihood", 0.0))


def manifest_examples(manifest: Mapping[str, Any], count: int) -> tuple[Example, ...]:
    """The first `count` worked examples; ModelError where the train split gave fewer."""
    kept = manifest.get("examples", [])
    if len(kept) < count:
        raise ModelError(
            f"{MANIFEST} holds {len(kept)} worked examples, and {count} are asked for: lower "
            "reader.examples (and take one_shot out of evaluate.baselines), or add train questions "
            "whose document holds the answer; then run: ragloop run"
        )
    return tuple(
        Example(item["question"], tuple(item["passages"]), item["answer"]) for item in kept[:count]
    )


def reading_facts(params: ReaderParams, manifest: Mapping[str, Any]) -> dict[str, str]:
    """How a tuned reader reads its passages and writes its answers, for reports and model cards."""
    decoding = "greedy" if params.beams == 1 else f"{params.beams} beams"
    if params.fusion == "rag_sequence":
        decoding = f"{decoding}, {params.decoding}"
    temperature = f"{manifest_temperature(manifest):g}"
    query_likelihood = manifest_query_likelihood(manifest)
    facts = {
        "Passages read": str(params.passages),
        "Fusion": params.fusion,
        "Prior temperature": temperature if params.is_marginal else "weighs no passages",
        **({"Query likelihood": f"weight {query_likelihood:g}"} if query_likelihood else {}),
        "Weights": str(manifest.get("export", "adapter"))
        + (", int8" if params.quantize == "int8" else ""),
    }
    if params.kind == "extractive":
        return {**facts, "Decoding": "best span"}
    return {
        **facts,
        "Decoding": decoding,
        "Answers": "copied from the passages" if params.verbatim else "in the model's own words",
        "Examples in a prompt": str(params.examples),
        "Prompt version": str(manifest.get("prompt_version", "unknown")),
    }


def _check_manifest(params: ReaderParams, manifest: dict[str, Any]) -> None:
    found = manifest["kind"], manifest["model"]
    if found != (params.kind, params.model):
        raise ModelError(
            f"the tuned reader is {found[0]} on {found[1]}, params.yaml says "
            f"{params.kind} on {params.model}; run: ragloop run"
        )


def as_evidence(
    passages: Sequence[Passage], posterior: Sequence[float] | None = None
) -> tuple[Evidence, ...]:
    """The passages that were read, with the score that retrieval gave each.

    `posterior` has p(passage | question, answer) of each, and may be longer than `passages`.
    """
    return tuple(
        Evidence(
            passage.chunk_id,
            passage.document_id,
            passage.text,
            passage.score,
            passage.rank,
            None if posterior is None else posterior[place],
        )
        for place, passage in enumerate(passages)
    )
