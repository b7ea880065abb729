"""The evaluate stage's work: every system on the test questions, then numbers, plots and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rag.artifacts import Artifacts
from rag.errors import DataError
from rag.evaluation.attribution import label_errors
from rag.evaluation.plots import write_plots
from rag.evaluation.probes import ask_again
from rag.evaluation.report import render_report
from rag.evaluation.report_data import ORACLE, rows_by_system
from rag.evaluation.scoring import prediction_rows
from rag.evaluation.slices import SliceSettings, dimensions
from rag.evaluation.summary import evaluation_metrics, metrics_text
from rag.finetune.examples import gold_passages
from rag.finetune.retriever import REPORT
from rag.params import Params
from rag.progress import Advance, progress
from rag.reading.answerer import QuestionAnswerer, System
from rag.reading.reader import read_manifest, reading_facts
from rag.records import (
    PREDICTIONS,
    Passage,
    Question,
    read_chunks,
    read_questions,
    read_table,
    write_table,
)
from rag.retrieval.embeddings import read_facts
from rag.retrieval.fusion import Fusion

Rows = list[dict[str, Any]]

TUNED: System = "tuned"


def evaluate_systems(params: Params, artifacts: Artifacts) -> None:
    """Answers the test questions with the tuned system and its baselines and writes the results."""
    questions = read_questions(artifacts.questions, "test")
    if not questions:
        raise DataError("no test questions: raise prepare.test_share or add documents")
    rows, probes = _answers(params, artifacts, questions)
    write_table([row for of in rows.values() for row in of], PREDICTIONS, artifacts.predictions)
    write_table(probes, PREDICTIONS, artifacts.probes)
    predictions = read_table(artifacts.predictions)
    metrics = metrics_of(predictions, params, artifacts)
    artifacts.metrics.write_text(metrics_text(metrics), encoding="utf-8")
    history = read_history(artifacts)
    write_plots(artifacts.plots, metrics, history)
    page = render_report(
        predictions,
        metrics,
        history,
        report_facts(params, artifacts),
        slices=question_slices(predictions, params),
    )
    artifacts.report.write_text(page, encoding="utf-8")


def metrics_of(predictions: pa.Table, params: Params, artifacts: Artifacts) -> dict[str, Any]:
    """The content of metrics.json for a table of answers, the tuned system's first."""
    settings = params.evaluate
    return evaluation_metrics(
        predictions,
        read_table(artifacts.probes) if settings.attribution else None,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=params.seed,
        slices=_slice_settings(params),
    )


def question_slices(predictions: pa.Table, params: Params) -> dict[str, dict[str, list[str]]]:
    """`{dimension: {value: [question id, ...]}}` of the tuned system's rows."""
    return dimensions(rows_by_system(predictions)[TUNED], _slice_settings(params))


def _slice_settings(params: Params) -> SliceSettings:
    return SliceSettings(params.evaluate.min_slice_questions, params.evaluate.max_slice_values)


def _answers(
    params: Params, artifacts: Artifacts, questions: Sequence[Question]
) -> tuple[dict[str, Rows], Rows]:
    """Every system's rows, an oracle's last, and those of the probes, with the errors labelled."""
    baselines: list[System] = list(params.evaluate.baselines)
    bound: list[System] = [ORACLE] if params.evaluate.oracle else []
    asked: list[System] = [TUNED, *baselines, *bound]
    gold: dict[str, Passage] = {}
    if params.evaluate.oracle or params.evaluate.attribution:
        documents = {item.document_id for item in questions if item.document_id is not None}
        gold = gold_passages(questions, read_chunks(artifacts.chunks, document_ids=documents))
    rows: dict[str, Rows] = {}
    with progress("evaluate", len(asked) * len(questions)) as advance:
        for system in asked:
            answerer = QuestionAnswerer.load(artifacts, params, system)
            given = gold if system == ORACLE else None
            rows[system] = answer_questions(answerer, questions, system, advance, gold=given)
            answerer.close()
    if not params.evaluate.attribution:
        return rows, []
    answerer = QuestionAnswerer.load(artifacts, params, TUNED)
    top_k = params.retrieve.top_k
    probes = ask_again(answerer, questions, rows[TUNED], gold, top_k=top_k)
    answerer.close()
    oracle = {row["question_id"]: row for row in probes if row["system"] == ORACLE}
    others: dict[str, dict[str, Any]] = {
        name: {row["question_id"]: row for row in rows[name]} for name in baselines
    }
    rows[TUNED] = label_errors(rows[TUNED], oracle, others)
    return rows, probes


def answer_questions(
    answerer: QuestionAnswerer,
    questions: Sequence[Question],
    system: str,
    advance: Advance | None = None,
    *,
    gold: Mapping[str, Passage] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `records.PREDICTIONS` for one system.

    For an oracle, `gold` has by question id the passage that is read instead of the retrieved ones;
    its retrieval is not scored. A question without one is answered from what was retrieved.
    """
    given = {
        place: [gold[question.question_id]]
        for place, question in enumerate(questions)
        if gold is not None and question.question_id in gold
    }
    texts = [question.text for question in questions]
    responses = answerer.respond(texts, given=given, progress=advance)
    retrieved = None if system == "closed_book" else [list(item.passages) for item in responses]
    answers = [item.answer for item in responses]
    return prediction_rows(
        system, questions, answers, retrieved=retrieved, score_retrieval=gold is None
    )


def read_history(artifacts: Artifacts) -> list[dict[str, Any]]:
    """The training curve, one mapping a row."""
    lines = artifacts.history.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def report_facts(params: Params, artifacts: Artifacts) -> dict[str, str]:
    """What the systems were made with, for the page."""
    manifest = read_manifest(artifacts.reader)
    fusion = Fusion.read(artifacts.fusion)
    threshold = manifest["abstain_below"]
    return {
        "Retriever": params.retriever.model,
        "Reader": f"{params.reader.model}, {params.reader.kind}",
        "Retriever tuned": _tuning(params, artifacts),
        "Hybrid search": ", ".join(
            f"{language}: {rule.method}, dense share {rule.dense_weight:g}"
            for language, rule in sorted(fusion.rules.items())
        ),
        "Reranker": params.retrieve.rerank.model or "none",
        **reading_facts(params.reader, manifest),
        "Best training step": f"{manifest['best_step']} of {manifest['steps']}",
        "Abstains below": "never" if threshold is None else f"{threshold:.3f} (log p per token)",
        "Index fingerprint": read_facts(artifacts.embeddings).fingerprint[:16],
        "Seed": str(params.seed),
    }


def _tuning(params: Params, artifacts: Artifacts) -> str:
    """What tuning did to the retriever, on the dev questions."""
    if params.retriever.mode == "none":
        return "no"
    report = json.loads((artifacts.query_encoder / REPORT).read_text(encoding="utf-8"))
    before, after = (report["dev"][when]["recall@1"] for when in ("before", "after"))
    change = f"dense recall@1 on dev {before:.1f} before, {after:.1f} after"
    if report["kept"] == "untuned":
        change = "left as it was, because dev did not improve"
    return f"{params.retriever.mode}: {change}"
