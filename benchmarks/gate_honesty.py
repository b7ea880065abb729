"""How often is the gate right? Simulated releases of known quality, thousands of them.

    PYTHONPATH=. python benchmarks/gate_honesty.py [--pairs 1000] [--runs 40]

Four questions: how often equal releases are promoted; whether losers ever are; whether winners are
as often as predicted; and what a long series of retrainings on one test set makes of the champion:
how much better it looks there than it is.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from rag.evaluation.power import power_of, spread_of
from rag.params import GateParams
from rag.release.gate import Outcome, decide
from tests.simulated_releases import TestSet, quality_of_gain, true_gain

SETS = (TestSet(12, 12), TestSet(40, 5), TestSet(60, 10))
GUARDS = {"exact_match": 5.0, "recall@5": 2.0}
#: Standard deviation of the change of quality from one retraining to the next, about 2 points.
_STEP = 0.08


def params(min_effect: float, resamples: int) -> GateParams:
    return GateParams(
        min_effect=min_effect,
        floors={"f1": 10.0},
        guards=GUARDS,
        resamples=resamples,
        cost=None,
    )


def rates(test_set: TestSet, gain: float, settings: GateParams, pairs: int) -> Counter[str]:
    quality = (quality_of_gain(gain) if gain else 0.0, 0.0)
    return Counter(
        decide(*test_set.tables(quality, seed), {}, settings, seed=seed).outcome.value
        for seed in range(pairs)
    )


def predicted(test_set: TestSet, gain: float, min_effect: float) -> float:
    large = TestSet(4000, test_set.questions)
    first, second = large.scores((quality_of_gain(gain), 0.0), seed=1)
    owners = [f"d{place // large.questions}" for place in range(large.size)]
    spread = spread_of(100.0 * (first - second), owners)
    return power_of(gain - min_effect, spread, test_set.size)


def print_rates(pairs: int, resamples: int) -> None:
    print(f"{pairs} pairs each, {resamples} resamples, min_effect 1, percent of outcomes")
    print(f"{'test set':>14} {'gain':>6} {'promote':>8} {'predicted':>9} {'reject':>7} {'open':>6}")
    settings = params(1.0, resamples)
    for test_set in SETS:
        name = f"{test_set.documents} x {test_set.questions}"
        for gain in (-10.0, -5.0, -3.0, 0.0, 1.0, 4.0, 8.0):
            found = rates(test_set, gain, settings, pairs)
            shares = [
                100.0 * found[outcome] / pairs
                for outcome in (Outcome.PROMOTE, Outcome.REJECT, Outcome.INCONCLUSIVE)
            ]
            power = f"{100 * predicted(test_set, gain, 1.0):9.1f}" if gain > 1.0 else " " * 9
            print(
                f"{name:>14} {gain:+6.1f} {shares[0]:8.1f} {power} "
                f"{shares[1]:7.1f} {shares[2]:6.1f}"
            )


def print_agreement(pairs: int) -> None:
    """How many decisions 1,000 resamples change against 10,000."""
    test_set, changed = SETS[1], 0
    quality = (quality_of_gain(4.0), 0.0)
    for seed in range(pairs):
        tables = test_set.tables(quality, seed)
        first, second = (
            decide(*tables, {}, params(1.0, resamples), seed=seed).outcome
            for resamples in (1000, 10_000)
        )
        changed += first is not second
    print(f"\n1,000 resamples decide otherwise than 10,000 in {changed} of {pairs} pairs")


def series(test_set: TestSet, runs: int, retrainings: int) -> None:
    """Retrainings whose quality wanders by chance, judged on one test set that never changes."""
    settings = params(0.0, 1000)
    print(f"\n{runs} series of {retrainings} retrainings on one test set, min_effect 0")
    looks, truths, promotions, worst = [], [], [], []
    for run in range(runs):
        generator = np.random.default_rng(run)
        # The shared part of a question is the same in all retrainings: the seed of the test set.
        champion = 0.0
        shown = _one(test_set, run, champion, 0)
        start, lowest, promoted = shown.mean(), 0.0, 0
        for attempt in range(1, retrainings + 1):
            quality = champion + _STEP * float(generator.normal())
            scores = _one(test_set, run, quality, attempt)
            tables = test_set.table("tuned", scores), test_set.table("champion", shown)
            if decide(*tables, {}, settings, seed=attempt).outcome is Outcome.PROMOTE:
                champion, shown, promoted = quality, scores, promoted + 1
                lowest = min(lowest, true_gain((champion, 0.0)))
        looks.append(100.0 * (shown.mean() - start))
        truths.append(true_gain((champion, 0.0)))
        promotions.append(promoted)
        worst.append(lowest)
    print(
        f"promotions a series {np.mean(promotions):.1f}; gain on the test set "
        f"{np.mean(looks):+.1f}, true gain {np.mean(truths):+.1f} points; "
        f"series that ever fell below their first champion: {sum(low < 0 for low in worst)}, "
        f"at worst by {-min(worst):.1f} points"
    )


def _one(test_set: TestSet, run: int, quality: float, attempt: int) -> np.ndarray:
    """F1 of one system: what is easy comes from the run, the system's own luck from the attempt."""
    return test_set.scores_of(quality, shared_seed=run, own_seed=1000 * run + attempt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--retrainings", type=int, default=100)
    given = parser.parse_args()
    started = time.monotonic()
    print_rates(given.pairs, given.resamples)
    print_agreement(min(given.pairs, 300))
    series(SETS[1], given.runs, given.retrainings)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
