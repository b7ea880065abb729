"""The logged model: what it holds, and that a stranger can ask it with the network off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.monitoring.query_log import read_queries, release_of
from rag.params import Params, parse_params
from rag.records import Evidence
from rag.release import registry
from rag.release.bundle import looks_pickled, write_bundle
from rag.release.switch import make_champion

pytestmark = pytest.mark.integration

ASK = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the network is off")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = refuse
import mlflow
model = mlflow.pyfunc.load_model("models:/tiny@champion")
import rag
answers = model.predict(["when does the petrel sails"])
print(json.dumps({"answers": answers, "code": rag.__file__}))
"""


@pytest.fixture(scope="module")
def folder(
    answering: tuple[Artifacts, Params], state: Path, _mlflow_of_module: None
) -> tuple[Path, dict[str, str]]:
    """The files of a registered champion, and its tags."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    from rag.release.store import experiment_id

    artifacts, params = answering
    client = MlflowClient()
    experiment = experiment_id(client, Artifacts(state, state_folder=state), params)
    run_id = client.create_run(experiment).info.run_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGLOOP_CANARY_KEY", "canary-in-the-environment")
        version = registry.register(artifacts, params, run_id=run_id, tags={"run_key": "k1"})
    make_champion(artifacts, params, version, expected=None, row={"version": version})
    release = registry.get_release(params, version)
    found = download_artifacts(f"models:/{release.model_id}")
    return Path(found), dict(release.tags)


def test_answers_in_a_fresh_process_without_network(
    folder: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAGLOOP_STATE": str(tmp_path / "state of another user"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    (answer,) = result["answers"]
    assert set(answer) == {"answer", "score", "abstained", "evidence"}
    assert answer["evidence"][0]["text"] == "the petrel sails at noon"
    assert answer["evidence"][0]["document_id"] == "d0"
    assert answer["evidence"][0]["posterior"] is None, "one prompt weighs no passages"
    assert result["code"].startswith(str(folder[0]))  # the release's own code, not the checkout's
    [row] = read_queries(Artifacts(tmp_path, tmp_path / "state of another user"))
    assert row["question"] == "when does the petrel sails"
    assert row["release"] == release_of(Artifacts(folder[0] / "artifacts" / "bundle"))
    assert row["documents"][0] == "d0"


def test_holds_no_pickle(folder: tuple[Path, dict[str, str]]) -> None:
    files = [path for path in folder[0].rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if looks_pickled(path)] == []


def test_names_neither_this_machine_nor_its_secrets(
    folder: tuple[Path, dict[str, str]], state: Path, tmp_path: Path
) -> None:
    machine = str(Path(__file__).parents[2]), str(state), str(tmp_path.parent)
    files = [path for path in folder[0].rglob("*") if path.is_file() and path.suffix != ".pyc"]
    params = folder[0] / "artifacts" / "bundle" / "params.yaml"  # this model is a local folder
    for path in set(files) - {params} - set(params.parent.glob("data/models/reader/**/*")):
        content = path.read_bytes()
        for secret in ("canary-in-the-environment", *machine):
            assert secret.encode() not in content, path


def test_is_typed_and_pinned(folder: tuple[Path, dict[str, str]]) -> None:
    described = yaml.safe_load((folder[0] / "MLmodel").read_text())
    inputs = json.loads(described["signature"]["inputs"])
    outputs = json.loads(described["signature"]["outputs"])
    assert inputs == [{"type": "string", "required": True}]
    assert [column["name"] for column in outputs] == ["answer", "score", "abstained", "evidence"]
    assert json.loads((folder[0] / "input_example.json").read_text())
    requirements = (folder[0] / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in requirements} >= {"mlflow", "torch", "qdrant-edge-py"}
    assert all("==" in line for line in requirements)
    assert folder[1]["bundle"]


@pytest.mark.parametrize("posterior", [0.25, None])
def test_the_output_fits_its_signature_with_and_without_a_posterior(
    folder: tuple[Path, dict[str, str]], posterior: float | None
) -> None:
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.models.utils import _enforce_schema

    outputs = Model.load(str(folder[0])).signature.outputs
    evidence = asdict(Evidence("c", "d", "text", 0.5, 1, posterior))
    row = {"answer": "noon", "score": -0.5, "abstained": False, "evidence": [evidence]}
    taken = _enforce_schema(pd.DataFrame([row]), outputs)
    assert taken["evidence"][0] == [evidence]
    del evidence["score"]
    with pytest.raises(MlflowException, match="score"):
        _enforce_schema(pd.DataFrame([row]), outputs)


def test_a_release_without_its_chunks_says_so(
    toy: tuple[Artifacts, Params], tmp_path: Path
) -> None:
    from rag.release.model import Release

    with (toy[0].embeddings / "vectors.npy").open("wb") as file:
        file.truncate(1_200_000)
    index = {"kind": "server", "url": "http://qdrant:6333"}
    params = parse_params({"release": {"bundle_limit_mb": 1}, "index": index})
    write_bundle(toy[0], params, tmp_path / "bundle")
    context = SimpleNamespace(artifacts={"bundle": str(tmp_path / "bundle")})
    with pytest.raises(ReleaseError, match=r"too large to carry data/chunk/chunks\.parquet"):
        Release().load_context(context)
