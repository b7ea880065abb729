"""Releases whose true quality is known, for asking how often the gate is right about them.

A question is answered right, half right or wrong as a latent score falls. The score is the system's
quality plus what the document and the question make easy (alike for both systems) plus what the
document and the question happen to do to this one system, so that answers about one document go
together and two systems of one quality still differ on half of what is hard.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag.evaluation.version import METRICS_VERSION
from rag.records import PREDICTIONS

_DOCUMENT, _QUESTION, _OWN_DOCUMENT, _OWN_QUESTION = 0.6, 1.2, 0.25, 0.8
_HALF = 0.7
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TestSet:
    """`documents` with `questions` each."""

    __test__ = False
    documents: int
    questions: int

    @property
    def size(self) -> int:
        return self.documents * self.questions

    def tables(self, quality: tuple[float, float], seed: int) -> tuple[pa.Table, pa.Table]:
        """Predictions of a challenger and a champion of these qualities."""
        first, second = self.scores(quality, seed)
        return self.table("tuned", first), self.table("champion", second)

    def scores(self, quality: tuple[float, float], seed: int) -> tuple[Scores, Scores]:
        """F1 of both systems by question: 0, one half or 1."""
        shared, first, second = np.random.SeedSequence(seed).spawn(3)
        return (
            self._answered(quality[0], shared, first),
            self._answered(quality[1], shared, second),
        )

    def scores_of(self, quality: float, *, shared_seed: int, own_seed: int) -> Scores:
        """The same of one system: what the questions make easy, and what only it finds so."""
        shared, own = np.random.SeedSequence(shared_seed), np.random.SeedSequence(own_seed)
        return self._answered(quality, shared.spawn(1)[0], own)

    def _answered(
        self, quality: float, shared: np.random.SeedSequence, own: np.random.SeedSequence
    ) -> Scores:
        latent = np.full((self.documents, self.questions), quality)
        for seed, of_document, of_question in (
            (shared, _DOCUMENT, _QUESTION),
            (own, _OWN_DOCUMENT, _OWN_QUESTION),
        ):
            generator = np.random.default_rng(seed)
            latent += of_document * generator.normal(size=(self.documents, 1))
            latent += of_question * generator.normal(size=latent.shape)
        return (0.5 * (latent > 0.0) + 0.5 * (latent > _HALF)).ravel()

    def table(self, system: str, f1: Scores) -> pa.Table:
        """A prediction table in which only the answers' scores are alive."""
        alive = {"f1": f1, "rougeL": f1, "exact_match": (f1 == 1.0).astype(float)}
        table = _blank(self, system)
        for name, scores in alive.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(scores))
        return table


@functools.cache
def _blank(test_set: TestSet, system: str) -> pa.Table:
    """The questions, all answered alike."""
    count = test_set.size
    ids = [f"q{place:05}" for place in range(count)]
    columns: dict[str, object] = {
        "system": [system] * count,
        "question_id": ids,
        "question": ids,
        "answers": [["right"]] * count,
        "document_id": [f"d{place // test_set.questions}" for place in range(count)],
        "answerable": [True] * count,
        "language": ["en"] * count,
        "slices": ["{}"] * count,
        "prediction": ["right"] * count,
        "score": [-1.0] * count,
        "abstained": [False] * count,
        "metrics_version": [METRICS_VERSION] * count,
        "error": [None] * count,
        "gold_read": [None] * count,
        "evidence": [[{"chunk_id": f"c{place}", "rank": 1}] for place in range(count)],
    }
    everything = {name: columns.get(name, [1.0] * count) for name in PREDICTIONS.names}
    return pa.Table.from_pydict(everything, schema=PREDICTIONS)


#: Enough questions to know a difference to a twentieth of a point.
_POPULATION = TestSet(documents=40_000, questions=10)


def true_gain(quality: tuple[float, float]) -> float:
    """Points of F1 between two qualities, over all questions there could be."""
    first, second = _POPULATION.scores(quality, seed=0)
    return float(100.0 * (first.mean() - second.mean()))


def quality_of_gain(points: float, champion: float = 0.0) -> float:
    """The challenger's quality that is worth so many points of F1, by halving."""
    low, high = champion - 2.0, champion + 2.0
    for _ in range(14):
        middle = (low + high) / 2.0
        low, high = (middle, high) if true_gain((middle, champion)) < points else (low, middle)
    return (low + high) / 2.0
