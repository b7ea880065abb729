"""The Optuna study of a search: it goes on after a kill as if there had been none.

What the sampler draws depends on its random state and on the trials before, so each trial has a
sampler of its own, seeded by `seed` and the trial's position. The position counts what the search
asked for, not the rows in the store: a trial that was killed is failed there and asked again, with
its params and its position, under a new number. With one worker the study is then the same as
without the kill.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from rag.errors import RagError
from rag.params import Params
from rag.release.redaction import without_credentials
from rag.search_space import Dimension

_POSITION, _RETRY_OF, _OWNER, _ERROR = "position", "retry_of", "owner", "error"
_SQLITE_TIMEOUT_SECONDS = 60
#: A trial without an owner on a shared server is dead after this long: its process set none.
_OWNERLESS = timedelta(minutes=5)
#: Finished trials from which the importance of parameters is told.
ENOUGH_FOR_IMPORTANCE = 10


class PositionSampler(BaseSampler):
    """TPE, begun anew for each trial from the seed and the trial's position."""

    def __init__(self, seed: int, startup_trials: int, *, parallel: bool) -> None:
        self._seed, self._startup_trials, self._parallel = seed, startup_trials, parallel
        self._samplers: dict[int, TPESampler] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        state = np.random.SeedSequence([self._seed, position(study, trial)]).generate_state(1)
        self._samplers[trial.number] = TPESampler(
            seed=int(state[0]),
            n_startup_trials=self._startup_trials,
            constant_liar=self._parallel,
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._samplers[trial.number].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._samplers[trial.number].sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        sampler = self._samplers[trial.number]
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._samplers.pop(trial.number, None)


def open_study(name: str, params: Params, database: Path) -> optuna.Study:
    """The study of this name, made when there is none; RagError where its store does not answer."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = params.tune
    url = settings.storage or f"sqlite:///{database.resolve()}"
    database.parent.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {}
    if url.startswith("sqlite"):
        arguments = {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}}
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if settings.pruner == "median":
        # Step 0 is the untrained state, which says nothing about a trial.
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=settings.pruner_trials, n_warmup_steps=1
        )
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(url, engine_kwargs=arguments),
            study_name=name,
            sampler=PositionSampler(
                params.seed, settings.startup_trials, parallel=settings.workers > 1
            ),
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # noqa: BLE001  a driver's own, which differs from store to store
        where = without_credentials(url)
        reason = (str(without_credentials(str(error))).splitlines() or [""])[0]
        raise RagError(
            f"the store of studies at {where} does not answer: {type(error).__name__}: {reason}; "
            "check tune.storage in params.yaml"
        ) from None


def distributions(dimensions: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    return {item.key: _distribution(item) for item in dimensions}


def position(study: optuna.Study, trial: FrozenTrial) -> int:
    """Which trial of the search this is, from 0; a trial that is asked again keeps its place."""
    if _POSITION in trial.user_attrs:
        return int(trial.user_attrs[_POSITION])
    trials = study.get_trials(deepcopy=False)
    return sum(item.number < trial.number and _RETRY_OF not in item.user_attrs for item in trials)


def ask(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> optuna.Trial:
    """The next trial, all its params drawn, marked as ours."""
    trial = study.ask(dict(space))
    found = study.trials[trial.number]
    trial.set_user_attr(_POSITION, position(study, found))
    trial.set_user_attr(_OWNER, {"host": platform.node(), "pid": os.getpid()})
    return trial


def fail(study: optuna.Study, trial: optuna.Trial, error: RagError) -> None:
    """Ends a trial that went wrong by itself: it is not tried again."""
    trial.set_user_attr(_ERROR, str(error))
    study.tell(trial, state=TrialState.FAIL)


def recover(study: optuna.Study, keys: Sequence[str], *, shared: bool) -> int:
    """Fails the trials that a dead process left running, and has each asked again; how many.

    The caller holds the lock of the search, so none of this machine's trials is at work. Where the
    store is shared, those of other machines are left alone.
    """
    trials = study.get_trials(deepcopy=False)
    retried = {item.user_attrs.get(_RETRY_OF) for item in trials}
    dead = [item for item in trials if item.state is TrialState.RUNNING and _is_ours(item, shared)]
    for item in dead:
        if item.number not in retried:
            fixed = item.system_attrs.get("fixed_params") or item.params
            study.enqueue_trial(
                fixed if set(fixed) == set(keys) else {},
                user_attrs={_POSITION: position(study, item), _RETRY_OF: item.number},
            )
        study.tell(item.number, state=TrialState.FAIL)
    return len(dead)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have come to an end of their own: completed, pruned or gone wrong."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        item
        for item in study.get_trials(deepcopy=False)
        if item.state in ended or (item.state is TrialState.FAIL and _ERROR in item.user_attrs)
    ]


def at_work(study: optuna.Study) -> int:
    """How many trials are running, on any machine."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def error_of(trial: FrozenTrial) -> str:
    """What went wrong in a trial; empty where nothing did."""
    return str(trial.user_attrs.get(_ERROR, ""))


def best(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial of the highest value, of equal ones the first; None without any."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(done, key=lambda item: (-_value(item), position(study, item)), default=None)


def importance(study: optuna.Study) -> dict[str, float] | None:
    """The share of each parameter in how values differ, highest first; None where too few tell."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < ENOUGH_FOR_IMPORTANCE or len({_value(item) for item in done}) < 2:
        return None
    shares = optuna.importance.get_param_importances(study)
    return {name: round(float(share), 4) for name, share in shares.items()}


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _is_ours(trial: FrozenTrial, shared: bool) -> bool:
    if not shared:
        return True
    owner = trial.user_attrs.get(_OWNER)
    if owner:
        return bool(owner["host"] == platform.node())
    return trial.datetime_start is None or datetime.now() - trial.datetime_start > _OWNERLESS


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.labels())
    if dimension.kind == "int":
        return IntDistribution(
            int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1)
        )
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)
