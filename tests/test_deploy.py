"""compose.yaml and what lies in deploy/: whole, without a secret, and understood by the servers."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEMPLATE: dict[str, Any] = json.loads((ROOT / "deploy/kubernetes-job-template.json").read_text())
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])?([^}]*)\}")
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")

#: The part of the Compose specification that compose.yaml uses: the type of each key of a service.
SERVICE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("image", "build", "restart", "working_dir", "hostname"), str),
    **dict.fromkeys(("stop_grace_period", "shm_size"), str),
    **dict.fromkeys(("networks", "ports", "volumes", "secrets", "command"), list),
    **dict.fromkeys(("environment", "healthcheck", "depends_on"), dict),
    "init": bool,
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def make_secrets() -> Any:
    return runpy.run_path(str(ROOT / "deploy" / "make_secrets.py"))["make"]


def scalars(tree: Any) -> list[str]:
    """Every value in a tree, as text."""
    if isinstance(tree, dict):
        return [text for value in tree.values() for text in scalars(value)]
    if isinstance(tree, list):
        return [text for value in tree for text in scalars(value)]
    return [str(tree)]


def test_every_service_follows_the_compose_specification() -> None:
    wrong = [
        f"{name}.{key}: {value!r}"
        for name, service in SERVICES.items()
        for key, value in service.items()
        if not isinstance(value, SERVICE_KEYS.get(key, ()))
    ]
    assert not wrong
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        assert all(isinstance(value, str) for value in environment.values()), name
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert set(how) == {"condition"}
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for ever for {other}"
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", ()):
            source = (
                volume.rsplit(":", 2)[0] if volume.endswith(":ro") else volume.rsplit(":", 1)[0]
            )
            if source.startswith("./"):
                assert (ROOT / source).is_file()
            elif not source.startswith("${"):
                assert source in COMPOSE["volumes"]


def test_only_the_proxy_can_be_reached_and_every_image_is_pinned() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    outside = [name for name, service in SERVICES.items() if "outside" in service["networks"]]
    assert outside == ["proxy"]
    for service in SERVICES.values():
        name, _, tag = service["image"].partition(":")
        assert tag
        assert tag != "latest"
        assert ("build" in service) == (name == "ragloop")


def test_the_proxy_knows_the_services_at_their_ports() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    listening = re.findall(r"^https://\{\$RAGLOOP_HOST\}:(\d+) \{$", text, re.MULTILINE)
    assert [f"{port}:{port}" for port in listening] == SERVICES["proxy"]["ports"]
    assert text.count("import secure") == len(listening)
    targets = re.findall(r"reverse_proxy (\w+):(\d+)", text)
    assert [port for _, port in targets] == listening
    assert [name for name, _ in targets] == ["prefect", "mlflow", "qdrant"]
    for name in ("prefect", "mlflow"):
        command = SERVICES[name]["command"]
        assert command[command.index("--port") + 1] == dict(targets)[name]


def test_every_secret_comes_from_outside_and_a_missing_one_is_an_error(
    make_secrets: Any, tmp_path: Path
) -> None:
    make_secrets("rag.example.com", tmp_path)
    given = dict(row.split("=", 1) for row in (tmp_path / ".env").read_text().splitlines())
    asked = {name: kind for text in scalars(SERVICES) for name, kind, _ in VARIABLE.findall(text)}
    assert asked.pop("RAGLOOP_PROJECT") == ":-"
    assert set(asked.values()) == {":?"}
    assert set(asked) == set(given)
    named = re.compile(r"PASSWORD|SECRET|API_KEY|AUTH_STRING")
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if named.search(key):
                assert VARIABLE.fullmatch(value), f"{name}: {key}"


def test_the_servers_ask_who_calls() -> None:
    assert "PREFECT_SERVER_API_AUTH_STRING" in SERVICES["prefect"]["environment"]
    assert SERVICES["mlflow"]["command"][2:4] == ["--app-name", "basic-auth"]
    assert "QDRANT__SERVICE__API_KEY" in SERVICES["qdrant"]["environment"]
    assert "ROOT_SECRET_KEY" in SERVICES["storage"]["environment"]
    worker = SERVICES["worker"]["environment"]
    server = SERVICES["prefect"]["environment"]
    assert worker["PREFECT_API_AUTH_STRING"] == server["PREFECT_SERVER_API_AUTH_STRING"]


def test_prefect_and_mlflow_know_their_variables() -> None:
    from mlflow import environment_variables
    from mlflow.cli import server as mlflow_server
    from prefect.settings import Settings

    asked = {name for service in SERVICES.values() for name in service.get("environment", ())}
    of_mlflow = {name for name in asked if name.startswith("MLFLOW_")}
    known = set(dir(environment_variables)) | {
        str(parameter.envvar) for parameter in mlflow_server.params
    }
    assert of_mlflow - known == set()
    of_prefect = {name for name in asked if name.startswith("PREFECT_")}
    assert of_prefect
    assert of_prefect - prefect_variables(Settings) == set()


def prefect_variables(model: Any) -> set[str]:
    """Names of the variables that a model of Prefect's settings, and those in it, are read from."""
    names: set[str] = set()
    for field, info in model.model_fields.items():
        if isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields"):
            names |= prefect_variables(info.annotation)
            continue
        names.add(f"{model.model_config['env_prefix']}{field}".upper())
        choices = getattr(info.validation_alias, "choices", ())
        names |= {str(choice).upper() for choice in choices}
    return names


def test_secrets_are_for_their_owner_and_never_written_over(
    make_secrets: Any, tmp_path: Path
) -> None:
    made = make_secrets("rag.example.com", tmp_path)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in made if path.suffix != ".crt")
    before = {path: path.read_bytes() for path in made}
    with pytest.raises(FileExistsError, match="is there already"):
        make_secrets("rag.example.com", tmp_path)
    assert {path: path.read_bytes() for path in made} == before
    certificate = tmp_path / "deploy" / "secrets" / "tls.crt"
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-checkhost", "rag.example.com"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "does match certificate" in shown.stdout
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/deploy/secrets/"} <= set(ignored)


def test_the_job_template_uses_every_variable_that_it_declares() -> None:
    declared = set(TEMPLATE["variables"]["properties"])
    used = {
        name
        for text in scalars(TEMPLATE["job_configuration"])
        for name in PLACEHOLDER.findall(text)
    }
    assert used == declared


def test_prefect_fills_in_the_job_template() -> None:
    from prefect.utilities.templating import apply_values

    properties = TEMPLATE["variables"]["properties"]
    values = {name: item["default"] for name, item in properties.items() if "default" in item}
    values |= {"gpu": "1", "command": "prefect flow-run execute", "name": "retrain"}
    filled: Any = apply_values(TEMPLATE["job_configuration"], values)
    job = filled["job_manifest"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/ragloop:0.1.0"
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert job["spec"]["activeDeadlineSeconds"] == 43200
    assert job["metadata"]["generateName"] == "retrain-"


def test_docker_reads_compose_yaml(make_secrets: Any, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("docker compose is not installed")
    make_secrets("rag.example.com", tmp_path)
    done = subprocess.run(
        [docker, "compose", "--env-file", tmp_path / ".env", "config", "--quiet"],
        cwd=ROOT,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
