"""What the new model gained and what the new index, where a run changed both.

Four arms answer the same questions: old and new model, each over the old and the new passages.
With s(model, index) for a metric, each effect is the mean of its two differences and the
interaction what is left (a 2 x 2 factorial design):

    model       = ((s(new, new) - s(old, new)) + (s(new, old) - s(old, old))) / 2
    index       = ((s(new, new) - s(new, old)) + (s(old, new) - s(old, old))) / 2
    interaction =   s(new, new) - s(old, new)  -  s(new, old) + s(old, old)

so that model + index is the whole difference of challenger and champion, which a refreshed corpus
alone can make: it must not be credited to training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rag.release.quantities import Arm, Sampling, contrast, measure

#: The mixed arms by the name of their system in a prediction table.
OLD_MODEL, OLD_INDEX = "old_model_new_index", "new_model_old_index"
#: Weights of (new, new), (old model, new index), (new model, old index), (old, old).
_EFFECTS = {
    "total": (1.0, 0.0, 0.0, -1.0),
    "model": (0.5, -0.5, 0.5, -0.5),
    "index": (0.5, 0.5, -0.5, -0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}


def attribution(
    arms: Mapping[str, Arm], metrics: Sequence[str], sampling: Sampling
) -> dict[str, Any]:
    """The effects of each metric in points; `arms` are all four by name.

    `{metric: {"total" | "model" | "index" | "interaction": {"value", "low", "high"}}}`.
    """
    four = [arms[name] for name in ("challenger", OLD_MODEL, OLD_INDEX, "champion")]
    quantities = {
        (metric, effect): contrast(
            list(zip(weights, (arm.level(metric) for arm in four), strict=True))
        )
        for metric in metrics
        for effect, weights in _EFFECTS.items()
    }
    found = measure(quantities, sampling)
    return {
        metric: {effect: asdict(found[metric, effect]) for effect in _EFFECTS} for metric in metrics
    }
