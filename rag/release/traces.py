"""Test questions as MLflow traces: what was retrieved, what was read, what was expected.

A trace has a span `retrieve` and a span `read` below `answer`; the accepted answers are an
expectation, exact match and F1 are feedback by code. It carries the run and the model it belongs
to, so MLflow shows it on both their pages. How long a question took is not known where many are
answered in one batch, so spans have no length.

A trace's id is a hash of the run and of all that it shows: logging again finds the same traces and
leaves them, with whatever a person has noted there; traces of the run that no longer hold are
deleted.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from rag.evaluation.report_data import change, review_order
from rag.records import sorted_json
from rag.release.answers import RELEASED

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, TraceInfo
    from mlflow.tracing.client import TracingClient

#: Tags that traces are found by and filtered with.
QUESTION_TAG: Final = "ragloop.question_id"
CHANGE_TAG: Final = "ragloop.change"
#: Where MLflow says that a trace has its spans.
_SPANS_TAG = "mlflow.trace.spansLocation"
_AT_ONCE = 100
_PAGE = 500  # the most that an MLflow server gives at once
_PREVIEW = 1000  # characters: MLflow's own limit
_NS_IN_MS = 1_000_000


@dataclass(frozen=True)
class QuestionTrace:
    """What one trace shows; all values are plain JSON."""

    question_id: str
    question: str
    expected: Sequence[str]
    answer: str
    passages: Sequence[Mapping[str, Any]]
    read: Mapping[str, Any]
    scores: Mapping[str, float | bool | str]
    tags: Mapping[str, str] = field(default_factory=dict)

    def trace_id(self, run_id: str) -> str:
        """32 hexadecimal digits: the same for the same content in the same run."""
        return hashlib.sha256(sorted_json([run_id, vars(self)]).encode()).hexdigest()[:32]


def question_traces(
    predictions: pa.Table, reference: str | None, limit: int
) -> list[QuestionTrace]:
    """At most `limit` traces of the released system's answers, first those to look at first.

    Answers lost, gained or changed against the system `reference` come first, then the worst.
    """
    by_system: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in predictions.to_pylist():
        by_system.setdefault(row["system"], {})[row["question_id"]] = row
    rows = list(by_system[RELEASED].values())
    others = None
    if reference is not None:
        others = [by_system[reference][row["question_id"]] for row in rows]
    chosen = review_order(rows, others)[:limit]
    return [_trace(rows[place], others[place] if others else None, reference) for place in chosen]


def log_traces(
    traces: Sequence[QuestionTrace], *, experiment_id: str, run_id: str, model_id: str | None
) -> int:
    """Makes these the run's traces; returns how many were new."""
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    wanted = {f"tr-{trace.trace_id(run_id)}": trace for trace in traces}
    found = _known(client, experiment_id, run_id)
    stale = sorted(set(found) - set(wanted))
    for start in range(0, len(stale), _AT_ONCE):
        client.delete_traces(experiment_id, trace_ids=stale[start : start + _AT_ONCE])
    # MLflow lists the newest first: the first to look at gets the latest time.
    now = int(time.time() * 1000)
    times = {trace_id: now - place for place, trace_id in enumerate(wanted)}
    new = [trace_id for trace_id in wanted if trace_id not in found]
    for trace_id in new:
        client.start_trace(
            _info(
                trace_id,
                wanted[trace_id],
                experiment_id,
                times[trace_id],
                _owners(run_id, model_id),
            )
        )
    # Spans of many traces go in one call. An attempt that was cut off has traces without them.
    bare = [trace_id for trace_id in wanted if _SPANS_TAG not in found.get(trace_id, {})]
    for start in range(0, len(bare), _AT_ONCE):
        spans = [
            span
            for trace_id in bare[start : start + _AT_ONCE]
            for span in _spans(trace_id, wanted[trace_id], times[trace_id])
        ]
        client.log_spans(experiment_id, spans)
    return len(new)


def _known(client: TracingClient, experiment_id: str, run_id: str) -> dict[str, dict[str, str]]:
    """The tags of each trace that the run has, by its id."""
    found: dict[str, dict[str, str]] = {}
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            filter_string=f"tags.`{QUESTION_TAG}` != ''",
            run_id=run_id,
            include_spans=False,
            max_results=_PAGE,
            page_token=token,
        )
        found |= {trace.info.trace_id: trace.info.tags for trace in page}
        token = page.token
        if not token:
            return found


