"""Questions to the champion and the list of releases: `ask`, `search` and `releases`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows import stores, terminal
from rag.artifacts import Artifacts
from rag.errors import IndexMismatchError, InputError, ReleaseError
from rag.params import Params, load_params

if TYPE_CHECKING:
    from rag.reading.answerer import QuestionAnswerer


def ask(artifacts: Artifacts, params: Params, question: str) -> dict[str, Any]:
    """`{"question", "release", "answer", "score", "abstained", "evidence": [...]}`.

    Also its `query_id` where `watch.query_log` is on; `ragloop feedback` takes it.
    """
    from rag.monitoring.query_log import log_queries

    with _champion(artifacts, params) as (version, answerer, released):
        answer = answerer.answer([question])[0]
        logged = log_queries(released, params.watch, [question], [answer])
    found = asdict(answer)
    named = {"query_id": logged[0]} if logged else {}
    return {"question": question, "release": version, "answer": found.pop("text"), **found, **named}


def search(
    artifacts: Artifacts, params: Params, text: str, limit: int, where: Sequence[str] = ()
) -> dict[str, Any]:
    """`{"query", "release", "passages": [...]}`, best first.

    `where` holds `field=value`; values of one field are alternatives. Raises InputError for a field
    that cannot be filtered.
    """
    chosen = parse_where(where)
    with _champion(artifacts, params) as (version, answerer, _):
        passages = answerer.search([text], limit, chosen)[0]
    rows = [asdict(passage) for passage in passages]
    return {"query": text, "release": version, "passages": rows}


def parse_where(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Field to its values, from `field=value`."""
    from rag.retrieval.index_payload import where_terms

    wrong = [condition for condition in conditions if "=" not in condition.strip("=")]
    if wrong:
        raise InputError([f"--where {condition!r}: expected FIELD=VALUE" for condition in wrong])
    where: dict[str, list[str]] = {}
    for condition in conditions:
        field, _, value = condition.partition("=")
        where.setdefault(field, []).append(value)
    where_terms(where)
    return where


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
    print_passages(found["evidence"], shares=not found["abstained"])
    if "query_id" in found:
        console.print(f"\n[dim]ragloop feedback {found['query_id']} --right | --wrong[/]")


def print_passages(passages: Sequence[Mapping[str, Any]], *, shares: bool = False) -> None:
    """One passage a paragraph, with its document, and with its share of the answer if it has one.

    Where there is no answer, there is nothing to have a share of.
    """
    from rich.markup import escape

    from rag.release.answers import share_of_answer

    console = terminal.result_console()
    for passage in passages:
        place = f"{passage['rank']}. {passage['document_id']}"
        posterior = passage["posterior"] if shares else None
        share = "" if posterior is None else f" [bold]{share_of_answer(posterior)}[/]"
        console.print(f"\n[cyan]{escape(place)}[/] [dim]{passage['score']:.3f}[/]{share}")
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


def champion_bundle(artifacts: Artifacts, params: Params) -> tuple[str, Artifacts]:
    """The champion's version and its files; raises ReleaseError where there is none."""
    from rag import tracking
    from rag.release import registry
    from rag.release.served import open_release

    stores.initialise(artifacts, params)
    tracking.configure(artifacts, params)
    release = registry.champion(params)
    if release is None:
        raise ReleaseError(
            f"{params.release.name} has no champion yet; `ragloop run` makes the first one"
        )
    return release.version, open_release(artifacts, params, release)


@contextmanager
def _champion(
    artifacts: Artifacts, params: Params
) -> Iterator[tuple[str, QuestionAnswerer, Artifacts]]:
    version, released = champion_bundle(artifacts, params)

    from rag.reading.answerer import QuestionAnswerer
    from rag.retrieval.index import REBUILD

    try:
        answerer = QuestionAnswerer.load(released, load_params(released.params))
    except IndexMismatchError as error:
        # The command alone would rebuild the index of the last run.
        own = str(error).replace(REBUILD, f"{REBUILD} --champion")
        raise IndexMismatchError(own) from error
    try:
        yield version, answerer, released
    finally:
        answerer.close()
