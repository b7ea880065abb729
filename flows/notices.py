"""Who is told how a run ended: a page in Prefect, and the terminal of a run that nobody started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact

from flows import steps, terminal
from flows.verdict import SKIPPED, Verdict, print_verdict, verdict_markdown

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State


def publish_verdict(verdict: Verdict) -> None:
    """The verdict as a Prefect artifact; printed too where no command line waits for it."""
    create_markdown_artifact(
        key="verdict", markdown=verdict_markdown(verdict), description="How the retraining ended"
    )
    if steps.is_scheduled():
        is_short = verdict.outcome == SKIPPED
        print_verdict(
            terminal.result_console(), replace(verdict, metrics={}) if is_short else verdict
        )


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """One line for a scheduled run that failed; the command line has its own."""
    if flow_run.deployment_id is not None:
        error = state.result(raise_on_failure=False)
        terminal.say(f"[red]{flow.name} failed:[/] {error}")
