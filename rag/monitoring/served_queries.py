"""Windows of the query log, one release at a time: what was tested, and what each alarm says.

    ServedState -> observe(rows of the log) -> ServedState -> triggers

The embeddings of a window are compared with train questions; its abstentions and retrieval scores
with the release's own first queries, since both depend on how a release was tuned. A new release
starts anew.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rag.monitoring.drift import (
    FloatMatrix,
    QueryReference,
    fall_p_value,
    rise_p_value,
    squared_mmd,
    strangest,
)
from rag.monitoring.episodes import Episode, Rule
from rag.monitoring.triggers import Trigger
from rag.watch_params import DriftParams

Row = Mapping[str, Any]
Encode = Callable[[Sequence[str]], FloatMatrix]

TESTS = ("query_drift", "abstention", "retrieval_score")
_SHOWN_QUERIES = 3
_MOST_WINDOWS = 50


@dataclass(frozen=True)
class Baseline:
    """The first queries of a release: how often it abstained, and the scores of its best passages.

    It grows to `reference_queries` by windows that no test found anything in.
    """

    count: int = 0
    abstained: int = 0
    scores: tuple[float, ...] = ()

    def with_window(self, rows: Sequence[Row]) -> Baseline:
        """With one more window."""
        return Baseline(
            self.count + len(rows),
            self.abstained + _abstained(rows),
            (*self.scores, *_scores(rows)),
        )


@dataclass(frozen=True)
class ServedState:
    """How far the log of a release was read, and what its windows said."""

    release: str | None = None
    last_query: str | None = None
    baseline: Baseline = Baseline()
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def episode(self, name: str) -> Episode:
        return self.episodes.get(name, Episode())

    def answered(self) -> ServedState:
        """After a retraining was started: no alarm that is on asks for another one."""
        return replace(self, episodes={name: e.answered() for name, e in self.episodes.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads back."""
        episodes = {name: episode.to_json() for name, episode in self.episodes.items()}
        return {**asdict(self), "episodes": episodes}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ServedState:
        """The state that `to_json` wrote."""
        baseline = record["baseline"]
        episodes = record["episodes"].items()
        return cls(
            release=record["release"],
            last_query=record["last_query"],
            baseline=Baseline(**{**baseline, "scores": tuple(baseline["scores"])}),
            episodes={name: Episode.from_json(episode) for name, episode in episodes},
            evidence=record["evidence"],
        )


def new_windows(state: ServedState, rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Complete windows after the last query that was looked at, oldest first; the newest few."""
    places = [place for place, row in enumerate(rows) if row["id"] == state.last_query]
    fresh = rows[places[-1] + 1 :] if places else rows
    starts = range(0, len(fresh) - size + 1, size)
    return [fresh[start : start + size] for start in starts][-_MOST_WINDOWS:]


def observe(
    state: ServedState,
    windows: Sequence[Sequence[Row]],
    params: DriftParams,
    reference: QueryReference | None,
    encode: Encode,
) -> ServedState:
    """The state after more windows; without a `reference` embeddings are not compared."""
    rule = Rule(params.hits, params.windows)
    for rows in windows:
        found: dict[str, tuple[bool, dict[str, Any]]] = {}
        if reference is not None:
            found["query_drift"] = _queries(rows, reference, encode)
        if state.baseline.count >= 2 * params.window_queries:
            found["abstention"] = _abstention(rows, state.baseline, params.alpha)
        if len(state.baseline.scores) >= 2 * params.window_queries and _scores(rows):
            found["retrieval_score"] = _retrieval(rows, state.baseline, params.alpha)
        episodes = {
            name: state.episode(name).after([hit], rule) for name, (hit, _) in found.items()
        }
        is_calm = not any(hit for hit, _ in found.values())
        grows = is_calm and state.baseline.count < params.reference_queries
        state = replace(
            state,
            last_query=str(rows[-1]["id"]),
            baseline=state.baseline.with_window(rows) if grows else state.baseline,
            episodes={**state.episodes, **episodes},
            evidence={**state.evidence, **{name: facts for name, (_, facts) in found.items()}},
        )
    return state


def windowed_triggers(state: ServedState, params: DriftParams, why_off: str) -> list[Trigger]:
    """What each test says; `why_off` for those that had no window yet."""
    triggers = []
    for name in TESTS:
        facts = state.evidence.get(name)
        if facts is None:
            triggers.append(Trigger(name, "off", why_off))
            continue
        episode = state.episode(name)
        evidence = {**facts, "hits": sum(episode.recent), "windows": len(episode.recent)}
        summary = f"{facts['said']}; {evidence['hits']} of the last {len(episode.recent)} windows"
        if episode.is_on and episode.is_answered:
            summary += "; a run was started for it"
        elif not episode.is_on:
            summary += f", {params.hits} of {params.windows} call for a run"
        triggers.append(Trigger(name, "fires" if episode.calls else "quiet", summary, evidence))
    return triggers


def _queries(
    rows: Sequence[Row], reference: QueryReference, encode: Encode
) -> tuple[bool, dict[str, Any]]:
    texts = [str(row["question"]) for row in rows]
    vectors = encode(texts)
    value = squared_mmd(reference, vectors)
    hit = value > reference.threshold
    return hit, {
        "said": f"MMD² from the train questions {value:.4f}, threshold {reference.threshold:.4f}",
        "squared_mmd": value,
        "threshold": reference.threshold,
        "strangest": [texts[place] for place in strangest(reference, vectors, _SHOWN_QUERIES)],
    }


def _abstention(
    rows: Sequence[Row], baseline: Baseline, alpha: float
) -> tuple[bool, dict[str, Any]]:
    abstained = _abstained(rows)
    p_value = rise_p_value((baseline.abstained, baseline.count), (abstained, len(rows)))
    now, before = 100 * abstained / len(rows), 100 * baseline.abstained / baseline.count
    return p_value < alpha, {
        "said": f"{now:.0f} % declined, {before:.0f} % at first (p = {p_value:.2g})",
        "abstained_percent": round(now, 2),
        "abstained_percent_before": round(before, 2),
        "p_value": p_value,
        "alpha": alpha,
    }


def _retrieval(
    rows: Sequence[Row], baseline: Baseline, alpha: float
) -> tuple[bool, dict[str, Any]]:
    scores = _scores(rows)
    p_value = fall_p_value(baseline.scores, scores)
    now, before = _median(scores), _median(baseline.scores)
    return p_value < alpha, {
        "said": f"median score of the best passage {now:.3f}, {before:.3f} at first "
        f"(p = {p_value:.2g})",
        "median_score": now,
        "median_score_before": before,
        "p_value": p_value,
        "alpha": alpha,
    }


def _abstained(rows: Sequence[Row]) -> int:
    return sum(bool(row["abstained"]) for row in rows)


def _scores(rows: Sequence[Row]) -> list[float]:
    return [round(float(row["top_score"]), 5) for row in rows if row["top_score"] is not None]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
