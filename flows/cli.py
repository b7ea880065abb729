"""The command `ragloop`: each command is a few lines that call one function and print its result.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 the work
failed, 2 wrong usage or bad input, 3 busy. Nothing heavy is imported before it is needed, so that
`--help` is instant.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from flows import (
    doctor_cli,
    history_cli,
    lineage_cli,
    metrics_cli,
    release_cli,
    tune_cli,
    watch_cli,
)
from flows.export_cli import export
from flows.index_cli import index
from flows.options import AsJson, Debug, Wait, print_json, project
from flows.refresh_cli import refresh
from flows.review_cli import review
from rag.errors import InputError, RagError

MAX_PROBLEMS = 20

app = typer.Typer(
    help="Keeps a retrieval-augmented question answerer current.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="Check and take in documents and questions.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(index, name="index")
app.add_typer(review, name="review")
app.command()(export)
app.command()(refresh)
doctor_cli.register(app)
history_cli.register(app)
metrics_cli.register(app)
release_cli.register(app)
lineage_cli.register(app)
tune_cli.register(app)
watch_cli.register(app)

Limit = Annotated[int, typer.Option("--limit", "-k", min=1, help="How many passages to show.")]


@app.command()
def init(debug: Debug = False) -> None:
    """Create and migrate the stores; every other command does it too where needed."""
    from flows import stores, terminal

    artifacts, params = project(debug=debug)
    done = stores.initialise(artifacts, params)
    for line in done or ["everything is in place"]:
        terminal.result_console().print(line, soft_wrap=True)


@app.command()
def run(
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Write a value to params.yaml first. Repeatable."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage again, changed or not.")
    ] = False,
    wait: Wait = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Retrain now: data to verdict."""
    from flows import manual, terminal, verdict

    artifacts, params = project(changes or (), debug=debug)
    reached = manual.retrain_now(artifacts, params, changes or (), force=force, wait=wait)
    if as_json:
        print_json(reached.to_json())
    else:
        verdict.print_verdict(terminal.result_console(), reached)


@app.command()
def up(debug: Debug = False) -> None:
    """Serve Prefect, MLflow and the schedule until Ctrl-C."""
    from flows import up as serving

    serving.run(*project(debug=debug))


@app.command()
def ask(question: str, as_json: AsJson = False, debug: Debug = False) -> None:
    """Answer a question from the champion, with evidence."""
    from flows import answers

    found = answers.ask(*project(debug=debug), question)
    print_json(found) if as_json else answers.print_answer(found)


@app.command()
def search(
    text: str,
    limit: Limit = 5,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="FIELD=VALUE",
            help="Only passages with this document_id, source, language or metadata.KEY. "
            "Repeatable: another value of a field is an alternative, another field a condition.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the passages that the champion finds."""
    from flows import answers

    found = answers.search(*project(debug=debug), text, limit, where or ())
    print_json(found) if as_json else answers.print_passages(found["passages"])


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="JSON {id: answer}, or JSONL.")],
    references: Annotated[Path, typer.Argument(help="SQuAD JSON, or JSONL with id and answers.")],
    *,
    stem: Annotated[bool, typer.Option("--stem", help="ROUGE on word stems (English).")] = False,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 10000,
    confidence: Annotated[float, typer.Option(help="Of the intervals, between 0 and 1.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 13,
    by: Annotated[
        str | None, typer.Option(metavar="KEY", help="Slices by this key of JSONL references.")
    ] = None,
    no_answer_scores: Annotated[
        Path | None,
        typer.Option(help="JSON {id: score}: how sure it is that there is no answer."),
    ] = None,
    no_answer_threshold: Annotated[
        float | None, typer.Option(help="Answers whose score is above it are declined.")
    ] = None,
    per_question: Annotated[
        Path | None, typer.Option(help="Write a JSON line of scores for each question here.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Metrics of a file of predictions against a file of references."""
    from flows import settings

    settings.silence(debug=debug, offline=True)
    from rag.evaluation.score_files import score_files

    found = score_files(
        predictions,
        references,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        stem=stem,
        no_answer_scores=no_answer_scores,
        no_answer_threshold=no_answer_threshold,
        by=by,
        per_question=per_question,
    )
    if as_json:
        print_json(found)
    else:
        from flows import scores

        scores.print_scores(found)


@data.command("check")
def data_check(path: Path, as_json: AsJson = False, debug: Debug = False) -> None:
    """Read documents and questions and report every problem in them."""
    from dataclasses import asdict

    from flows import settings

    settings.silence(debug=debug, offline=True)
    from rag.corpus import check_corpus

    _print_summary(asdict(check_corpus(path)), as_json=as_json)


@data.command("import")
def data_import(
    source: Annotated[str, typer.Argument(metavar="PATH", help="A folder, a file or hf:NAME.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what data/raw/ holds.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take documents and questions into data/raw/."""
    from dataclasses import asdict

    from flows import manual

    from_hub = source.startswith("hf:")
    artifacts, params = project(debug=debug, offline=False if from_hub else None)
    summary = manual.import_data(artifacts, params, source, replace=replace)
    _print_summary(asdict(summary), as_json=as_json)


def main() -> None:
    """Runs a command and exits with the code of its error."""
    sys.excepthook = _print_unexpected
    try:
        app()
    except RagError as error:
        if _shows_tracebacks():
            traceback.print_exc()
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(1)


def print_error(error: RagError) -> None:
    """One line for each problem, at most MAX_PROBLEMS of them, then what to do."""
    problems = error.problems if isinstance(error, InputError) else (str(error),)
    for problem in problems[:MAX_PROBLEMS]:
        print(f"error: {problem}", file=sys.stderr)
    if len(problems) > MAX_PROBLEMS:
        print(f"... and {len(problems) - MAX_PROBLEMS} more", file=sys.stderr)
    if isinstance(error, InputError) and error.hint:
        print(error.hint, file=sys.stderr)


def _print_unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What nobody foresaw: still one line; Python's exit code for it is 1."""
    if _shows_tracebacks():
        sys.__excepthook__(kind, error, trace)
        return
    first = (str(error).strip() or "no message").splitlines()[0]
    print(f"error: {kind.__name__}: {first} (--debug shows where)", file=sys.stderr)


def _shows_tracebacks() -> bool:
    return "--debug" in sys.argv[1:]


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    languages = ", ".join(f"{name} {count}" for name, count in summary["languages"].items())
    print(
        f"{summary['documents']} documents ({languages}; {summary['words']} words), "
        f"{summary['questions']} questions ({summary['unanswerable']} unanswerable)"
    )
    if summary["ignored"]:
        print(f"ignored: {', '.join(summary['ignored'])}")


if __name__ == "__main__":
    main()
