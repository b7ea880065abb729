"""The gate: may this challenger become champion? A pure function of prediction tables and params.

Challenger and champion answered the same frozen questions, so they are compared question by
question: paired bootstrap, whole documents resampled, seeded. The lower end of an interval must
clear its threshold, so equal systems and lucky small samples are not promoted. Whatever cannot be
compared (a missing metric, NaN, other questions, any exception) is ERROR, and the champion stays.
docs/gate.md says what each check means and how to choose its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from rag.errors import RagError, ReleaseError
from rag.evaluation.statistics import Resampling
from rag.params import GateParams
from rag.release.attribution import OLD_INDEX, OLD_MODEL, attribution
from rag.release.comparison import (
    check_predictions,
    check_same_questions,
    metrics_version,
    suite_version,
)
from rag.release.cost import CostSample, cost_checks
from rag.release.decision import Check, Decision, Outcome
from rag.release.guards import (
    behaviour,
    behaviour_check,
    budget_check,
    collapse_check,
    floor_check,
    gain_check,
    slice_checks,
)
from rag.release.quantities import Arm, Quantity, Sampling, difference, measure
from rag.release.significance import detectable_effect, significance

__all__ = ["Check", "Context", "Decision", "Outcome", "decide"]


@dataclass(frozen=True)
class Context:
    """What the gate judges beside predictions; it holds no clock and no environment.

    `test_set` is the version of the questions that both systems had to answer, `decisions_before`
    how often it has decided. `mixed` has the arms of the attribution grid, `unmixed` says why it
    has none. `checks` are verdicts from elsewhere, for example of a person. In a `refresh` the
    challenger has the champion's models over an index of today's documents.
    """

    test_set: str | None = None
    decisions_before: int = 0
    cost: CostSample | None = None
    checks: tuple[Check, ...] = ()
    mixed: Mapping[str, pa.Table] = field(default_factory=dict)
    unmixed: str = ""
    refresh: bool = False


def decide(
    challenger: pa.Table,
    champion: pa.Table | None,
    baselines: Mapping[str, pa.Table],
    params: GateParams,
    *,
    seed: int,
    context: Context | None = None,
) -> Decision:
    """Compares a challenger with the champion, or with every baseline while there is no champion.

    Tables have the columns of `records.PREDICTIONS` and the rows of one system each. Never raises:
    what goes wrong is an ERROR with its reason.

    - PROMOTE: every check that decides has passed. Floors hold always; with a champion the primary
      metric gains more than `min_effect` and each guard loses less than its margin, at the lower
      ends; without one, the primary metric beats every baseline by more than `baseline_effect`.
      A refresh has nothing to gain by: the primary metric loses less than `refresh_margin`.
    - REJECT: a check has failed beyond doubt: a floor, or the whole interval beyond its threshold.
    - INCONCLUSIVE: none has, but for one at least the interval contains the threshold.
    """
    opponents = {"champion": champion} if champion is not None else dict(baselines)
    settings = {**params.model_dump(mode="json"), "seed": seed}
    questions = challenger.num_rows if isinstance(challenger, pa.Table) else 0
    undecided = Decision(Outcome.ERROR, (), (), ", ".join(opponents), questions, settings)
    try:
        tables = {"challenger": challenger, **opponents}
        return _decided(undecided, tables, params, seed, context or Context())
    except Exception as error:  # noqa: BLE001 - the contract: whatever goes wrong, the champion stays
        reason = str(error) if isinstance(error, RagError) else f"{type(error).__name__}: {error}"
        return replace(undecided, reasons=(reason,))


def _decided(
    undecided: Decision,
    tables: Mapping[str, pa.Table],
    params: GateParams,
    seed: int,
    context: Context,
) -> Decision:
    if not params.floors:
        raise ReleaseError("gate.floors names no metric: a gate without one is open")
    arms = _arms({**tables, **context.mixed})
    ours = arms["challenger"]
    rivals = {name: arms[name] for name in tables if name != "challenger"}
    version = suite_version(ours.table)
    if context.test_set is not None and version != context.test_set:
        raise ReleaseError(
            f"the predictions answer test set {version[:12]}, today's is {context.test_set[:12]}; "
            "run: ragloop run --force"
        )
    drawn = Resampling(params.resamples, params.confidence, seed)
    sampling = Sampling(_clusters(ours.table), drawn)
    checks = _own_checks(ours, rivals, _settings(params, context), sampling)
    decided = replace(
        undecided,
        test_set=version,
        metrics_version=metrics_version("challenger", ours.table),
    )
    champion = rivals.get("champion")
    if champion is not None:
        checks += slice_checks(ours, champion, params.slices, sampling)
        if params.cost is not None:
            checks += cost_checks(context.cost, params.cost, drawn)
        metrics = list(dict.fromkeys((params.metric, *params.guards)))
        decided = replace(
            decided,
            significance=significance(ours, champion, metrics, sampling),
            attribution=_attribution(arms, metrics, sampling, context.unmixed),
            detectable=detectable_effect(ours, champion, params.metric, sampling),
        )
    budget = params.decisions_per_test_set
    spent, notes = budget_check(context.decisions_before, budget.warn, budget.refuse)
    return _concluded(decided, [*checks, spent, *context.checks], notes)


def _settings(params: GateParams, context: Context) -> GateParams:
    """A refresh is for its newer documents: it has to show only that no answer suffers."""
    if not context.refresh:
        return params
    return params.model_copy(update={"min_effect": -params.refresh_margin})


def _arms(tables: Mapping[str, pa.Table]) -> dict[str, Arm]:
    """Every table checked, sorted by question, and of the challenger's questions."""
    arms: dict[str, Arm] = {}
    for name, table in tables.items():
        check_predictions(name, table)
        arms[name] = Arm(name, table.sort_by("question_id").combine_chunks())
        if name != "challenger":
            first = arms["challenger"]
            check_same_questions(first.label, first.table, name, arms[name].table)
    return arms


