"""flows/tune_study.py: a study that was killed anywhere ends as one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from flows import tune_study
from rag.errors import RagError
from rag.params import Params, parse_params
from rag.search_space import Dimension, search_space

KEYS = ("reader.lora.rank", "reader.training.learning_rate")
TRIALS = 8
SEED = 2


def params(**tune: Any) -> Params:
    return parse_params({"seed": SEED, "tune": {"startup_trials": 4, "pruner_trials": 1, **tune}})


def opened(**tune: Any) -> optuna.Study:
    """A study in memory: its store is Optuna's SQL all the same."""
    given = params(**{"storage": "sqlite:///:memory:", **tune})
    return tune_study.open_study("study", given, Path("unused") / "optuna.db")


def reopened(study: optuna.Study) -> optuna.Study:
    """The study as another process finds it: nothing but the store is remembered."""
    sampler = tune_study.PositionSampler(SEED, 4, parallel=False)
    return optuna.load_study(
        study_name="study", storage=study._storage, sampler=sampler, pruner=study.pruner
    )


def space() -> dict[str, Any]:
    return tune_study.distributions(search_space(params()))


def curve(trial: optuna.Trial) -> list[float]:
    """Two dev evaluations, best at rank 8 and 0.0003: what a training would have given."""
    rate = 1.0 / (1.0 + abs(trial.params[KEYS[1]] - 3e-4) * 1e4)
    return [40.0 * rate, 60.0 * rate + trial.params[KEYS[0]] / 8.0]


def run_one(study: optuna.Study) -> None:
    trial = tune_study.ask(study, space())
    values = curve(trial)
    for step, value in enumerate(values, start=1):
        trial.report(value, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, values[-1])


def table(study: optuna.Study) -> list[tuple[int, str, float | None, dict[str, Any]]]:
    rows = [
        (tune_study.position(study, item), item.state.name, item.value, item.params)
        for item in tune_study.finished(study)
    ]
    return sorted(rows, key=lambda row: row[0])


@pytest.fixture(scope="module")
def undisturbed() -> optuna.Study:
    study = opened()
    for _ in range(TRIALS):
        run_one(study)
    return study


def test_the_undisturbed_study_has_what_the_test_is_about(undisturbed: optuna.Study) -> None:
    """More trials than are drawn at random, and some that were pruned."""
    rows = table(undisturbed)
    assert [row[0] for row in rows] == list(range(TRIALS))
    assert {row[1] for row in rows} == {"COMPLETE", "PRUNED"}
    assert len({row[3][KEYS[1]] for row in rows}) == TRIALS


@pytest.mark.parametrize("killed", [(0,), (2, 2, 6), (3, 4, 5, 7)])
def test_killed_trials_change_nothing(undisturbed: optuna.Study, killed: tuple[int, ...]) -> None:
    """Each is left running after its first evaluation, and the store is opened anew."""
    study, left = opened(), list(killed)
    while len(tune_study.finished(study)) < TRIALS:
        if left and left[0] == len(tune_study.finished(study)):
            left.pop(0)
            trial = tune_study.ask(study, space())
            trial.report(curve(trial)[0], 1)
            study = reopened(study)
            assert tune_study.recover(study, KEYS, shared=False) == 1
        else:
            run_one(study)
    assert not left
    assert table(study) == table(undisturbed)
    best, expected = tune_study.best(study), tune_study.best(undisturbed)
    assert best is not None
    assert expected is not None
    assert (best.value, best.params) == (expected.value, expected.params)
    states = [item.state for item in study.trials]
    assert states.count(TrialState.FAIL) == len(killed)


def test_a_trial_killed_before_it_had_its_params_is_drawn_again(undisturbed: optuna.Study) -> None:
    study = opened()
    for number in range(TRIALS):
        if number == 5:
            some = dict(list(space().items())[:1])
            study.ask(some)  # one param drawn, no position and no owner written
            study = reopened(study)
            assert tune_study.recover(study, KEYS, shared=False) == 1
            # Killed again right after it was asked anew: it is not asked twice.
            assert tune_study.recover(study, KEYS, shared=False) == 0
        run_one(study)
    assert table(study) == table(undisturbed)


def test_a_trial_that_went_wrong_by_itself_is_not_asked_again() -> None:
    study = opened()
    trial = tune_study.ask(study, space())
    tune_study.fail(study, trial, RagError("stage train_reader failed: no memory"))
    assert tune_study.recover(study, KEYS, shared=False) == 0
    run_one(study)
    first, second = tune_study.finished(study)
    assert tune_study.error_of(first) == "stage train_reader failed: no memory"
    assert tune_study.error_of(second) == ""
    assert tune_study.position(study, second) == 1
    assert first.params != second.params


def test_trials_of_another_machine_are_left_alone_in_a_shared_store() -> None:
    study = opened()
    trial = tune_study.ask(study, space())
    trial.set_user_attr("owner", {"host": "another", "pid": 1})
    assert tune_study.recover(study, KEYS, shared=True) == 0
    assert tune_study.at_work(study) == 1
    assert tune_study.recover(study, KEYS, shared=False) == 1


@pytest.mark.integration  # the first import of what it is computed with takes seconds
def test_importance_waits_for_enough_trials() -> None:
    """Values lie 2 points apart by rank and up to 60 by learning rate."""
    study = opened()
    for number in range(tune_study.ENOUGH_FOR_IMPORTANCE):
        assert tune_study.importance(study) is None
        drawn = {KEYS[0]: 8 + 8 * (number % 2), KEYS[1]: 2e-4 + 1e-5 * number**2}
        value = 1000.0 * 60 * drawn[KEYS[1]] + drawn[KEYS[0]] / 4
        study.add_trial(optuna.trial.create_trial(params=drawn, distributions=space(), value=value))
    shares = tune_study.importance(study)
    assert shares is not None
    assert shares[KEYS[1]] > shares[KEYS[0]]
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


def test_a_store_that_does_not_answer_is_one_clear_line() -> None:
    with pytest.raises(RagError) as caught:
        opened(storage="postgresql://me:secret@127.0.0.1:1/optuna")
    text = str(caught.value)
    assert "check tune.storage in params.yaml" in text
    assert "secret" not in text
    assert "\n" not in text


def test_choices_of_any_kind_are_sampled_by_their_label() -> None:
    found = tune_study.distributions(
        [
            Dimension("a", "choice", choices=(None, {"x": 1})),
            Dimension("b", "int", low=2, high=8, step=2),
            Dimension("c", "float", low=0.1, high=0.9, log=True),
        ]
    )
    assert found["a"] == optuna.distributions.CategoricalDistribution((None, '{"x":1}'))
    assert found["b"] == optuna.distributions.IntDistribution(2, 8, step=2)
    assert found["c"] == optuna.distributions.FloatDistribution(0.1, 0.9, log=True)
