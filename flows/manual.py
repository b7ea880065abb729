"""What the command line starts by hand under the project's lock: a run, and data taken in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from flows import lock, server, stores, terminal
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params, parse_params
from rag.weights import check_weights

if TYPE_CHECKING:
    from prefect import Flow

    from rag.corpus import CorpusSummary

_COMMANDS = {"retrain": "run", "refresh": "refresh"}


def retrain_now(
    artifacts: Artifacts,
    params: Params,
    changes: Sequence[str],
    *,
    force: bool,
    wait: bool = False,
) -> Verdict:
    """Runs the flow `retrain` in this process; its errors are raised here.

    `changes` are written to params.yaml first: DVC reads it there, and dvc.lock must agree with it.
    BusyError at once where another run works, or with `wait` after `schedule.wait_minutes`.
    """
    with _turn(artifacts, params, "ragloop run", wait=wait):
        check_models(artifacts, params)
        stores.initialise(artifacts, params)
        if changes:
            write_changes(artifacts, changes)
        with server.prefect_api(artifacts):
            from flows.retrain import retrain

            return _reached(retrain, force=force)


def refresh_now(artifacts: Artifacts, params: Params, *, force: bool, wait: bool) -> Verdict:
    """Runs the flow `refresh` in this process; its errors are raised here."""
    with _turn(artifacts, params, "ragloop refresh", wait=wait):
        stores.initialise(artifacts, params)
        with server.prefect_api(artifacts):
            from flows.refresh import refresh

            return _reached(refresh, force=force)


@contextmanager
def _turn(artifacts: Artifacts, params: Params, what: str, *, wait: bool) -> Iterator[None]:
    seconds = 60.0 * params.schedule.wait_minutes if wait else 0.0
    with lock.hold(artifacts.lock, what, wait_seconds=seconds, on_wait=terminal.say):
        yield


def _reached(flow: Flow[..., Any], *, force: bool) -> Verdict:
    try:
        state: Any = flow(force=force, return_state=True)
    except KeyboardInterrupt:
        again = f"`ragloop {_COMMANDS[flow.name]}` goes on from here"
        raise RagError(f"stopped; what is live stays live, and {again}") from None
    reached = state.result()
    if not isinstance(reached, Verdict):
        raise RagError(f"the run ended as {state.name}: {state.message}")
    return reached


def check_models(artifacts: Artifacts, params: Params) -> None:
    """Raises ModelError for a model that cannot be had, before anything is changed or trained."""
    for model, revision in params.models():
        check_weights(model, revision, artifacts.weights_cache)


def import_data(
    artifacts: Artifacts, params: Params, source: str, *, replace: bool
) -> CorpusSummary:
    """Takes documents and questions into `data/raw/`; the next run records them."""
    from rag.corpus import import_corpus

    with lock.hold(artifacts.lock, "ragloop data import"):
        return import_corpus(source, artifacts.raw, replace=replace)


def write_changes(artifacts: Artifacts, changes: Sequence[str]) -> None:
    """Writes `section.key=value` into params.yaml and keeps its comments; all of them or none."""
    written = changed_text(artifacts, changes)
    temporary = artifacts.params.with_suffix(".yaml.tmp")
    temporary.write_text(written, encoding="utf-8")
    temporary.replace(artifacts.params)
    terminal.say(f"  [dim]written to {artifacts.params.name}:[/] {', '.join(changes)}")


def changed_text(artifacts: Artifacts, changes: Sequence[str]) -> str:
    """params.yaml as `write_changes` would leave it; ParamsError where it would be invalid."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(type(None), _write_null)
    tree = yaml.load(artifacts.params.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        *parents, leaf = key.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = yaml.load(value)
    text = StringIO()
    yaml.dump(tree, text)
    written = text.getvalue()
    parse_params(YAML(typ="safe").load(written), source=artifacts.params.name)
    return written


def _write_null(representer: Any, _: None) -> Any:
    """`key: null`, as the file has it, where ruamel writes nothing."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