def _trace(
    row: Mapping[str, Any], other: Mapping[str, Any] | None, reference: str | None
) -> QuestionTrace:
    became = change(row, other)
    read: dict[str, Any] = {"score": row["score"], "abstained": row["abstained"]}
    tags = {
        QUESTION_TAG: row["question_id"],
        "ragloop.outcome": "right" if row["exact_match"] == 1.0 else "wrong",
        "ragloop.abstained": str(row["abstained"]).lower(),
        "ragloop.language": row["language"],
    }
    if other is not None and reference is not None:
        tags[CHANGE_TAG] = became
        read[f"answer_of_{reference}"] = other["prediction"]
    return QuestionTrace(
        question_id=row["question_id"],
        question=row["question"],
        expected=list(row["answers"]),
        answer=row["prediction"],
        passages=[dict(item) for item in row["evidence"] or ()],
        read=read,
        scores={"exact_match": row["exact_match"] == 1.0, "f1": row["f1"]},
        tags=tags,
    )


def _owners(run_id: str, model_id: str | None) -> dict[str, str]:
    owners = {"mlflow.sourceRun": run_id, "mlflow.trace_schema.version": "3"}
    return owners | ({"mlflow.modelId": model_id} if model_id else {})


def _info(
    trace_id: str, trace: QuestionTrace, experiment_id: str, when: int, owners: Mapping[str, str]
) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=when,
        execution_duration=0,
        state=TraceState.OK,
        request_preview=trace.question[:_PREVIEW],
        response_preview=(trace.answer or "(abstained)")[:_PREVIEW],
        trace_metadata=dict(owners),
        tags={"mlflow.traceName": "answer", **trace.tags},
        assessments=list(_assessments(trace)),
    )


def _assessments(trace: QuestionTrace) -> Iterator[Assessment]:
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    # The name that MLflow's own scorers look for.
    yield Expectation(
        "expected_response",
        " | ".join(trace.expected) or "(not answerable)",
        source=AssessmentSource("CODE", "ragloop"),
    )
    for name, value in trace.scores.items():
        yield Feedback(name, value, source=AssessmentSource("CODE", "ragloop"))


def _spans(trace_id: str, trace: QuestionTrace, when: int) -> Iterable[Span]:
    asked = {"question": trace.question}
    shared = {
        passage["chunk_id"]: passage["posterior"]
        for passage in trace.passages
        if passage["posterior"] is not None
    }
    documents = [
        {
            "page_content": passage["text"],
            "metadata": {
                "doc_uri": passage["document_id"],
                "chunk_id": passage["chunk_id"],
                "rank": passage["rank"],
                "score": passage["score"],
            },
            "id": passage["chunk_id"],
        }
        for passage in trace.passages
    ]
    given = {"answer": trace.answer, "abstained": trace.read["abstained"]}
    span = _Span(trace_id.removeprefix("tr-"), when * _NS_IN_MS)
    yield span.make(1, "answer", "CHAIN", inputs=asked, outputs=given)
    if documents:
        yield span.make(2, "retrieve", "RETRIEVER", inputs=asked, outputs=documents)
    yield span.make(
        3,
        "read",
        "CHAIN",
        inputs={**asked, "passages": [passage["chunk_id"] for passage in trace.passages]},
        outputs=given,
        attributes={**trace.read, **({"posterior": shared} if shared else {})},
    )


@dataclass(frozen=True)
class _Span:
    """Makes the spans of one trace; number 1 is the one above the others."""

    trace: str
    when: int

    def make(
        self,
        number: int,
        name: str,
        kind: str,
        *,
        inputs: Any,
        outputs: Any,
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        from mlflow.entities import Span

        values = {
            "mlflow.traceRequestId": f"tr-{self.trace}",
            "mlflow.spanType": kind,
            "mlflow.spanInputs": inputs,
            "mlflow.spanOutputs": outputs,
            **(attributes or {}),
        }
        return Span.from_dict(
            {
                "trace_id": base64.b64encode(bytes.fromhex(self.trace)).decode(),
                "span_id": _number(number),
                "parent_span_id": None if number == 1 else _number(1),
                "name": name,
                # A microsecond apart, so that they are shown in their order.
                "start_time_unix_nano": self.when + 1000 * number,
                "end_time_unix_nano": self.when + 1000 * number,
                "status": {"code": "STATUS_CODE_OK", "message": ""},
                "attributes": {key: sorted_json(value) for key, value in values.items()},
            }
        )


def _number(value: int) -> str:
    return base64.b64encode(value.to_bytes(8, "big")).decode()
