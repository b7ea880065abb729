"""The exposition as Prometheus' own parser reads it, and the server that gives it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows import metrics_server
from flows.metrics import exposition
from flows.server import free_port
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import Params
from rag.release import ledger

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, tuple[str, ...]], float]
DECISIONS = ("PROMOTE", "REJECT", "REJECT", "ERROR")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """A ledger of four decisions, a training's speed, and what the watch remembers."""
    found = Artifacts(tmp_path)
    for hour, outcome in enumerate(DECISIONS):
        row = {
            "time": f"2026-11-26T0{hour}:00:00+00:00",
            "outcome": outcome,
            "decision": {"outcome": outcome},
            "version": str(hour + 1),
            "champion": "1",
        }
        ledger.append(found.ledger, row)
    found.speed.mkdir()
    speed = {"seconds": 12.5, "samples": 100, "samples_per_second": 8.0}
    (found.speed / "train_reader.json").write_text(json.dumps(speed))
    evidence = {"query_drift": {"p_value": 0.25, "window": "w", "is_on": True}}
    (found.state / "watch.json").write_text(json.dumps({"served": {"evidence": evidence}}))
    return found


def samples(text: str) -> Samples:
    """Value by name and label values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_group_is_what_its_source_says(artifacts: Artifacts) -> None:
    found = samples(exposition(artifacts, Params(), {}))
    assert found["ragloop_decisions_total", ("PROMOTE",)] == 1
    assert found["ragloop_decisions_total", ("REJECT",)] == 2
    assert found["ragloop_decisions_total", ("ERROR",)] == 1
    assert found["ragloop_last_success_timestamp_seconds", ()] == 1795658400  # 02:00 UTC
    assert found["ragloop_last_error_timestamp_seconds", ()] == 1795662000
    assert found["ragloop_champion_since_timestamp_seconds", ()] == 1795651200
    assert found["ragloop_training_seconds", ("train_reader",)] == 12.5
    assert found["ragloop_training_samples_per_second", ("train_reader",)] == 8.0
    assert found["ragloop_drift", ("query_drift", "p_value")] == 0.25
    assert [labels for name, labels in found if name == "ragloop_drift"] == [
        ("query_drift", "p_value")
    ]
    assert found["ragloop_serving", ()] == 0
    assert found["ragloop_state_bytes", ("ledger.jsonl",)] == artifacts.ledger.stat().st_size
    assert 0 < found["ragloop_disk_free_bytes", ()] <= found["ragloop_disk_size_bytes", ()]


def test_a_source_that_cannot_be_read_is_counted_and_leaves_the_others(
    artifacts: Artifacts,
) -> None:
    artifacts.ledger.write_text(artifacts.ledger.read_text().replace("REJECT", "REJEKT"))
    found = samples(exposition(artifacts, Params(), {}))
    up = {labels[0]: value for (name, labels), value in found.items() if name.endswith("source_up")}
    # There is no MLflow store in this folder, and looking makes none.
    wanted = {"ledger": 0, "mlflow": 0, "stages": 1, "prefect": 1, "watch": 1, "disk": 1}
    assert up == wanted
    assert not [name for name, _ in found if name.startswith("ragloop_decisions")]
    assert not (artifacts.state / "mlflow.db").exists()


def test_it_is_a_part_of_up_where_a_port_is_set() -> None:
    assert metrics_server.parts(Params()) == []
    (part,) = metrics_server.parts(Params.model_validate({"up": {"metrics_port": 9464}}))
    assert part.name == "metrics"
    assert part.address == "http://127.0.0.1:9464/metrics"
    assert part.command[-2:] == ["--port", "9464"]


def test_a_port_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not there
    with pytest.raises(InputError) as refused:
        metrics_server.parts(Params.model_validate({"up": {"metrics_port": 9464}}))
    assert refused.value.problems == (
        "up.metrics_port is 9464, and prometheus-client is not installed",
    )
    assert 'pip install "ragloop[metrics]"' in refused.value.hint


@pytest.mark.integration
def test_the_server_gives_the_same(artifacts: Artifacts) -> None:
    (artifacts.root / "params.yaml").write_text("{}\n")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.metrics_server", "--port", str(port)],
        cwd=artifacts.root,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
                    text = page.read().decode()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        process.terminate()
    assert process.wait(20) == 0
    assert samples(text)["ragloop_decisions_total", ("REJECT",)] == 2