def _clusters(table: pa.Table) -> list[str]:
    """Questions about one document are resampled together; one without a document stands alone."""
    pairs = zip(table["document_id"].to_pylist(), table["question_id"].to_pylist(), strict=True)
    return [
        f"question {question}" if document is None else f"document {document}"
        for document, question in pairs
    ]


def _own_checks(
    ours: Arm, rivals: Mapping[str, Arm], params: GateParams, sampling: Sampling
) -> list[Check]:
    """The primary metric, the guards, the floors and the retriever's health: one resampling."""
    metric, has_champion = params.metric, "champion" in rivals
    ours.level(metric)
    compared: dict[tuple[str, str, str], Quantity] = {
        ("primary", name, metric): difference(ours.level(metric), rival.level(metric))
        for name, rival in rivals.items()
        if has_champion or rival.has(metric)
    }
    if not compared:
        raise ReleaseError(
            f"nothing to compare {metric} with: {', '.join(rivals) or 'no champion, no baseline'}"
            + (" does not have it" if rivals else "")
        )
    needed = params.min_effect if has_champion else params.baseline_effect
    thresholds = dict.fromkeys(compared, needed)
    if has_champion:
        champion = rivals["champion"]
        for guard, margin in params.guards.items():
            gain = difference(ours.level(guard), champion.level(guard))
            compared["guard", "champion", guard] = gain
            thresholds["guard", "champion", guard] = -margin
        for name, quantity in behaviour(ours, champion, params).items():
            compared["behaviour", "champion", name] = quantity
    for name, floor in params.floors.items():
        compared["floor", "", name] = ours.level(name)
        thresholds["floor", "", name] = floor
    checks = []
    for key, interval in measure(compared, sampling).items():
        kind, name, of = key
        count = int(compared[key].counted.sum())
        if kind == "floor":
            checks.append(floor_check(of, interval, thresholds[key], count))
        elif kind == "behaviour":
            checks.append(behaviour_check(of, interval, params, count))
        else:
            label = f"{kind} against {name}"
            checks.append(
                gain_check(label, of, interval, thresholds[key], other=name, n_questions=count)
            )
    return [*checks, collapse_check(ours, params.min_distinct_top1)]


def _attribution(
    arms: Mapping[str, Arm], metrics: Sequence[str], sampling: Sampling, unmixed: str
) -> dict[str, Any] | None:
    """Effects of model and index; `{"unknown": why}` where the mixed arms could not be asked."""
    if OLD_MODEL in arms and OLD_INDEX in arms:
        return attribution(arms, metrics, sampling)
    return {"unknown": unmixed} if unmixed else None


def _concluded(decided: Decision, checks: Sequence[Check], notes: tuple[str, ...]) -> Decision:
    failed = [check for check in checks if check.decides and not check.passed]
    proven = [check.detail for check in failed if check.conclusive]
    notes += tuple(check.detail for check in checks if not check.decides and not check.passed)
    if not failed:
        outcome = Outcome.PROMOTE
        reasons = [check.detail for check in checks if check.name.startswith("primary")]
    elif proven:
        outcome, reasons = Outcome.REJECT, proven
    else:
        outcome = Outcome.INCONCLUSIVE
        reasons = [check.detail + _could_tell(check, decided.detectable) for check in failed]
    return replace(
        decided, outcome=outcome, reasons=tuple(reasons), checks=tuple(checks), notes=notes
    )


def _could_tell(check: Check, detectable: float | None) -> str:
    if not check.name.startswith("primary"):
        return ""
    shown = "" if detectable is None else f" (these show {detectable:.1f} points 4 times out of 5)"
    return f", the upper end is: more questions could tell{shown}"
