"""The registry on a real MLflow store: registering, the alias as truth, compare and swap."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params, parse_params
from rag.release import ledger, registry, switch
from rag.release.bundle import verify_bundle
from rag.release.gate import Check, Decision, Outcome

pytestmark = pytest.mark.integration

Toy = tuple[Artifacts, Params]
CHECK = Check("primary against champion", "f1", 3.0, 1.0, 5.0, 0.0, True, "f1 is better")
DECISION = Decision(Outcome.PROMOTE, ("f1 is better",), (CHECK,), "champion", 150, {"seed": 13})


@pytest.fixture
def named(toy: Toy, request: pytest.FixtureRequest) -> Toy:
    """The toy project with a registered model of its own for each test."""
    name = re.sub(r"\W+", "-", request.node.name)
    return toy[0], parse_params({"release": {"name": name}})


def _register(project: Toy, run_id: str, **more: str) -> str:
    return registry.register(*project, run_id=run_id, tags={"run_key": "abc", **more})


def promote(project: Toy, version: str, expected: str | None) -> dict[str, Any]:
    row = {"outcome": "PROMOTE", "version": version, "champion": version}
    return switch.make_champion(*project, version, expected=expected, row=row)


def live(project: Toy) -> str | None:
    found = registry.champion(project[1])
    return found.version if found else None


def outputs(run: Any) -> list[Any]:
    return list(run.outputs.model_outputs)


def test_registers_the_run_once(named: Toy, run_id: str, state: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    artifacts, params = named
    tags = {"run_key": "abc", "data_hash": "d1", "remote": "https://me:canary@host/x"}
    version = registry.register(artifacts, params, run_id=run_id, tags=tags, decision=DECISION)
    assert version == "1"
    assert _register(named, run_id) == "1"  # an interrupted flow may repeat it
    release = registry.get_release(params, version)
    assert release.run_id == run_id
    assert release.tags["decision"] == "PROMOTE"
    assert list(release.tags)[:2] == ["decision", "why"], "a list shows the first tags"
    assert release.tags["why"] == "f1 is better"
    assert release.tags["compared_with"] == "champion"
    assert release.tags["f1"] == "61.2 (57.9 to 64.4)"
    assert release.tags["remote"] == "https://host/x"
    card = MlflowClient().get_model_version(params.release.name, version).description or ""
    card = card.replace("&emsp;", "")
    assert card.startswith("PROMOTE: f1 is better\n")
    assert "| f1 | 61.2 (57.9 to 64.4) | 4.0 (2.0 to 6.5) |" in card
    assert "| data hash | `d1` |" in card
    assert "| Fusion | concat |" in card
    assert "| Prior temperature | weighs no passages |" in card
    run = MlflowClient().get_run(run_id)
    assert [model.model_id for model in outputs(run)] == [release.model_id]
    whole = Path(download_artifacts(run_id=run_id, artifact_path="card.md")).read_text()
    assert whole.startswith(f"# {params.release.name} 1\n\nPROMOTE: f1 is better\n")
    model = MlflowClient().get_logged_model(release.model_id)
    assert model.experiment_id == run.info.experiment_id
    assert model.artifact_location.startswith(state.resolve().as_uri())
    assert not Path("mlruns").exists()
    assert [path.name for path in artifacts.state.iterdir()] == []  # no scratch left behind


def test_the_card_has_the_champion_that_the_run_was_compared_with(named: Toy, run_id: str) -> None:
    from mlflow import MlflowClient

    from rag.release.card import read_metrics
    from rag.release.reviewed import log_comparison

    metrics = read_metrics(named[0].metrics)
    metrics["systems"]["champion"] = {"f1": {"value": 50.0, "low": 45.0, "high": 55.0}}
    log_comparison(MlflowClient(), run_id, metrics)
    version = _register(named, run_id)
    card = MlflowClient().get_model_version(named[1].release.name, version).description or ""
    assert "| 4.0 (2.0 to 6.5) | 50.0 (45.0 to 55.0) |" in card.replace("&emsp;", "")


def test_the_bundle_of_a_version_can_be_opened(named: Toy, run_id: str) -> None:
    artifacts, params = named
    version = _register(named, run_id)
    bundle = registry.local_bundle(artifacts, params, version)
    assert Artifacts(bundle).fusion.read_bytes() == artifacts.fusion.read_bytes()
    assert verify_bundle(bundle)["files"]


def test_the_alias_says_what_is_live(named: Toy, run_id: str) -> None:
    from mlflow import MlflowClient

    artifacts, params = named
    assert registry.champion(params) is None  # not even a registered model
    first = _register(named, run_id)
    assert registry.champion(params) is None
    assert promote(named, first, None)["sequence"] == 1
    assert live(named) == first
    run = MlflowClient().create_run(MlflowClient().get_run(run_id).info.experiment_id)
    second = registry.register(
        artifacts, params, run_id=run.info.run_id, tags={"run_key": "def"}, decision=DECISION
    )
    switch.make_challenger(*named, second, row={"outcome": "REJECT", "version": second})
    waiting = registry.challenger(params)
    assert waiting is not None
    assert waiting.version == second
    rows = registry.releases(params)
    assert [row["version"] for row in rows] == ["2", "1"]
    assert [row["alias"] for row in rows] == [["challenger"], ["champion"]]
    assert rows[0]["decision"] == "PROMOTE"
    assert rows[0]["metrics"]["f1"] == "61.2 (57.9 to 64.4)"
    json.dumps(rows)
    promote(named, second, first)
    found = registry.champion(params)
    assert found is not None
    assert (found.version, found.uri) == ("2", f"models:/{params.release.name}/2")
    assert registry.challenger(params) is None, "it waits no more"
    promote(named, first, second)
    assert live(named) == first
    rows = ledger.read(artifacts.ledger)
    assert [row["outcome"] for row in rows] == ["PROMOTE", "REJECT", "PROMOTE", "PROMOTE"]
    assert "pending" not in registry.get_release(params, first).tags


def test_a_champion_that_changed_is_kept(named: Toy, run_id: str) -> None:
    params = named[1]
    version = _register(named, run_id)
    with pytest.raises(ReleaseError, match=r"champion changed: it is none, .* version 7"):
        promote(named, version, "7")
    assert registry.champion(params) is None
    promote(named, version, None)
    with pytest.raises(ReleaseError, match=r"it is version 1, the comparison was with none"):
        promote(named, version, None)
    assert len(ledger.read(named[0].ledger)) == 1


@pytest.mark.parametrize("version", ["99", "newest"])
def test_a_version_that_does_not_exist_is_not_promoted(
    named: Toy, run_id: str, version: str
) -> None:
    first = _register(named, run_id)
    promote(named, first, None)
    with pytest.raises(ReleaseError, match=f"has no version '{version}'"):
        promote(named, version, first)
    assert live(named) == first


def test_a_release_that_cannot_be_made_leaves_nothing_behind(named: Toy, run_id: str) -> None:
    from mlflow import MlflowClient

    (named[0].reader / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"optimizer\.pt"):
        _register(named, run_id)
    assert registry.releases(named[1]) == []
    assert outputs(MlflowClient().get_run(run_id)) == []


def test_without_a_store_nothing_is_made(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReleaseError, match="no MLflow store is chosen"):
        registry.champion(toy[1])
    assert not (tmp_path / "mlflow.db").exists()
