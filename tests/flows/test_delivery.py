"""Notices arrive at a real HTTP server through Apprise; what does not arrive costs nothing else."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from flows import notices, reasons
from flows.delivery import Notice, deliver
from flows.server import free_port
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.errors import ParamsError
from rag.monitoring import bounded_log
from rag.monitoring.triggers import Trigger
from rag.params import NotifyParams, Params, parse_params

NOTICE = Notice("drift", "ragloop x: drift", ("query_drift: far",), {"report": "data/report.html"})
SECRET = "s3cret-token"
DECISION: dict[str, Any] = {
    "outcome": "PROMOTE",
    "compared_with": "champion",
    "n_questions": 150,
    "reasons": [],
    "checks": [
        {"name": "primary against champion", "detail": "f1 +3.1 points (interval +1.2 to +5.0)"},
        {"name": "guard", "detail": "exact_match -1.0 points (interval -3.0 to +1.0)"},
    ],
}


@dataclass
class Service:
    """An HTTP server; it answers with these codes in turn, the last one for ever."""

    port: int = 0
    codes: list[int] = field(default_factory=lambda: [200])
    received: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self.port}/{SECRET}"

    def next_code(self) -> int:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            found.received.append(json.loads(self.rfile.read(length)))
            self.send_response(found.next_code())
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        server.shutdown()


def written(artifacts: Artifacts) -> list[dict[str, Any]]:
    return bounded_log.read(artifacts.notices)


def test_a_notice_arrives_and_is_written_down(tmp_path: Path, service: Service) -> None:
    artifacts = Artifacts(tmp_path)
    [delivery] = deliver(artifacts, NotifyParams(urls=(service.url,)), NOTICE)
    assert (delivery.ok, delivery.attempts, delivery.to) == (True, 1, "json://***")
    [sent] = service.received
    assert sent["title"] == "ragloop x: drift"
    assert sent["message"] == "query_drift: far\nreport: data/report.html"
    [row] = written(artifacts)
    assert row["event"] == "drift"
    assert row["deliveries"][0]["ok"]
    assert row["runs"] == []


def test_a_notice_of_dead_runs_names_them(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    dead = [FlowRun(flow_id=uuid4(), name=name) for name in ("one", "two")]
    notices.found_dead(Artifacts(tmp_path), [])
    notices.found_dead(Artifacts(tmp_path), dead)
    [row] = written(Artifacts(tmp_path))
    assert row["runs"] == [str(run.id) for run in dead]
    assert (row["event"], row["body"].split(".")[0]) == (
        "crashed",
        "Ended without a word: one, two",
    )


def test_a_url_comes_from_the_environment_or_a_file(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLOOP_TEST_URL", service.url)
    (tmp_path / "urls").write_text(f"# the team\n{service.url}?a=1\n")
    params = NotifyParams(urls=("env:RAGLOOP_TEST_URL", "file:urls", "env:RAGLOOP_UNSET"))
    found = deliver(Artifacts(tmp_path), params, NOTICE)
    assert [delivery.ok for delivery in found] == [True, True, False]
    assert len(service.received) == 2
    assert found[2].problem == "the environment variable RAGLOOP_UNSET is not set"


def test_a_service_that_recovers_is_asked_again(tmp_path: Path, service: Service) -> None:
    service.codes = [503, 200]
    params = NotifyParams(urls=(service.url,))
    [delivery] = deliver(Artifacts(tmp_path), params, NOTICE, delays=(0.0, 0.0))
    assert (delivery.ok, delivery.attempts) == (True, 2)


def test_what_does_not_arrive_is_reported_without_its_secret(
    tmp_path: Path,
    service: Service,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.codes = [500]
    artifacts = Artifacts(tmp_path)
    nobody = f"json://127.0.0.1:{free_port()}/{SECRET}"
    unknown = f"nonsense://{SECRET}"
    settings = {"notify": {"urls": [service.url, nobody, unknown]}}
    with caplog.at_level(logging.DEBUG):
        notices.tell(artifacts, parse_params(settings), NOTICE, delays=(0.0, 0.0))
    assert len(service.received) == 3, "attempts are bounded"
    [row] = written(artifacts)
    assert [delivery["problem"] for delivery in row["deliveries"]] == [
        "the service answered 500",
        "the service cannot be reached",
        "no URL that Apprise knows: see https://github.com/caronc/apprise",
    ]
    assert "did not reach json://*** after 3 attempts: the service answered 500" in caplog.text
    printed = capsys.readouterr()
    assert "a notice did not reach" in printed.err
    for text in (json.dumps(row), caplog.text, printed.out, printed.err):
        assert SECRET not in text


def test_nobody_is_told_of_what_they_did_not_ask_for(tmp_path: Path, service: Service) -> None:
    params = NotifyParams(urls=(service.url,), on=("failed",))
    assert deliver(Artifacts(tmp_path), params, NOTICE) == []
    assert service.received == written(Artifacts(tmp_path)) == []


def test_params_show_no_url(tmp_path: Path) -> None:
    params = parse_params({"notify": {"urls": [f"slack://{SECRET}/b/c", "env:NAME"]}})
    assert params.notify.urls[0] == f"slack://{SECRET}/b/c"
    assert params.flat()["notify.urls"] == ["slack://***", "env:NAME"]
    assert SECRET not in f"{params!r}{params.model_dump_json()}"
    again = parse_params(params.model_dump(mode="json"))
    assert again.notify.urls == ("slack://***", "env:NAME")
    for wrong in (SECRET, [SECRET], ["env:NAME", SECRET]):
        with pytest.raises(ParamsError) as caught:
            parse_params({"notify": {"urls": wrong}})
        assert "must be env:NAME, file:PATH or an Apprise URL" in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_verdict_says_the_difference_with_its_interval(tmp_path: Path) -> None:
    verdict = Verdict(
        outcome="PROMOTE",
        reasons=(DECISION["checks"][0]["detail"], *(f"reason {number}" for number in range(7))),
        key="k",
        version="4",
        champion="4",
        links={"run": "http://mlflow:5000/#/runs/1"},
        decision=DECISION,
    )
    notice = notices.of_verdict(Artifacts(tmp_path / "project"), verdict)
    assert notice is not None
    assert (notice.event, notice.title) == ("promoted", "ragloop project: promoted")
    assert notice.body.splitlines() == [
        "PROMOTE: version 4 is the champion now",
        "f1 +3.1 points (interval +1.2 to +5.0)",
        *(f"- reason {number}" for number in range(5)),
        "- and 2 more",
        "run: http://mlflow:5000/#/runs/1",
    ]


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        ("REJECT", "rejected"),
        ("INCONCLUSIVE", "inconclusive"),
        ("ERROR", "error"),
        ("PENDING", "pending"),
        ("SKIPPED", None),
        ("SAME", None),
    ],
)
def test_each_outcome_is_an_event_or_none(tmp_path: Path, outcome: str, event: str | None) -> None:
    notice = notices.of_verdict(Artifacts(tmp_path), Verdict(outcome, ("why",), key="k"))
    assert (notice.event if notice else None) == event


def test_why_a_run_happened_is_in_its_tags() -> None:
    evidence = {"threshold": 0.1, "strangest": ["what someone asked"]}
    triggers = [Trigger("query_drift", "fires", "far", evidence), Trigger("new_data", "fires", "x")]
    reason = reasons.reason_of(triggers)
    assert reasons.prefect_tags(reason) == ["trigger:query_drift", "trigger:new_data"]
    assert reasons.run_tags(reason, scheduled=True) == {
        "trigger": "query_drift, new_data",
        "trigger_because": "query_drift: far; new_data: x",
        "trigger_evidence": '{"query_drift": {"threshold": 0.1}, "new_data": {}}',
    }
    assert reasons.run_tags(None, scheduled=True) == {"trigger": "schedule"}
    assert reasons.run_tags(None, scheduled=False) == {"trigger": "by hand"}


def test_the_default_is_terminal_and_file_for_everything() -> None:
    assert Params().notify.urls == ()
    assert "drift" in Params().notify.on


def test_what_an_error_quotes_loses_its_credentials() -> None:
    notice = Notice("failed", "t", ("cannot reach http://me:pass@host/x?key=1",))
    assert notice.body == "cannot reach http://host/x"
