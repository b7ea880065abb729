"""What tuning costs elsewhere: questions of general knowledge that no user's corpus is about.

`general_probe.jsonl` holds short passages in English and Chinese, written for this, each with one
question in other words. A model that learnt one corpus by heart finds fewer of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.finetune.ranking import Ranking, rank_relevant
from rag.retrieval.encoder import FloatMatrix, Side

PROBE = Path(__file__).parent / "general_probe.jsonl"
Encode = Callable[[Sequence[str], Side], FloatMatrix]


@dataclass(frozen=True)
class Probe:
    """Questions, each with the passage of the same position."""

    questions: tuple[str, ...]
    passages: tuple[str, ...]

    def rank(self, encode_queries: Encode, encode_passages: Encode) -> Ranking:
        """Each question among all passages of the probe; the sides may have different weights."""
        queries = encode_queries(self.questions, "query")
        passages = encode_passages(self.passages, "passage")
        return rank_relevant(queries, passages, [[i] for i in range(len(self.questions))])


def read_probe(path: Path = PROBE) -> Probe:
    """The probe that comes with the code."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Probe(tuple(row["question"] for row in rows), tuple(row["passage"] for row in rows))
