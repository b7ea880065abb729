"""People judge answers: the work of `ragloop review sample`, `import`, `list` and `show`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import review_gate, terminal
from flows.lineage import pipeline_hash
from rag.artifacts import Artifacts
from rag.errors import DataError, InputError
from rag.evaluation.review_folder import (
    Review,
    read_review,
    read_reviews,
    save_review,
    save_verdicts,
)
from rag.evaluation.review_result import human_result, judgements_of
from rag.evaluation.review_sample import answer_pairs, answers_digest, select
from rag.evaluation.review_sheet import System, draw_sheet, sheet_csv
from rag.params import Params

if TYPE_CHECKING:
    from pyarrow import Table

RELEASED = "tuned"


def sample(
    artifacts: Artifacts,
    params: Params,
    *,
    n: int | None,
    where: Sequence[str] = (),
    seed: int | None = None,
    show_accepted: bool = False,
    output: Path | None = None,
) -> dict[str, Any]:
    """Draws a sheet from the last run's test answers, and writes it as a page and as CSV.

    `n` None asks about every answer that differs. Without a seed one is drawn, so that nobody who
    has the code can tell the sides.
    """
    from rag.evaluation.review_page import render_sheet

    conditions = _conditions(where)
    row = _row_of_run(artifacts)
    challenger = _system(artifacts, RELEASED)
    opponent, release = _opponent(artifacts, params, row)
    pairs = answer_pairs(challenger, opponent)
    chosen = select(pairs, conditions)
    sheet, key = draw_sheet(
        chosen,
        System(RELEASED, row.get("version"), answers_digest(challenger)),
        System(opponent["system"][0].as_py(), release, answers_digest(opponent)),
        n=n,
        seed=secrets.randbits(32) if seed is None else seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        where=conditions,
        show_accepted=show_accepted,
        run_id=row.get("run_id"),
    )
    folder = output or artifacts.root / f"review-{key.review}"
    folder.mkdir(parents=True, exist_ok=True)
    is_new = save_review(artifacts.reviews, sheet, key)
    page, table = folder / "sheet.html", folder / "sheet.csv"
    page.write_text(render_sheet(sheet), encoding="utf-8")
    # A byte order mark tells spreadsheets that this is UTF-8.
    table.write_text(sheet_csv(sheet), encoding="utf-8-sig", newline="")
    return {
        "review": key.review,
        "is_new": is_new,
        "seed": key.seed,
        "asked": len(key.rows),
        "changed": key.n_questions - key.n_identical,
        "identical": key.n_identical,
        "questions": key.n_questions,
        "page": str(page),
        "table": str(table),
    }


def import_verdicts(
    artifacts: Artifacts, params: Params, file: Path, *, rater: str | None, replace: bool
) -> dict[str, Any]:
    """Takes in what one rater said, logs it to MLflow, and returns the review's result.

    Nothing changes where anything in the file is wrong. The same file may be imported again.
    """
    from rag.evaluation.review_verdicts import checked_rater, checked_verdicts, read_verdict_file

    found = read_verdict_file(file)
    review = read_review(artifacts.reviews, found.review)
    verdicts = checked_verdicts(found, review.sheet)
    name = checked_rater(rater, found)
    before = review.verdicts.get(name)
    if before is not None and before != verdicts and not replace:
        changed = sum(one != other for one, other in zip(before, verdicts, strict=True))
        raise DataError(
            f"{file}: {name} has judged review {found.review} already, and {changed} rows differ",
            hint="If the file is the better one: --replace. If another person judged: --rater NAME",
        )
    save_verdicts(artifacts.reviews, review, name, verdicts)
    review = read_review(artifacts.reviews, found.review)
    logged = _log(artifacts, params, review)
    return {**describe(artifacts, params, review), "rater": name, "mlflow": logged}


def listed(artifacts: Artifacts, params: Params) -> list[dict[str, Any]]:
    """Every review with its result so far, the newest first."""
    reviews = reversed(read_reviews(artifacts.reviews))
    return [describe(artifacts, params, review) for review in reviews]


def shown(artifacts: Artifacts, params: Params, review: str) -> dict[str, Any]:
    """One review with every judgement; sides stay hidden until there is one."""
    found = read_review(artifacts.reviews, review)
    rows = {row.row: row for row in found.sheet.rows}
    by_question = {item.question_id: (rows[item.row], item.challenger) for item in found.key.rows}
    judgements = []
    for judgement in judgements_of(found.key, found.verdicts):
        row, side = by_question[judgement.question_id]
        a, b = row.answer_a, row.answer_b
        answers = {"challenger": a if side == "A" else b, "opponent": b if side == "A" else a}
        judgements.append({"question": row.question, **answers, **asdict(judgement)})
    return {**describe(artifacts, params, found), "judgements": judgements}


def describe(artifacts: Artifacts, params: Params, review: Review) -> dict[str, Any]:
    """What a review asked, who answered, and the result; `result` is None while nobody has."""
    key = review.key
    result = None
    if review.verdicts:
        result = human_result([(key, review.verdicts)], review_gate.resampling(params)).to_json()
    return {
        "review": key.review,
        "created": key.created,
        "challenger": _named(key.challenger),
        "opponent": _named(key.opponent),
        "where": dict(key.where),
        "questions": key.n_questions,
        "identical": key.n_identical,
        "asked": len(key.rows),
        "raters": sorted(review.verdicts),
        "result": result,
    }


def _log(artifacts: Artifacts, params: Params, review: Review) -> dict[str, Any] | None:
    """`{"run_id", "traces"}`; None where the answers belong to no MLflow run."""
    if review.key.run_id is None:
        return None
    from rag import tracking
    from rag.release.assessments import log_human_metrics, log_verdicts

    tracking.configure(artifacts, params)
    from mlflow import MlflowClient

    client, run_id = MlflowClient(), review.key.run_id
    traces = log_verdicts(client, run_id, review)
    subject = review.key.challenger.answers, review.key.opponent.answers
    result = review_gate.human_result_of(artifacts, params, *subject)
    if result is not None:
        log_human_metrics(client, run_id, result)
    return {"run_id": run_id, "traces": traces}


def _row_of_run(artifacts: Artifacts) -> Mapping[str, Any]:
    """The ledger row of the run that left these answers; empty where the stages ran by hand."""
    from rag.release import ledger

    if not artifacts.predictions.exists():
        raise InputError(
            f"{artifacts.predictions}: no answers yet",
            hint="ragloop run makes them.",
        )
    if not (artifacts.root / "dvc.lock").exists():
        return {}
    made = pipeline_hash(artifacts)
    rows = ledger.read(artifacts.ledger)
    own = [row for row in rows if row.get("tags", {}).get("dvc_lock") == made]
    # A run that gave the champion again was decided when that champion was compared.
    decided = [row for row in own if "decision" in row]
    return (decided or own or [{}])[-1]


def _opponent(
    artifacts: Artifacts, params: Params, row: Mapping[str, Any]
) -> tuple[Table, str | None]:
    """The answers of who was champion when the run was decided, asked again, or of a baseline."""
    before = row.get("champion_before", row["champion"] if "decision" in row else None)
    if row and before is None:
        return _baseline(artifacts, params), None
    from flows.compare import champion_predictions
    from rag import tracking
    from rag.release import registry

    tracking.configure(artifacts, params)
    release = registry.get_release(params, before) if before else registry.champion(params)
    if release is None:
        return _baseline(artifacts, params), None
    with terminal.step("champion") as step:
        answers = champion_predictions(artifacts, params, release)
        step.finish(f"{answers.num_rows} questions asked again")
    return answers, release.version


def _baseline(artifacts: Artifacts, params: Params) -> Table:
    if not params.evaluate.baselines:
        raise InputError(
            "there is no champion, and evaluate.baselines in params.yaml is empty: "
            "there is nothing to compare the answers with"
        )
    return _system(artifacts, params.evaluate.baselines[0])


def _system(artifacts: Artifacts, name: str) -> Table:
    rows = review_gate.answers_of(artifacts, name)
    if not rows.num_rows:
        raise InputError(
            f"{artifacts.predictions}: has no answers of {name}", hint="ragloop run makes them."
        )
    return rows


def _conditions(where: Sequence[str]) -> dict[str, list[str]]:
    wrong = [item for item in where if "=" not in item.strip("=")]
    if wrong:
        raise InputError([f"--slice {item!r}: expected KEY=VALUE" for item in wrong])
    conditions: dict[str, list[str]] = {}
    for item in where:
        key, _, value = item.partition("=")
        conditions.setdefault(key, []).append(value)
    return conditions


def _named(system: System) -> str:
    return f"{system.name} (version {system.release})" if system.release else system.name
