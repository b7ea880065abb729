"""The train_retriever stage's work: the encoder as it is, or tuned on the train questions.

Mode `query` trains the questions' side against passage vectors that stay as they are, so the index
stays as it is; `full` trains both sides, which share their weights. Both keep the state of the best
dev evaluation, and the untuned one is the first candidate: tuning never leaves an encoder that is
worse on dev than the one it began with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.artifacts import Artifacts
from rag.errors import ParamsError
from rag.finetune.bi_encoder import BiEncoder, interpolate, movement
from rag.finetune.checkpoint import Tally
from rag.finetune.contrastive import ContrastiveTraining, DevQuestions, PassageSide
from rag.finetune.forgetting import read_probe
from rag.finetune.history import Tick, report_speed, training_log
from rag.finetune.loop import Log, TrainingSummary, train
from rag.finetune.negatives import (
    Negatives,
    RetrievalExample,
    Rows,
    bm25_candidates,
    dense_candidates,
    mine_negatives,
)
from rag.finetune.ranking import Ranking
from rag.finetune.retrieval_data import CorpusTexts, RetrievalData, retrieval_data
from rag.finetune.stage_key import drop_checkpoints, stage_key
from rag.finetune.workers import main_first, world
from rag.params import Params
from rag.retrieval.encoder import TUNED, Encoder, FloatMatrix, write_manifest
from rag.weights import Weights, resolve_weights, weights_digest

REPORT, HISTORY = "training.json", "history.jsonl"
_CHECKPOINT = "retriever-"
#: Shares of the way from the original to the tuned weights that are tried on dev.
_SHARES = (0.5, 0.75, 1.0)
#: Passages that dev questions search while both sides train; a larger corpus is sampled.
_SEARCHED = 20_000


def tune_retriever(params: Params, artifacts: Artifacts) -> None:
    """Writes both sides of the retriever, and in modes `query` and `full` how training went."""
    settings = params.retriever
    if settings.training.shard_weights:
        raise ParamsError(
            "retriever.training.shard_weights: its batches differ in their number of forward "
            "passes, which sharded layers do not allow; an encoder fits into one GPU, so set it "
            "to false"
        )
    with main_first():
        weights = resolve_weights(settings.model, settings.revision, artifacts.weights_cache)
        for folder in (artifacts.passage_encoder, artifacts.query_encoder):
            shutil.rmtree(folder / TUNED, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
    is_tuned = settings.mode != "none" and _Tuning(params, artifacts, weights).run()
    if not world().is_main:
        return
    tuned_passages = is_tuned and settings.mode == "full"
    tuned_queries = is_tuned and settings.mode == "query"
    write_manifest(
        artifacts.passage_encoder, settings, weights, "tuned" if tuned_passages else "base"
    )
    write_manifest(
        artifacts.query_encoder, settings, weights, "tuned" if tuned_queries else "passage"
    )
    drop_checkpoints(artifacts.checkpoints, kept=None, prefix=_CHECKPOINT)


@dataclass(frozen=True)
class _Round:
    """A training that ended, the encoder in its best state."""

    encoder: BiEncoder
    training: ContrastiveTraining
    summary: TrainingSummary
    negatives: Negatives
    before: Ranking
    trained: Tally
    seconds: float
    """Both of this round and those before it."""


class _Tuning:
    """One tuning: its data, read once, and what each round of mining makes of it."""

    def __init__(self, params: Params, artifacts: Artifacts, weights: Weights) -> None:
        from rag.retrieval.embedding import passage_vectors

        self._params = params
        self._settings = params.retriever.training
        self._artifacts = artifacts
        self._weights = weights
        self._both = params.retriever.mode == "full"
        self._data: RetrievalData = retrieval_data(artifacts, self._settings.dev_questions)
        self._texts = CorpusTexts(artifacts.chunks)
        with main_first():
            serving = Encoder(params.retriever, artifacts.weights_cache)
            self._vectors: FloatMatrix = passage_vectors(params, artifacts, serving).vectors

    def run(self) -> bool:
        """Trains, writes weights and report, and says whether tuned weights were kept."""
        checkpoint = self._artifacts.checkpoints / f"{_CHECKPOINT}{self._key()}"
        with main_first():
            drop_checkpoints(self._artifacts.checkpoints, kept=checkpoint, prefix=_CHECKPOINT)
        folder = self._artifacts.query_encoder
        with training_log(folder / HISTORY, "train_retriever") as (log, tick):
            done = self._rounds(checkpoint, log, tick)
        if not world().is_main:
            return False  # the main worker writes what came of it
        report_speed("train_retriever", done.trained, done.seconds, self._artifacts.speed)
        probe = read_probe()
        original = BiEncoder(self._params.retriever, self._weights, self._params.seed)
        probe_before = probe.rank(original.encode, original.encode)
        share, after = self._choose_share(done)
        if share > 0.0:
            owner = self._artifacts.passage_encoder if self._both else folder
            done.encoder.save(owner / TUNED)
        passage_side = done.encoder if self._both else original
        probe_after = probe.rank(done.encoder.encode, passage_side.encode)
        report = {
            "mode": self._params.retriever.mode,
            "kept": "tuned" if share > 0.0 else "untuned",
            "caveats": self._data.caveats(),
            "questions": dict(self._data.counts),
            "negatives": done.negatives.counts.facts(),
            "steps": done.summary.steps,
            "last_step": done.summary.last_step,
            "best_step": done.summary.best_step,
            "share": share,
            "movement": movement(done.encoder.base, done.encoder.state()),
            "dev": {"before": _facts(done.before), "after": _facts(after)},
            "general_probe": {"before": _facts(probe_before), "after": _facts(probe_after)},
        }
        text = json.dumps(report, indent=2, sort_keys=True) + "\n"
        (folder / REPORT).write_text(text, encoding="utf-8")
        return share > 0.0

    def _rounds(self, checkpoint: Path, log: Log, tick: Tick) -> _Round:
        """Trains once for each round of mining, each time from the original weights.

        Negatives that the tuned encoder still takes for answers teach more than those of the
        original; going on from tuned weights would keep what the first ones taught (DPR trains
        anew as well, and gains 6.6 points of top-1).
        """
        queries = [example.question.text for example in self._data.train]
        bm25 = self._bm25(queries)
        rounds = self._settings.mining_rounds
        vectors, done, offset = self._vectors, None, 0
        trained, seconds = Tally(), 0.0
        for number in range(rounds):
            encoder = BiEncoder(self._params.retriever, self._weights, self._params.seed)
            miner = encoder if done is None else done.encoder
            if done is not None and self._both:
                vectors = miner.encode(list(self._texts.all()), "passage")
            negatives = self._mine(miner.encode(queries, "query"), vectors, bm25)
            passages, dev = self._passages_and_dev(vectors, negatives)
            training = ContrastiveTraining(
                encoder, self._settings, self._data.train, negatives, passages=passages, dev=dev
            )
            before = training.rank_dev()
            first = offset
            summary = train(
                training,
                self._settings,
                seed=self._params.seed,
                log=lambda row, step, first=first: log(row, first + step),  # type: ignore[misc]
                checkpoint=checkpoint / str(number + 1),
                tick=lambda step, steps, n=number: tick(  # type: ignore[misc]
                    n * steps + step, rounds * steps
                ),
                section="retriever.training",
                start=training.metrics(before),
            )
            offset += summary.last_step
            trained, seconds = trained + summary.trained, seconds + summary.seconds
            done = _Round(encoder, training, summary, negatives, before, trained, seconds)
        assert done is not None
        return done

    def _bm25(self, questions: Sequence[str]) -> list[Rows]:
        if not self._settings.hard_negatives:
            return []
        return bm25_candidates(questions, self._texts.all, self._settings.mining_candidates)

    def _mine(self, queries: FloatMatrix, vectors: FloatMatrix, bm25: Sequence[Rows]) -> Negatives:
        if not self._settings.hard_negatives:
            return Negatives([()] * len(self._data.train))
        return mine_negatives(
            self._data.train,
            queries,
            vectors,
            bm25,
            self._texts.of,
            candidates=self._settings.mining_candidates,
            margin=self._settings.negative_margin,
        )

    def _passages_and_dev(
        self, vectors: FloatMatrix, negatives: Negatives
    ) -> tuple[PassageSide, DevQuestions]:
        dev = self._data.dev
        questions = [example.question.text for example in dev]
        if not self._both:
            relevant = [sorted(example.relevant) for example in dev]
            return PassageSide(vectors, None), DevQuestions(questions, relevant)
        searched = self._searched(dev)
        place = {row: position for position, row in enumerate(searched)}
        relevant = [sorted(place[row] for row in example.relevant) for example in dev]
        needed = {example.gold for example in self._data.train}
        needed |= {row for rows in negatives.rows for row in rows}
        texts = self._texts.of(needed.union(searched))
        return PassageSide(vectors, texts), DevQuestions(questions, relevant, searched)

    def _searched(self, dev: Sequence[RetrievalExample]) -> list[int]:
        """Rows that dev questions search: all, or of a large corpus what could be mistaken."""
        total = len(self._vectors)
        if total <= _SEARCHED:
            return list(range(total))
        questions = [example.question.text for example in dev]
        serving = Encoder(self._params.retriever, self._artifacts.weights_cache)
        count = self._settings.mining_candidates
        found = [
            *dense_candidates(serving.encode(questions, "query"), self._vectors, count),
            *bm25_candidates(questions, self._texts.all, count),
        ]
        rows = {row for example in dev for row in example.relevant}
        rows |= {int(row) for some in found for row in some}
        for row in np.random.default_rng(self._params.seed).permutation(total).tolist():
            if len(rows) >= _SEARCHED:
                break
            rows.add(row)
        return sorted(rows)

    def _choose_share(self, done: _Round) -> tuple[float, Ranking]:
        """How far to go from the original weights to the tuned ones, by MRR on dev.

        The encoder is left there; 0 is the original. Of equal shares the smallest is taken.
        """
        encoder = done.encoder
        encoder.merge_adapter()
        original, tuned = encoder.base, encoder.state()
        best, best_ranking = 0.0, done.before
        for share in _SHARES if done.summary.best_step else ():
            encoder.load(interpolate(original, tuned, share))
            ranking = done.training.rank_dev()
            if ranking.metrics()["mrr"] > best_ranking.metrics()["mrr"]:
                best, best_ranking = share, ranking
        encoder.load(interpolate(original, tuned, best))
        return best, best_ranking

    def _key(self) -> str:
        """What a checkpoint belongs to: parameters, base weights and the stage's inputs."""
        settings = {
            "retriever": self._params.retriever.model_dump(mode="json"),
            "seed": self._params.seed,
            "weights": weights_digest(self._weights.name, self._params.retriever.revision),
        }
        return stage_key(settings, [self._artifacts.questions, self._artifacts.chunks])


def _facts(ranking: Ranking) -> dict[str, Any]:
    """A ranking's metrics in percent, and the share of distinct passages found first."""
    facts = {name: round(value, 4) for name, value in ranking.metrics().items()}
    return facts | {"distinct_first": round(ranking.distinct_share(), 4)}
