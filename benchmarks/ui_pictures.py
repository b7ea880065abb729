"""The pictures of docs/review.md: what a reviewer sees in MLflow and Prefect, from the real pages.

    python benchmarks/ui_pictures.py docs/images          # a toy project in a temporary folder
    python benchmarks/ui_pictures.py docs/images FOLDER   # kept there; one that has runs is used

Starts `ragloop up` on free ports, lets it promote a first release, judge a second one, skip a run
and fail on broken data, then opens the pages in Chromium (`apt-get install chromium`). Minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows import server
from rag.artifacts import Artifacts
from rag.release import ledger, links
from tests.toy import make_toy_project

_WIDTH, _HEIGHT = 1400, 900
_SETTLE_SECONDS = 8.0  # the pages go on asking their servers, and are never idle
_CLOSING_SECONDS = 2.0
_START_SECONDS = 240.0
_SECOND_RUN = "reader.training.learning_rate=0.01"
#: Words of a state in Prefect, and the name of its picture.
_STATES = {"Promote": "promoted", "Skipped": "skipped", "Failed": "failed"}


@dataclass(frozen=True)
class Served:
    """A project with its pages: `prefect` and `mlflow` are addresses."""

    root: Path
    prefect: str
    mlflow: str

    def ragloop(self, *arguments: str) -> None:
        """Runs a command there; one that fails is what some pictures are of."""
        _ragloop(self.root, *arguments).wait()

    def flow_runs(self) -> dict[str, str]:
        """Ids of flow runs by what their state is called, the first of each name."""
        found = _post(f"{self.prefect}/api/flow_runs/filter", {"sort": "START_TIME_ASC"})
        return {run["state_name"]: run["id"] for run in reversed(found)}

    def deployment(self) -> str:
        """Id of the one deployment."""
        found = _post(f"{self.prefect}/api/deployments/filter", {})
        return str(found[0]["id"])


def main() -> None:
    images = Path(sys.argv[1])
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else Path(scratch) / "project"
        if not (root / "params.yaml").exists():
            root.mkdir(parents=True, exist_ok=True)
            ports = (f"schedule.{name}_port={server.free_port()}" for name in ("prefect", "mlflow"))
            make_toy_project(root, overrides=[*ports])
        with serving(root) as served:
            if not (root / ".ragloop" / "ledger.jsonl").exists():
                make_runs(served)
            take_pictures(served, images)


@contextmanager
def serving(root: Path) -> Iterator[Served]:
    """`ragloop up` for the block."""
    record = server.up_record(Artifacts(root))
    record.unlink(missing_ok=True)
    process = _ragloop(root, "up")
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not record.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit("`ragloop up` does not start")
            time.sleep(0.5)
        yield Served(root, **json.loads(record.read_text(encoding="utf-8")))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def make_runs(served: Served) -> None:
    """A run of every kind: promoted, with cached stages, skipped on the schedule, failed."""
    served.ragloop("run")
    served.ragloop("run", "--set", _SECOND_RUN)
    _post(f"{served.prefect}/api/deployments/{served.deployment()}/create_flow_run", {})
    deadline = time.monotonic() + _START_SECONDS
    while "Skipped" not in served.flow_runs() and time.monotonic() < deadline:
        time.sleep(1.0)
    questions = served.root / "data" / "raw" / "questions.jsonl"
    whole = questions.read_text(encoding="utf-8")
    questions.write_text(whole + '{"id": "broken", "question": ""}\n', encoding="utf-8")
    served.ragloop("run")
    questions.write_text(whole, encoding="utf-8")


def take_pictures(served: Served, images: Path) -> None:
    """Opens each page and writes what is seen."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "chrome")
    browser = next(filter(None, map(shutil.which, names)))
    pages = {**mlflow_pages(served), **prefect_pages(served)}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, address in pages.items():
            page = chromium.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
            page.goto(address, timeout=120_000)
            time.sleep(_SETTLE_SECONDS)
            _make_room(page)
            page.screenshot(path=str(images / f"{name}.png"))
            page.close()
            print(f"{name}: {address}", flush=True)
        chromium.close()


def _make_room(page: Any) -> None:
    """Folds away what MLflow opens for new users: its chat panel, and plots of any two numbers."""
    plots = page.get_by_text("Visualizations", exact=True)
    if plots.count():
        plots.first.click()
    title = page.get_by_text("MLflow Assistant", exact=True)
    if title.count():
        header = title.first.locator("xpath=ancestor::div[.//button][1]")
        header.locator("button").last.click()
        time.sleep(_CLOSING_SECONDS)


def mlflow_pages(served: Served) -> dict[str, str]:
    """Addresses below MLflow's by the name of the picture; the last release is the challenger."""
    rows = [row for row in ledger.read(Artifacts(served.root).ledger) if row.get("version")]
    champion, challenger = rows[0], rows[-1]
    run = f"{served.mlflow}/api/2.0/mlflow/runs/get?run_id={challenger['run_id']}"
    with urllib.request.urlopen(run) as answer:
        experiment = json.load(answer)["run"]["info"]["experiment_id"]
    runs = (challenger["run_id"], champion["run_id"])
    pages = {
        "mlflow-run": links.run_page(experiment, runs[0]),
        "mlflow-charts": links.run_page(experiment, runs[0], "model-metrics"),
        "mlflow-checks": links.run_page(experiment, runs[0], "artifacts/checks.json"),
        "mlflow-answers": links.run_page(experiment, runs[0], "artifacts/answers.json"),
        "mlflow-traces": links.run_page(experiment, runs[0], "traces"),
        "mlflow-compare": links.compare_page(experiment, runs),
        "mlflow-curves": links.curves_page(experiment, runs),
        "mlflow-registry": "#/models/ragloop",
        "mlflow-release": f"#/models/ragloop/versions/{challenger['version']}",
    }
    return {name: f"{served.mlflow}/{page}" for name, page in pages.items()}


def prefect_pages(served: Served) -> dict[str, str]:
    """The deployment with its schedule, and one run for each way to end."""
    pages = {"prefect-deployment": f"{served.prefect}/deployments/deployment/{served.deployment()}"}
    runs = served.flow_runs()
    for state, run in runs.items():
        name = _STATES.get(state, "cached")
        pages[f"prefect-{name}"] = f"{served.prefect}/runs/flow-run/{run}"
    return pages


def _ragloop(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})


def _post(address: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
