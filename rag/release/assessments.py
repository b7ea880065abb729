"""Human verdicts in MLflow: assessments on the traces of the test questions, a table, and metrics.

Where the run of the reviewed answers has traces, each verdict is a feedback of source HUMAN on the
trace of its question: it shows beside the answer, and MLflow's own tools count it. With traces or
without, the run gets a table of the verdicts and the win rate as metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag.evaluation.review_folder import Review
from rag.evaluation.review_result import HumanResult, Judgement, judgements_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Feedback, TraceInfo

#: The tag by which the trace of a question is found, and the feedback's name on it.
QUESTION_TAG = "ragloop.question_id"
FEEDBACK = "human_preference"

_TABLES = "mlflow.loggedArtifacts"
_PAGE = 500


def log_verdicts(client: MlflowClient, run_id: str, review: Review) -> int:
    """Logs a review's verdicts on the run and its traces; returns how many traces carry one.

    May be repeated: what is there already is not logged again, and a verdict that was changed
    overrides the one before, which MLflow keeps as no longer valid.
    """
    key = review.key
    judgements = judgements_of(key, review.verdicts)
    _log_table(client, run_id, review, judgements)
    traces = dict(_traces(client, run_id))
    found = set()
    for judgement in judgements:
        trace = traces.get(judgement.question_id)
        if trace is not None:
            found.add(judgement.question_id)
            _log_feedback(trace, review, judgement)
    return len(found)


def log_human_metrics(client: MlflowClient, run_id: str, result: HumanResult) -> None:
    """The win rate with its interval, in percent, how much it rests on, and kappa, as metrics."""
    from mlflow.entities import Metric

    values: dict[str, float | None] = {
        "win_rate": result.win_rate.value,
        "win_rate_low": result.win_rate.low,
        "win_rate_high": result.win_rate.high,
        "judged_questions": result.judged,
        "judgements": result.judgements,
        "kappa": result.agreement.kappa if result.agreement else None,
    }
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"human/{name}", float(value), now, 0)
        for name, value in values.items()
        if value is not None
    ]
    client.log_batch(run_id, metrics)


def _log_table(
    client: MlflowClient, run_id: str, review: Review, judgements: Sequence[Judgement]
) -> None:
    """As MLflow tables are; another import of the same review takes the table's place."""
    rows = {row.row: row for row in review.sheet.rows}
    shown = {item.question_id: (rows[item.row], item.challenger) for item in review.key.rows}
    columns = ["question", "challenger", "opponent", "verdict", "rater", "comment", "question_id"]
    data = []
    for judgement in judgements:
        row, side = shown[judgement.question_id]
        answers = (row.answer_a, row.answer_b) if side == "A" else (row.answer_b, row.answer_a)
        said = (judgement.outcome, judgement.rater, judgement.comment, judgement.question_id)
        data.append([row.question, *answers, *said])
    path = f"reviews/{review.key.review}.json"
    table = {"columns": columns, "data": data}
    client.log_text(run_id, json.dumps(table, ensure_ascii=False), path)
    tables = json.loads(client.get_run(run_id).data.tags.get(_TABLES, "[]"))
    entry = {"path": path, "type": "table"}
    if entry not in tables:
        client.set_tag(run_id, _TABLES, json.dumps([*tables, entry]))


def _traces(client: MlflowClient, run_id: str) -> Iterator[tuple[str, TraceInfo]]:
    """The run's traces of questions: they are the released system's, and perhaps not of all."""
    experiment = client.get_run(run_id).info.experiment_id
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment],
            run_id=run_id,
            filter_string=f"tags.`{QUESTION_TAG}` != ''",
            max_results=_PAGE,
            page_token=token,
            include_spans=False,
        )
        for trace in page:
            yield trace.info.tags[QUESTION_TAG], trace.info
        token = page.token
        if not token:
            return


def _log_feedback(trace: TraceInfo, review: Review, judgement: Judgement) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource, AssessmentSourceType

    said: dict[str, Any] = {
        "value": judgement.outcome,
        "rationale": judgement.comment or None,
        "source": AssessmentSource(AssessmentSourceType.HUMAN, judgement.rater),
        "metadata": _facts(review),
    }
    before = _said_before(trace, review, judgement.rater)
    if before is None:
        mlflow.log_feedback(trace_id=trace.trace_id, name=FEEDBACK, **said)
    elif (before.value, before.rationale) != (said["value"], said["rationale"]):
        mlflow.override_feedback(
            trace_id=trace.trace_id, assessment_id=str(before.assessment_id), **said
        )


def _said_before(trace: TraceInfo, review: Review, rater: str) -> Feedback | None:
    """What this rater said of the question in this review, if MLflow has it and it still holds."""
    from mlflow.entities import Feedback

    for assessment in trace.assessments:
        metadata: Mapping[str, str] = assessment.metadata or {}
        if (
            isinstance(assessment, Feedback)
            and (assessment.name, assessment.source.source_id) == (FEEDBACK, rater)
            and metadata.get("ragloop.review") == review.key.review
            and assessment.valid is not False
        ):
            return assessment
    return None


def _facts(review: Review) -> dict[str, str]:
    opponent = review.key.opponent
    release = f" {opponent.release}" if opponent.release else ""
    return {"ragloop.review": review.key.review, "ragloop.opponent": f"{opponent.name}{release}"}
