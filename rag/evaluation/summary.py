"""The content of metrics.json: every number that the evaluation gives, from its tables alone.

Beside the metrics of every system (`scoring.summarize`): what to quote with them, tests of the
differences, the smallest difference that so many questions can show, scores by slice, why answers
are wrong, how well confidence tells right from wrong, and how long answers are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.attribution import ORACLE, error_counts, is_attributed, repaired
from rag.evaluation.bleu import bleu_signature
from rag.evaluation.chrf import chrf_signature
from rag.evaluation.lengths import answer_lengths
from rag.evaluation.metric_groups import DECIMALS, Groups, Row
from rag.evaluation.power import minimum_detectable_effect, spread_of
from rag.evaluation.scoring import aligned_groups, rows_by_system, summarize
from rag.evaluation.selective import risk_coverage
from rag.evaluation.significance import holm, mcnemar, permutation_test
from rag.evaluation.slices import SliceSettings, slice_metrics
from rag.evaluation.statistics import Resampling

#: Metrics whose differences are tested.
TESTED = ("f1", "exact_match")
#: Points of a risk-coverage curve that are kept at most.
_CURVE_POINTS = 51
#: A system that is not part of an evaluation, but may be compared with it.
_CHAMPION = "champion"
_INTERVAL = re.compile(r'\{\s+"value": (\S+),\s+"low": (\S+),\s+"high": (\S+)\s+\}')
_POINT = re.compile(r"\[\s+([-\d.e]+),\s+([-\d.e]+)\s+\]")


def evaluation_metrics(
    predictions: pa.Table,
    probes: pa.Table | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    slices: SliceSettings,
) -> dict[str, Any]:
    """The content of metrics.json; metrics and shares of questions are in percent.

    `summarize`, and `signatures` {bleu, chrf}; `tests` {other: {f1: {permutation_p}, exact_match:
    {permutation_p, mcnemar_p}, holm: {metric: p}}} of the first system against each other one, the
    permutation tests corrected for all of them together; `minimum_detectable_effect` {metric:
    points}, paired with the first baseline, without the metrics in which no document differs;
    `slices` as from `slices.slice_metrics`; `errors` {system: {label: count}} of the systems whose
    errors were looked into, and `repaired` {system: {probe: count}} where `probes` has what they
    said; `abstention` {system: {aurc, curve: [[coverage, risk], ...]}}; `answer_length` {system:
    {tokens, characters, empty_rate}}.
    """
    resampling = Resampling(resamples, confidence, seed)
    rows = rows_by_system(predictions)
    groups = aligned_groups(rows)
    first, *others = rows
    compared = [name for name in others if name != ORACLE][:1]
    compared += [name for name in others if name == _CHAMPION and name not in compared]
    found = summarize(predictions, resamples=resamples, confidence=confidence, seed=seed)
    gold = [list(row["answers"]) for row in rows[first] if row["answerable"]]
    asked = {} if probes is None else _by_question(probes)
    return {
        **found,
        "signatures": {"bleu": bleu_signature(gold), "chrf": chrf_signature()},
        "tests": _tests(groups, resampling),
        "minimum_detectable_effect": _smallest_effects(groups, compared, confidence),
        "errors": {name: error_counts(of) for name, of in rows.items() if is_attributed(of)},
        "repaired": {first: repaired(rows[first], asked)} if asked else {},
        "abstention": {name: _selective(of) for name, of in rows.items()},
        "answer_length": {name: _lengths(of) for name, of in rows.items()},
        "slices": slice_metrics(rows[first], groups, compared, resampling, slices),
    }


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """metrics.json as text: an interval or a point a line, so that git shows what changed."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    text = _INTERVAL.sub(r'{"value": \1, "low": \2, "high": \3}', text)
    return _POINT.sub(r"[\1, \2]", text) + "\n"


def flat_metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """System, name and value of what is followed from run to run: `f1`, `f1_low`, `errors/reading`.

    Slices are not among them: they are many, and a table shows them better.
    """
    for system, found in metrics["systems"].items():
        for metric, ends in found.items():
            for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                yield system, f"{metric}{suffix}", float(ends[end])
    for system, counts in metrics.get("errors", {}).items():
        for label, count in counts.items():
            yield system, f"errors/{label}", float(count)


def _tests(groups: Mapping[str, Groups], resampling: Resampling) -> dict[str, Any]:
    first, *others = groups
    ours = groups[first]["all"]
    tests: dict[str, Any] = {}
    for name in others:
        theirs = groups[name]["all"]
        tests[name] = {
            metric: {
                "permutation_p": permutation_test(
                    ours.scores(metric) - theirs.scores(metric),
                    ours.clusters,
                    resamples=resampling.resamples,
                    seed=resampling.seed,
                )
            }
            for metric in TESTED
        }
        right = [group.scores("exact_match") == 100.0 for group in (ours, theirs)]
        tests[name]["exact_match"]["mcnemar_p"] = mcnemar(*right)
    family = {
        f"{metric} {name}": tests[name][metric]["permutation_p"]
        for name in others
        for metric in TESTED
    }
    corrected = holm(family) if family else {}
    for name in others:
        tests[name]["holm"] = {metric: corrected[f"{metric} {name}"] for metric in TESTED}
    return tests


def _smallest_effects(
    groups: Mapping[str, Groups], compared: Sequence[str], confidence: float
) -> dict[str, float]:
    """In points, for the metrics that are means; of corpus metrics nobody can tell."""
    if not compared:
        return {}
    ours, theirs = groups[next(iter(groups))], groups[compared[0]]
    found: dict[str, float] = {}
    for kind, group in ours.items():
        for metric in group.statistics if kind in theirs else ():
            if metric in ("bleu", "chrf") or metric not in theirs[kind].statistics:
                continue
            change = group.scores(metric) - theirs[kind].scores(metric)
            try:
                spread = spread_of(change, group.clusters)
            except MetricError:  # the documents do not differ: of their spread nothing is known
                continue
            effect = minimum_detectable_effect(spread, confidence=confidence)
            found[metric] = round(effect, DECIMALS)
    return found


def _selective(rows: Sequence[Row]) -> dict[str, Any]:
    """Risk is the share of wrong answers among the most confident.

    A declined answer counts last, as it was not given; declined rightly, it is no risk.
    """
    declined_at = min(row["score"] for row in rows) - 1.0
    confidence = [declined_at if row["abstained"] else row["score"] for row in rows]
    curve = risk_coverage(confidence, [1.0 - row["exact_match"] for row in rows])
    points = [
        [round(100.0 * x, DECIMALS), round(100.0 * y, DECIMALS)]
        for x, y in zip(curve.coverage.tolist(), curve.risk.tolist(), strict=True)
    ]
    last = len(points) - 1
    kept = sorted({round(last * i / (_CURVE_POINTS - 1)) for i in range(_CURVE_POINTS)})
    area = round(100.0 * float(curve.per_example.mean()), DECIMALS)
    return {"aurc": area, "curve": [points[place] for place in kept]}


def _lengths(rows: Sequence[Row]) -> dict[str, float]:
    lengths = answer_lengths([row["prediction"] for row in rows])
    return {
        "tokens": round(lengths.mean_tokens, DECIMALS),
        "characters": round(lengths.mean_characters, DECIMALS),
        "empty_rate": round(100.0 * lengths.empty_rate, DECIMALS),
    }


def _by_question(probes: pa.Table) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in probes.to_pylist():
        found.setdefault(row["system"], {})[row["question_id"]] = row
    return found
