"""The index by hand: `ragloop index status`, `verify`, `rebuild`, `publish`, `export`, `import`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import lock, terminal
from rag.artifacts import Artifacts
from rag.errors import IndexMismatchError
from rag.params import IndexParams, Params, load_params

if TYPE_CHECKING:
    from rag.retrieval.index import VectorIndex


@dataclass(frozen=True)
class _Chosen:
    """The vectors and the way to search them that a command is about."""

    artifacts: Artifacts
    index: IndexParams


def status(artifacts: Artifacts, params: Params, *, champion: bool) -> dict[str, Any]:
    """What there is: `state` is complete, incomplete, missing or foreign."""
    from rag.release import ledger
    from rag.retrieval.embeddings import read_facts
    from rag.retrieval.index import build_plan

    chosen = _choose(artifacts, params, champion=champion)
    facts = read_facts(chosen.artifacts.embeddings)
    plan = build_plan(chosen.index, facts)
    with _connected(chosen, plan.name) as index:
        seal = index.sealed()
        state = "complete" if seal is not None and seal.is_of(plan) else "foreign"
        half = None if seal is not None else index.half_built()
        if seal is None:
            state = "missing" if half is None else "incomplete"
        rows = ledger.read(artifacts.ledger) if artifacts.ledger.exists() else []
        return {
            "kind": chosen.index.kind,
            "location": index.location,
            "name": plan.name,
            "state": state,
            "points": half if seal is None else index.count(),
            "expected": facts.count,
            "dimension": facts.dimension,
            **dict(plan.how),
            "recall_at_10": seal.recall if seal is not None else None,
            "bytes": index.size_bytes(),
            "releases": [
                row["version"]
                for row in rows
                if row.get("version") and row.get("tags", {}).get("fingerprint") == plan.name
            ],
        }


def verify(artifacts: Artifacts, params: Params, *, champion: bool) -> dict[str, Any]:
    """Every id, the canaries, a sample of vectors and what the search finds, with `problems`."""
    from rag.retrieval.embeddings import read_embeddings
    from rag.retrieval.index import REBUILD, index_name
    from rag.retrieval.index_check import verify_index

    chosen = _choose(artifacts, params, champion=champion)
    embeddings = read_embeddings(chosen.artifacts.embeddings)
    name = index_name(chosen.index, embeddings.facts)
    with _connected(chosen, name) as index:
        if index.sealed() is None:
            raise IndexMismatchError(
                f"index {index.location} is missing or incomplete; run: {REBUILD}"
            )
        report = verify_index(index, embeddings)
        return {"name": name, "location": index.location, **asdict(report)}


def publish(
    artifacts: Artifacts, params: Params, *, champion: bool, rebuild: bool = False
) -> dict[str, Any]:
    """Builds the index where params say: unless it is there, or with `rebuild` in any case.

    Where a server is searched, stages and baselines still open an index in their own process: a
    rebuild makes that one anew too if there is one.
    """
    with lock.hold(artifacts.lock, f"ragloop index {'rebuild' if rebuild else 'publish'}"):
        chosen = _choose(artifacts, params, champion=champion)
        name = _publish(chosen, rebuild=rebuild)
        local = chosen.index.in_process()
        if rebuild and local != chosen.index:
            folder = chosen.artifacts.index_folder / name
            if folder.is_dir():
                _publish(_Chosen(chosen.artifacts, local), rebuild=True)
    return {"name": name, "kind": chosen.index.kind, "points": _facts(chosen).count}


def export_file(
    artifacts: Artifacts, params: Params, file: Path, *, champion: bool
) -> dict[str, Any]:
    """Writes the sealed index to one file."""
    from rag.retrieval.index_snapshot import export_index

    chosen = _choose(artifacts, params, champion=champion)
    size = export_index(chosen.index, chosen.artifacts.index_folder, _facts(chosen), file)
    return {"file": str(file), "bytes": size}


def import_file(
    artifacts: Artifacts, params: Params, file: Path, *, champion: bool
) -> dict[str, Any]:
    """Puts the index that a file holds in its place."""
    from rag.retrieval.index_snapshot import import_index

    with lock.hold(artifacts.lock, "ragloop index import"):
        chosen = _choose(artifacts, params, champion=champion)
        name = import_index(chosen.index, chosen.artifacts.index_folder, _facts(chosen), file)
    return {"name": name, "kind": chosen.index.kind, "points": _facts(chosen).count}


def print_facts(found: Mapping[str, Any]) -> None:
    """One line a fact; problems last, each on a line of its own."""
    from rich.markup import escape

    console = terminal.result_console()
    for key, value in found.items():
        if key != "problems":
            console.print(f"{key.replace('_', ' '):<16} {escape(_spoken(key, value))}")
    for problem in found.get("problems", ()):
        console.print(f"[red]wrong[/]            {escape(problem)}", soft_wrap=True)


def print_advice() -> None:
    """What to do about an index that is wrong."""
    from rag.retrieval.index import REBUILD

    terminal.say(f"the index is not that of the embeddings; run: {REBUILD}")


def _spoken(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if key == "recall_at_10":
        return f"{100 * value:.1f} % of the nearest passages are found"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return f"{value:,}" if type(value) is int else str(value)


def _publish(chosen: _Chosen, *, rebuild: bool) -> str:
    from rag.retrieval.embeddings import read_embeddings
    from rag.retrieval.index import publish_index

    embeddings = read_embeddings(chosen.artifacts.embeddings)
    total = embeddings.facts.count
    lines: list[str] = []
    with terminal.step(f"index ({chosen.index.kind})") as step:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            step.advance_to("points", done, total)

        name = publish_index(
            chosen.index,
            chosen.artifacts.index_folder,
            embeddings,
            chosen.artifacts.chunks,
            progress=advance,
            say=lines.append,
            rebuild=rebuild,
        )
        step.finish(f"{name}: {total:,} points", same=not done)
    for line in lines:
        terminal.say(f"  [dim]{line}[/]")
    return name


def _choose(artifacts: Artifacts, params: Params, *, champion: bool) -> _Chosen:
    """The last run's embeddings, or those that the champion answers from."""
    if not champion:
        return _Chosen(artifacts, params.index)
    from flows import answers
    from rag.reading.answerer import served_index

    _, released = answers.champion_bundle(artifacts, params)
    return _Chosen(released, served_index(released, load_params(released.params)))


def _facts(chosen: _Chosen) -> Any:
    from rag.retrieval.embeddings import read_facts

    return read_facts(chosen.artifacts.embeddings)


@contextmanager
def _connected(chosen: _Chosen, name: str) -> Iterator[VectorIndex]:
    from rag.retrieval.index import connect_index

    index = connect_index(chosen.index, chosen.artifacts.index_folder, name)
    try:
        yield index
    finally:
        index.close()
