"""What a reviewer opens after the gate has decided: the report again, with what is live beside it.

The evaluate stage knows no champion. Once it has answered the same questions, everything is
computed again from the two tables by the functions of that stage, so every number of the champion
is made like the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rag.artifacts import Artifacts
from rag.evaluation.evaluate import metrics_of, question_slices, read_history, report_facts
from rag.evaluation.report import render_report
from rag.params import Params
from rag.records import read_table


@dataclass(frozen=True)
class Review:
    """The page, and the tables and numbers that it shows; `predictions` include the champion's."""

    page: str
    predictions: pa.Table
    metrics: Mapping[str, Any]


def review(
    params: Params,
    artifacts: Artifacts,
    *,
    champion: pa.Table | None,
    decision: Mapping[str, Any] | None,
) -> Review:
    """The final report of a run; `champion` has the rows of the one system `champion`."""
    predictions = read_table(artifacts.predictions)
    together = predictions if champion is None else pa.concat_tables([predictions, champion])
    metrics = metrics_of(together, params, artifacts)
    page = render_report(
        predictions,
        metrics,
        read_history(artifacts),
        report_facts(params, artifacts),
        champion=champion,
        decision=decision,
        slices=question_slices(predictions, params),
    )
    return Review(page, together, metrics)
