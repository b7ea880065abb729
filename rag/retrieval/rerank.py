"""The best passages read once more, together with the question, by a cross-encoder.

Any sentence-transformers CrossEncoder with one score will do: a hub id or a folder, safetensors
only, no code of the hub. Pairs are batched with pairs of their padded length, as texts are in the
encoder. The head of the model works on one row a pair, where the last bits hang on the size of the
batch; its output is rounded before the activation, so that they decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import RerankParams
from rag.records import Passage
from rag.retrieval.encoder import LENGTH_STEP, equal_length_batches
from rag.retrieval.fusion import Fusion
from rag.weights import Weights, resolve_weights

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_DECIMALS = 4

Pair = tuple[str, str]
"""A question and a passage's text."""


def load_reranker(
    params: RerankParams, cache: Path, *, fusion: Fusion | None = None, device: str | None = None
) -> Reranker | None:
    """The reranker that params name, None where they name none; its weights are read when used.

    Raises ModelError for another one than `fusion`, where it is given, was made with.
    """
    reranker = None
    if params.model is not None:
        weights = resolve_weights(params.model, params.revision, cache)
        _check(params, weights)
        reranker = Reranker(params, weights, device=device)
    found = None if reranker is None else reranker.weights.sha256
    if fusion is not None and fusion.reranker != found:
        raise ModelError(
            f"retrieve.rerank.model: {params.model or 'no model'} has SHA-256 {found}, the stage "
            f"retrieve was run with {fusion.reranker}; run: dvc repro retrieve"
        )
    return reranker


class Reranker:
    """Scores (question, passage) pairs; `passages` of each question are given to it."""

    def __init__(
        self, params: RerankParams, weights: Weights, *, device: str | None = None
    ) -> None:
        self.weights = weights
        self.passages = params.passages
        self._params = params
        self._device = device
        self._loaded: CrossEncoder | None = None

    def scores(
        self, pairs: Sequence[Pair], *, progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """One score a pair, shape (N,), in order: the model's own, after its activation."""
        import torch

        scores = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return scores
        model = self._model
        lengths = self._lengths(pairs)
        for batch in equal_length_batches(lengths, self._params.batch_tokens):
            features: dict[str, Any] = model.preprocess(
                [pairs[i] for i in batch],
                processing_kwargs={"text": {"pad_to_multiple_of": LENGTH_STEP}},
            )
            features = {
                name: value.to(model.device) if hasattr(value, "to") else value
                for name, value in features.items()
            }
            with torch.inference_mode():
                found = model(features)["scores"].float().round(decimals=_DECIMALS)
                if model.activation_fn is not None:
                    found = model.activation_fn(found)
            scores[batch] = found.reshape(len(batch)).cpu().numpy()
            if progress is not None:
                progress(len(batch))
        return scores

    @property
    def _model(self) -> CrossEncoder:
        if self._loaded is None:
            from sentence_transformers import CrossEncoder

            self._loaded = CrossEncoder(
                str(self.weights.folder),
                device=self._device,
                max_length=self._params.max_tokens,
                trust_remote_code=False,
                local_files_only=True,
            )
            self._loaded.eval()
        return self._loaded

    def _lengths(self, pairs: Sequence[Pair]) -> list[int]:
        """Tokens of each pair with special tokens, after truncation."""
        tokens = self._model.tokenizer(
            [question for question, _ in pairs],
            [text for _, text in pairs],
            truncation=True,
            max_length=self._params.max_tokens,
        )
        return [len(ids) for ids in tokens["input_ids"]]


def reranked(
    reranker: Reranker, questions: Sequence[str], rows: Sequence[Sequence[Passage]]
) -> list[list[Passage]]:
    """Each question's first `reranker.passages` in the order of their new scores, then the rest.

    Equal scores keep the order that they came in. The rest keep their order; their scores are moved
    down as one to follow on the lowest new score, so that scores fall from first to last.
    """
    tops = [row[: reranker.passages] for row in rows]
    pairs = [
        (question, passage.text)
        for question, top in zip(questions, tops, strict=True)
        for passage in top
    ]
    scores = iter(reranker.scores(pairs).tolist())
    result = []
    for row, top in zip(rows, tops, strict=True):
        scored = [replace(passage, score=next(scores)) for passage in top]
        scored.sort(key=lambda passage: -passage.score)  # stable: ties stay in fused order
        rest = row[len(top) :]
        if rest:
            shift = min(0.0, scored[-1].score - rest[0].score)
            scored += [replace(passage, score=passage.score + shift) for passage in rest]
        result.append([replace(passage, rank=rank) for rank, passage in enumerate(scored, start=1)])
    return result


def _check(params: RerankParams, weights: Weights) -> None:
    """Refuses what is no reranker before anything is loaded: a head that lacks would be random."""
    config = _json(weights.folder / "config.json")
    saved = _json(weights.folder / "config_sentence_transformers.json")
    architectures = [str(name) for name in config.get("architectures") or ()]
    classifier = any(name.endswith("ForSequenceClassification") for name in architectures)
    # transformers takes two labels where a configuration does not say how many.
    labels = len(config.get("id2label") or range(config.get("num_labels", 2)))
    if not classifier and saved.get("model_type") != "CrossEncoder":
        raise ModelError(
            f"retrieve.rerank.model: {params.model} is {', '.join(architectures) or 'no model'}, "
            "expected a cross-encoder (...ForSequenceClassification)"
        )
    if classifier and labels != 1:
        raise ModelError(
            f"retrieve.rerank.model: {params.model} gives {labels} scores a pair, "
            "expected a cross-encoder with one"
        )
    limit = config.get("max_position_embeddings")
    if limit is not None and params.max_tokens > limit:
        raise ModelError(
            f"retrieve.rerank.max_tokens: {params.model} reads at most {limit} tokens, "
            f"got {params.max_tokens}"
        )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
