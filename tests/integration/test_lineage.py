"""A release in a clean clone: where it came from, made again byte for byte, and what was kept.

The clone has the project's git history, its registry, and the remote with its data: nothing else.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.stages import STAGES
from tests.integration.conftest import Finished, Project

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("first_run"),
]

STAGE_NAMES = [stage.name for stage in STAGES]
#: Prints which recorded files of the code the release itself holds with the recorded hash.
RELEASED_CODE = """
import json, mlflow
from pathlib import Path
from flows import dvc_files, provenance
from flows.options import project
artifacts, params = project(debug=False)
origin = provenance.read_origin(artifacts, params, "1")
model = Path(mlflow.artifacts.download_artifacts(f"models:/{origin.release.model_id}"))
held = dvc_files.plain(dvc_files.listing(model / "code", "rag"))
print(json.dumps([held, origin.record["code"]]))
"""


@pytest.fixture(scope="module")
def clone(project: Project, first_run: Finished) -> Project:
    """A fresh clone that is told where the registry is; its params.yaml is so changed by the user.

    `first_run` has to be over.
    """
    assert first_run.code == 0, first_run.err
    root = project.root.parent / "clone"
    git(project.root, "clone", "--quiet", str(project.root), str(root))
    params = root / "params.yaml"
    tree = yaml.safe_load(params.read_text())
    tree["tracking"]["uri"] = f"sqlite:///{project.root}/.ragloop/mlflow.db"
    params.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Project(root, project.environment, project.attempts)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def state(folder: Path) -> tuple[Any, ...]:
    """HEAD, index, status, and every file of a checkout with its content."""
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".git", ".dvc", ".ragloop", "__pycache__"} & set(path.parts)
    }
    asked = (["rev-parse", "HEAD"], ["symbolic-ref", "HEAD"], ["ls-files", "--stage"])
    return (*(git(folder, *arguments) for arguments in asked), files)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_the_lineage_needs_the_registry_alone(project: Project, clone: Project) -> None:
    done = clone.ragloop("lineage", "champion", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (row, *_) = project.ledger()
    assert found["release"]["version"] == "1"
    assert found["run"]["run_id"] == row["run_id"]
    assert found["run"]["branch"] == f"runs/{row['key']}"
    assert found["code"] == {
        "commit": git(project.root, "rev-parse", "main"),
        "dirty": False,
        "uncommitted": [],
    }
    raw = project.root / "data" / "raw"
    assert {item["path"]: (item["md5"], item["size"]) for item in found["data"]["files"]} == {
        path.relative_to(project.root).as_posix(): (md5(path), path.stat().st_size)
        for path in raw.rglob("*")
        if path.is_file()
    }
    assert [stage["name"] for stage in found["pipeline"]["stages"]] == STAGE_NAMES
    assert found["params"]["reader.lora.rank"] == 8
    assert found["index"]["fingerprint"] == row["tags"]["fingerprint"]
    models = {item["parameter"]: item["sha256"] for item in found["parents"]["models"]}
    # The bundled encoder's weights file, as rag/weights.py pins it.
    assert models["retriever.model"].startswith("53aa51172d142c89")
    assert len(models["reader.model"]) == 64
    assert found["parents"]["champions"] == []


def test_a_clean_clone_gives_every_byte_again(clone: Project) -> None:
    before = state(clone.root)
    done = clone.ragloop("reproduce", "1", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["outcome"] == "IDENTICAL", found["differences"]
    assert (found["differences"], found["problems"], found["uncommitted"]) == ([], [], [])
    assert found["stages"] == STAGE_NAMES
    assert found["files"] > 15
    f1 = next(row for row in found["metrics"] if row["metric"] == "f1")
    assert f1["reproduced"] == f1["recorded"] > 10
    assert "fetched from the remote" in done.err
    assert state(clone.root) == before
    assert git(clone.root, "worktree", "list").count("\n") == 0
    assert clone.connections_refused() == []


def test_data_that_changed_is_named_by_file_and_stage(clone: Project) -> None:
    """DVC trusts its cache, so only a look at the file itself can tell."""
    cache = clone.root / ".dvc" / "cache" / "files" / "md5"
    original = clone.root / "data" / "demo" / "documents" / "galebird.md"
    recorded = md5(original)
    kept = cache / recorded[:2] / recorded[2:]
    kept.chmod(0o644)
    kept.write_bytes(original.read_bytes() + b"The Galebird was sold.\n")
    changed = md5(kept)
    kept.chmod(0o444)
    before = state(clone.root)
    done = clone.ragloop("reproduce", "champion")
    assert done.code == 1
    assert (
        f"prepare: input data/raw/documents/galebird.md: recorded {recorded}, found {changed}"
    ) in done.out
    assert set(done.steps()) == {"checkout", "data"}, "nothing is trained on other data"
    assert state(clone.root) == before


def test_the_release_holds_the_code_that_made_it(clone: Project) -> None:
    """So a release that was trained with uncommitted code can be made again."""
    done = clone.python("-c", RELEASED_CODE)
    assert done.returncode == 0, done.stderr
    held, recorded = json.loads(done.stdout.splitlines()[-1])
    assert len(held) > 100
    assert {**held, "dvc.yaml": recorded["dvc.yaml"]} == recorded


def test_the_run_is_on_a_branch_and_the_checkout_is_not(project: Project) -> None:
    (row, *_) = project.ledger()
    branch = f"runs/{row['key']}"
    assert git(project.root, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(project.root, "rev-parse", f"{branch}^") == git(project.root, "rev-parse", "main")
    changed = git(project.root, "diff", "--name-only", "main", branch).splitlines()
    assert changed == ["data/raw.dvc", "dvc.lock"]
    lock = git(project.root, "show", f"{branch}:dvc.lock") + "\n"
    assert hashlib.sha256(lock.encode()).hexdigest() == row["tags"]["dvc_lock"]
    assert git(project.root, "diff", "--cached", "--name-only") == ""


def test_every_stage_was_told_to_openlineage(project: Project) -> None:
    text = (project.root.parent / "events.jsonl").read_text()
    run_start, *of_stages, run_end = map(json.loads, text.splitlines()[: 2 * len(STAGES) + 2])
    assert (run_start["eventType"], run_end["eventType"]) == ("START", "COMPLETE")
    told = [(event["job"]["name"], event["eventType"]) for event in of_stages]
    kinds = ("START", "COMPLETE")
    assert told == [(f"retrain.{name}", kind) for name in STAGE_NAMES for kind in kinds]
    (flow,) = project.prefect("select id from flow_run order by created limit 1")[0]
    assert run_start["run"]["runId"] == flow
    (row, *_) = project.ledger()
    branch = f"runs/{row['key']}"
    lock = yaml.safe_load(git(project.root, "show", f"{branch}:dvc.lock"))["stages"]
    for event in of_stages[1::2]:
        entries = lock[event["job"]["name"].removeprefix("retrain.")]["outs"]
        assert {
            item["name"]: item["facets"]["ragloop_hash"]["value"] for item in event["outputs"]
        } == {str(project.root / entry["path"]): entry["md5"] for entry in entries}
