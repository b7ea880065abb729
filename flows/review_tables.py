"""What the terminal shows of reviews: where the sheet is, the results, and every judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows import terminal

_STYLES = {"win": "green", "loss": "red", "tie": "dim", "both_bad": "yellow"}


def print_sample(found: Mapping[str, Any]) -> None:
    """What was drawn and where it is, and what to do next."""
    console = terminal.result_console()
    console.print(
        f"Review [bold]{found['review']}[/]: {found['asked']} of {found['changed']} answers that "
        f"differ; {found['identical']} of {found['questions']} are the same and count as ties."
    )
    console.print(f"  page   {found['page']}", soft_wrap=True, markup=False)
    console.print(f"  table  {found['table']}", soft_wrap=True, markup=False)
    console.print("Give either to a rater; then: ragloop review import FILE --rater NAME")


def print_review(found: Mapping[str, Any]) -> None:
    """The result of one review, then its judgements where they were asked for."""
    from rich.markup import escape

    console = terminal.result_console()
    console.print(f"Review [bold]{found['review']}[/], drawn {found['created']}{_slice(found)}")
    console.print(f"  {escape(found['challenger'])} against {escape(found['opponent'])}")
    result = found["result"]
    if result is None:
        console.print(f"  {found['asked']} questions asked; nobody has judged yet")
        return
    console.print(
        f"  {result['wins']} wins, {result['losses']} losses, {result['ties']} both good, "
        f"{result['both_bad']} both bad, by {escape(', '.join(result['raters']))}"
    )
    console.print(
        f"  win rate [bold]{_ends(result['win_rate'])}[/] of all {result['n_questions']} "
        f"questions, {result['n_identical']} with the same answer as ties"
    )
    console.print(
        f"           {_ends(result['win_rate_changed'])} of those that differ, "
        f"{result['judged']} of them judged"
    )
    console.print(f"           ties and both bad as halves; {result['method']}", style="dim")
    if result["first_shown"] is not None:
        console.print(f"  side A was preferred in {result['first_shown']:.1f} % of the decided")
    if result["agreement"]:
        console.print(f"  agreement {_agreement(result['agreement'])}")
    if logged := found.get("mlflow"):
        on = f" and on {logged['traces']} traces" if logged["traces"] else ""
        console.print(f"  logged to the MLflow run {logged['run_id']}{on}")
    elif "mlflow" in found:
        console.print("  not logged to MLflow: these answers belong to no run of ragloop run")
    for judgement in found.get("judgements", ()):
        _print_judgement(judgement)


def print_reviews(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; one line of advice where there are none."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    console = terminal.result_console()
    if not rows:
        console.print("No reviews yet. `ragloop review sample` draws the first.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("review", "created", "against", "n", "won", "lost", "tied", "win rate", "kappa"):
        table.add_column(title, no_wrap=True)
    table.add_column("raters")
    for row in rows:
        table.add_row(
            row["review"],
            row["created"].replace("T", " ").removesuffix("+00:00"),
            escape(row["opponent"]) + _slice(row),
            str(row["asked"]),
            *_numbers(row["result"]),
            escape(", ".join(row["raters"])) or "[dim]none yet[/]",
        )
    console.print(table)


def _numbers(result: Mapping[str, Any] | None) -> tuple[str, ...]:
    if result is None:
        return ("", "", "", "", "")
    ties = result["ties"] + result["both_bad"]
    agreement = result["agreement"]
    return (
        str(result["wins"]),
        str(result["losses"]),
        str(ties),
        _ends(result["win_rate"]),
        _kappa(agreement["kappa"]) if agreement else "",
    )


def _print_judgement(judgement: Mapping[str, Any]) -> None:
    from rich.markup import escape

    console = terminal.result_console()
    outcome = judgement["outcome"]
    style = _STYLES[outcome]
    console.print(
        f"\n[{style}]{outcome.replace('_', ' ')}[/] {escape(judgement['question'])} "
        f"[dim]{escape(judgement['rater'])}[/]",
        soft_wrap=True,
    )
    for side in ("challenger", "opponent"):
        console.print(f"  {side:<10} {escape(judgement[side])}", soft_wrap=True)
    if judgement["comment"]:
        console.print(f"  [dim]{escape(judgement['comment'])}[/]", soft_wrap=True)


def _agreement(agreement: Mapping[str, Any]) -> str:
    raters = len(agreement["raters"])
    name = "Cohen's kappa" if raters == 2 else "Fleiss' kappa"
    text = f"{agreement['observed']:.1f} % of verdicts, {name} {_kappa(agreement['kappa'])}"
    if raters > 2:
        text += f", mean of pairs {_kappa(agreement['pairwise'])}"
    return text


def _kappa(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _ends(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.1f} ({interval['low']:.1f}–{interval['high']:.1f})"


def _slice(found: Mapping[str, Any]) -> str:
    from rich.markup import escape

    parts = [f"{name}={value}" for name, values in found["where"].items() for value in values]
    return f" [dim]{escape(' '.join(parts))}[/]" if parts else ""
