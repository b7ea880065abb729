"""Questions to the champion and the list of releases: `ask`, `search` and `releases`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows import stores, terminal
from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params, load_params

if TYPE_CHECKING:
    from rag.reading.answerer import QuestionAnswerer


def ask(artifacts: Artifacts, params: Params, question: str) -> dict[str, Any]:
    """`{"question", "release", "answer", "score", "abstained", "evidence": [...]}`."""
    with _champion(artifacts, params) as (version, answerer):
        answer = answerer.answer([question])[0]
    found = asdict(answer)
    return {"question": question, "release": version, "answer": found.pop("text"), **found}


def search(artifacts: Artifacts, params: Params, text: str, limit: int) -> dict[str, Any]:
    """`{"query", "release", "passages": [...]}`, best first."""
    with _champion(artifacts, params) as (version, answerer):
        passages = answerer.search([text], limit)[0]
    rows = [asdict(passage) for passage in passages]
    return {"query": text, "release": version, "passages": rows}


def list_releases(artifacts: Artifacts, params: Params) -> list[dict[str, Any]]:
    """Registered releases, newest first."""
    from rag import tracking
    from rag.release import registry

    stores.initialise(artifacts, params)
    tracking.configure(artifacts, params)
    return registry.releases(params)


def print_answer(found: Mapping[str, Any]) -> None:
    """The answer, then what it rests on."""
    from rich.markup import escape

    console = terminal.result_console()
    if found["abstained"]:
        console.print("[yellow]No answer[/]: the documents do not say it clearly enough. Closest:")
    else:
        console.print(f"[bold]{escape(found['answer'])}[/]", soft_wrap=True)
    print_passages(found["evidence"])


def print_passages(passages: Sequence[Mapping[str, Any]]) -> None:
    """One passage a paragraph, with its document."""
    from rich.markup import escape

    console = terminal.result_console()
    for passage in passages:
        place = f"{passage['rank']}. {passage['document_id']}"
        console.print(f"\n[cyan]{escape(place)}[/] [dim]{passage['score']:.3f}[/]")
        console.print(escape(passage["text"].strip()), soft_wrap=True)


def print_releases(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; one line of advice where there are none."""
    from rich import box
    from rich.table import Table

    console = terminal.result_console()
    if not rows:
        console.print("No releases yet. `ragloop run` makes the first.")
        return
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("version", "alias", "decision", *metrics, "created", "run key"):
        table.add_column(title.replace("_at_", "@"), no_wrap=True)
    for row in rows:
        table.add_row(
            row["version"],
            ", ".join(row["alias"]),
            row["decision"],
            *(row["metrics"].get(name, "").partition(" (")[0] for name in metrics),
            row["created"].replace("T", " ").removesuffix("+00:00"),
            row["run_key"][:8],
        )
    console.print(table)


@contextmanager
def _champion(artifacts: Artifacts, params: Params) -> Iterator[tuple[str, QuestionAnswerer]]:
    from rag import tracking
    from rag.release import registry

    stores.initialise(artifacts, params)
    tracking.configure(artifacts, params)
    release = registry.champion(params)
    if release is None:
        raise ReleaseError(
            f"{params.release.name} has no champion yet; `ragloop run` makes the first one"
        )
    bundle = registry.local_bundle(artifacts, params, release.version)
    released = Artifacts(bundle, state_folder=artifacts.state)

    from rag.reading.answerer import QuestionAnswerer

    answerer = QuestionAnswerer.load(released, load_params(released.params))
    try:
        yield release.version, answerer
    finally:
        answerer.close()
