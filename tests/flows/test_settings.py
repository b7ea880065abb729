"""The environment of our processes: telemetry off, the user's own settings kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import settings
from rag.artifacts import Artifacts
from rag.params import Params, parse_params

LOCAL = Params()
FROM_HUB = parse_params(
    {"reader": {"model": "owner/name", "revision": "0" * 40}, "gate": {"floors": {"f1": 1.0}}}
)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which none of our variables is set."""
    ours = settings.environment(Artifacts(Path("/nowhere")), LOCAL)
    for name in {**ours, **settings.TELEMETRY_OFF, **settings.QUIET, **settings.HUB_OFFLINE}:
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere-else")


@pytest.mark.usefixtures("bare")
def test_everything_is_below_the_project_and_nothing_calls_home(tmp_path: Path) -> None:
    settings.configure(Artifacts(tmp_path), LOCAL)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".ragloop" / "prefect")
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/.ragloop/mlflow.db"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    for name, value in settings.TELEMETRY_OFF.items():
        assert os.environ[name] == value
    assert not list(tmp_path.iterdir()), "no folder is made"


@pytest.mark.usefixtures("bare")
def test_what_the_user_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    settings.configure(Artifacts(tmp_path), LOCAL)
    assert os.environ["PREFECT_HOME"] == "/mine"
    assert os.environ["HF_HUB_OFFLINE"] == "0"


@pytest.mark.usefixtures("bare")
def test_a_hub_model_may_be_fetched(tmp_path: Path) -> None:
    settings.configure(Artifacts(tmp_path), FROM_HUB)
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.usefixtures("bare")
def test_debug_shows_what_libraries_say(tmp_path: Path) -> None:
    settings.configure(Artifacts(tmp_path), LOCAL, debug=True)
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ
    assert os.environ["DO_NOT_TRACK"] == "true"


def test_the_libraries_themselves_find_telemetry_off(tmp_path: Path) -> None:
    """Each library is asked, in a process of its own, what it makes of the variables."""
    code = """
from pathlib import Path
from flows import settings
from rag.artifacts import Artifacts
from rag.params import Params
settings.configure(Artifacts(Path.cwd()), Params())
from prefect._internal.analytics.enabled import is_telemetry_enabled
from prefect.settings import get_current_settings
from mlflow.telemetry.utils import is_telemetry_disabled
from mlflow.environment_variables import MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING
from huggingface_hub import constants
from dvc import analytics
prefect = get_current_settings()
assert not is_telemetry_enabled()
assert not prefect.server.analytics_enabled
assert not prefect.telemetry.enable_resource_metrics
assert not prefect.server.ui.show_promotional_content
assert str(prefect.home) == str(Path.cwd() / ".ragloop" / "prefect")
assert prefect.server.ephemeral.startup_timeout_seconds == 300
assert is_telemetry_disabled()
assert not MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING.get()
assert constants.HF_HUB_DISABLE_TELEMETRY and constants.HF_HUB_OFFLINE
assert not analytics.is_enabled()
"""
    known = {"PATH", "HOME", "PYTHONPATH", "SYSTEMROOT"}
    variables = {name: value for name, value in os.environ.items() if name in known}
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**variables, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_prefect_forgets_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of `watch` every quarter of an hour is 35,000 runs a year."""
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    for name, value in settings.environment(Artifacts(Path("/nowhere")), LOCAL).items():
        monkeypatch.setenv(name, value)
    assert ServerServicesDBVacuumSettings().enabled_vacuum_types >= {"events", "flow_runs"}
