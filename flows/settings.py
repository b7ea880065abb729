"""The environment of every process that we start: one place, no effect at import.

`configure` is called first by each entry point, before prefect, mlflow or transformers are
imported, because these read the environment then. What the user has set already stays as it is.
Nothing calls home: with this environment no part opens a connection to anything but this machine
and the servers that params.yaml or the user's environment name.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rag.release.store import data_folder, tracking_uri
from rag.startup import spare_collector
from rag.weights import BUNDLED_PREFIX

if TYPE_CHECKING:
    from rag.artifacts import Artifacts
    from rag.params import Params

#: Every outbound call found in the installed sources, and what switches it off.
TELEMETRY_OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "true",  # prefect's client events, mlflow, huggingface_hub
    # prefect: heartbeat of the server, amplitude in the UI, banners, metrics of flow runs
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    # mlflow: events, and the settings of the events that it fetches; names of variables in models
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    # dvc: reports, the daily look for a new version (both run as a daemon), live updates to Studio
    "DVC_NO_ANALYTICS": "1",
    "DVC_DAEMON": "1",
    "DVC_STUDIO_OFFLINE": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}

#: Only where no model has to come from the hub.
HUB_OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
}

#: Library output that tells a user nothing; the lines on the terminal are ours.
QUIET: Mapping[str, str] = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


def environment(
    artifacts: Artifacts, params: Params, *, offline: bool | None = None
) -> dict[str, str]:
    """The variables of this project's processes, beside `TELEMETRY_OFF`; the user's own win.

    `offline` keeps the hub's libraries off the network; left out, it is true when every model is
    bundled or a local folder.
    """
    variables = {
        "PREFECT_HOME": str(data_folder(artifacts, params) / "prefect"),
        # Twenty seconds are not enough for a small machine that is busy.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        # Prefect forgets events by itself, and runs of more than 90 days only when it is told to.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if uses_local_models(params) if offline is None else offline:
        variables |= HUB_OFFLINE
    return variables


def configure(
    artifacts: Artifacts,
    params: Params,
    *,
    debug: bool = False,
    offline: bool | None = None,
) -> None:
    """Sets what is not set yet in this process, whose children inherit it.

    Programs of this environment come first on PATH, so that `python` in dvc.yaml is this Python.
    Where MLflow is comes from params.yaml alone, so that all parts agree.
    """
    spare_collector()
    silence(debug=debug)
    _set_missing(environment(artifacts, params, offline=offline))
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(artifacts, params)
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != programs:
        os.environ["PATH"] = os.pathsep.join([programs, path])


def silence(*, debug: bool = False, offline: bool = False) -> None:
    """The part that needs no project: nothing calls home, and libraries keep quiet."""
    _set_missing(TELEMETRY_OFF)
    if offline:
        _set_missing(HUB_OFFLINE)
    if not debug:
        _set_missing(QUIET)
        warnings.simplefilter("ignore")


def _set_missing(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def uses_local_models(params: Params) -> bool:
    """Whether every model is bundled or a folder on this machine."""
    return all(
        name.startswith(BUNDLED_PREFIX) or Path(name).expanduser().is_dir()
        for name, _ in params.models()
    )
