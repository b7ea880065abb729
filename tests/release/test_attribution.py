"""What the model gained and what the index, against arithmetic by hand."""

from __future__ import annotations

import pytest

from rag.release.attribution import OLD_INDEX, OLD_MODEL
from rag.release.gate import Context, decide
from tests.release.test_gate import PARAMS, predictions

LEVELS = {"new": 0.9, OLD_MODEL: 0.7, OLD_INDEX: 0.6, "old": 0.5}
TABLES = {name: predictions([level] * 40, system=name) for name, level in LEVELS.items()}


def judged(context: Context) -> dict[str, dict[str, dict[str, float]]] | None:
    return decide(TABLES["new"], TABLES["old"], {}, PARAMS, seed=1, context=context).attribution


def test_a_gain_is_divided_between_model_and_index() -> None:
    """40 points: the model ((90-70) + (60-50)) / 2, the index ((90-60) + (70-50)) / 2."""
    mixed = {name: TABLES[name] for name in (OLD_MODEL, OLD_INDEX)}
    found = judged(Context(mixed=mixed))
    assert found is not None
    effects = {name: effect["value"] for name, effect in found["f1"].items()}
    assert effects == {"total": 40.0, "model": 15.0, "index": 25.0, "interaction": 10.0}
    assert found["f1"]["model"]["low"] == pytest.approx(15.0)
    assert set(found) == {"f1", "exact_match"}


def test_without_the_mixed_arms_the_record_says_why() -> None:
    assert judged(Context(unmixed="another passage encoder")) == {
        "unknown": "another passage encoder"
    }
    assert judged(Context()) is None


def test_a_mixed_arm_must_answer_the_same_questions() -> None:
    mixed = {OLD_MODEL: TABLES[OLD_MODEL].slice(1), OLD_INDEX: TABLES[OLD_INDEX]}
    found = decide(TABLES["new"], TABLES["old"], {}, PARAMS, seed=1, context=Context(mixed=mixed))
    assert found.outcome == "ERROR"
    assert OLD_MODEL in found.reasons[0]
