"""Who is told what: how a run ended, that one was missed, that what is served has drifted.

On the terminal and in `.ragloop/notices.jsonl` always, elsewhere as `notify:` in params.yaml says;
how a run ended is also a page in Prefect.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact

from flows import steps, terminal
from flows.delivery import DELAYS_SECONDS, Notice, deliver
from flows.verdict import SKIPPED, Verdict, headline, print_verdict, verdict_markdown
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params, load_params
from rag.watch_params import NoticeEvent

if TYPE_CHECKING:
    from datetime import datetime

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

    from rag.monitoring.triggers import Trigger

#: Of the outcomes of a run; nobody is told that nothing was done.
_EVENTS: Mapping[str, NoticeEvent] = {
    "PROMOTE": "promoted",
    "REJECT": "rejected",
    "INCONCLUSIVE": "inconclusive",
    "PENDING": "pending",
    "ERROR": "error",
}
_MOST_REASONS = 5


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
    artifacts = Artifacts.here()
    if notice := of_verdict(artifacts, verdict):
        tell(artifacts, load_params(artifacts.params), notice)


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """One line for a scheduled run that failed (the command line has its own), and a notice."""
    error = state.result(raise_on_failure=False)
    if flow_run.deployment_id is not None:
        terminal.say(f"[red]{flow.name} failed:[/] {error}")
    _ended("failed", f"{flow.name} failed", str(error), flow_run)


def crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A notice of a run whose process was ended, where its end could still be seen."""
    _ended("crashed", f"{flow.name} crashed", state.message or "no message", flow_run)


def found_dead(artifacts: Artifacts, dead: Sequence[FlowRun]) -> None:
    """A notice of runs whose process ended without a word."""
    if dead:
        what = "1 run" if len(dead) == 1 else f"{len(dead)} runs"
        names = ", ".join(run.name for run in dead)
        lines = (f"Ended without a word: {names}. Killed, or the machine went down.",)
        title = _title(artifacts, f"{what} had crashed")
        notice = Notice("crashed", title, lines, runs=[str(run.id) for run in dead])
        tell(artifacts, load_params(artifacts.params), notice)


def untold(artifacts: Artifacts, params: Params, run: FlowRun) -> None:
    """A notice of a run that ended badly while nobody could be told, as on a full disk."""
    event: NoticeEvent = "crashed" if run.state and run.state.is_crashed() else "failed"
    why = (run.state.message if run.state else None) or "no message"
    title = _title(artifacts, f"{run.name} {event}")
    lines = (why, "Told late: when it ended, nobody could be told.")
    notice = Notice(event, title, lines, _page_of(run), runs=[str(run.id)])
    tell(artifacts, params, notice)


def schedule_missed(artifacts: Artifacts, params: Params, due: Sequence[datetime]) -> None:
    """A notice of scheduled runs that did not start."""
    times = ", ".join(f"{time:%Y-%m-%d %H:%M} UTC" for time in due)
    what = "a scheduled run has" if len(due) == 1 else f"{len(due)} scheduled runs have"
    lines = (f"Due: {times}.", "Is `ragloop up` running, or another run at work for long?")
    notice = Notice("schedule_missed", _title(artifacts, f"{what} not started"), lines)
    tell(artifacts, params, notice)
    terminal.say(f"[yellow]{what} not started[/], due {times}")


def cannot_look(artifacts: Artifacts, params: Params, problem: str) -> None:
    """A notice that triggers are blind; the caller sends it once for each problem."""
    title = _title(artifacts, "watch cannot look")
    tell(artifacts, params, Notice("failed", title, problem.split("; ")))


def drifted(artifacts: Artifacts, params: Params, triggers: Sequence[Trigger]) -> None:
    """A notice of what is served and no longer fits what is asked, with the evidence."""
    lines = [f"{trigger.name}: {trigger.summary}" for trigger in triggers]
    names = ", ".join(trigger.name.replace("_", " ") for trigger in triggers)
    tell(artifacts, params, Notice("drift", _title(artifacts, f"drift: {names}"), lines))


def of_verdict(artifacts: Artifacts, verdict: Verdict) -> Notice | None:
    """The decision, the difference with its interval, and the links; None where nothing was done.

    The gate's own words come last and not all of them: the report has the rest.
    """
    event = _EVENTS.get(verdict.outcome)
    if event is None:
        return None
    shown = differences(verdict.decision) if verdict.decision else []
    others = [reason for reason in verdict.reasons if reason not in shown]
    lines = [f"{verdict.outcome}: {headline(verdict)}", *shown]
    lines += [f"- {reason}" for reason in others[:_MOST_REASONS]]
    left = len(others) - _MOST_REASONS
    lines += [f"- and {left} more"] if left > 0 else []
    return Notice(event, _title(artifacts, event), lines, dict(verdict.links))


def differences(decision: Mapping[str, Any]) -> list[str]:
    """`f1 +3.1 points against champion (interval +1.2 to +5.0); ...`, one for each comparison."""
    primary = [check for check in decision["checks"] if str(check["name"]).startswith("primary")]
    return [str(check["detail"]) for check in primary]


def tell(
    artifacts: Artifacts,
    params: Params,
    notice: Notice,
    *,
    delays: Sequence[float] = DELAYS_SECONDS,
) -> None:
    """Delivers a notice; what did not arrive is a warning on the terminal and in the run's log."""
    for delivery in deliver(artifacts, params.notify, notice, delays=delays):
        if not delivery.ok:
            warning = (
                f"a notice did not reach {delivery.to} after {delivery.attempts} attempts: "
                f"{delivery.problem}"
            )
            terminal.say(f"[yellow]{warning}[/]")
            _run_log().warning("%s", warning)


def _ended(event: NoticeEvent, what: str, why: str, flow_run: FlowRun) -> None:
    artifacts = Artifacts.here()
    try:
        params = load_params(artifacts.params)
    except RagError:  # that is why it failed; where to send notices is in there
        terminal.say("[yellow]nobody was told: params.yaml cannot be read[/]")
        return
    runs = [str(flow_run.id)]
    notice = Notice(event, _title(artifacts, what), [why], _page_of(flow_run), runs=runs)
    tell(artifacts, params, notice)


def _title(artifacts: Artifacts, what: str) -> str:
    return f"ragloop {artifacts.root.name}: {what}"


def _page_of(flow_run: FlowRun) -> dict[str, str]:
    from prefect.utilities.urls import url_for

    address = url_for(flow_run)
    return {"prefect": address} if address else {}


def _run_log() -> Any:
    """The log of the flow run that this belongs to; a plain one outside of any."""
    from prefect import get_run_logger
    from prefect.exceptions import MissingContextError

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)
