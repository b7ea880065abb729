"""`ragloop index ...` on a project that has chunks and embeddings, and `search --where`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import answers, lock
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import IndexParams
from rag.records import CHUNKS, write_table
from rag.release import ledger
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import write_embeddings
from rag.retrieval.index import Seal, build_plan, index_name
from rag.retrieval.index_edge import EdgeIndex
from tests.flows.conftest import Done
from tests.flows.programs import ROOT
from tests.retrieval.index_data import make_index_data
from tests.retrieval.qdrant_stub import serve_stub

pytestmark = pytest.mark.integration

Ragloop = Callable[..., Done]
POINTS = 40
CHUNK_LIST, EMBEDDINGS = make_index_data(POINTS)
NAME = index_name(IndexParams(), EMBEDDINGS.facts)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project after its stage embed."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    artifacts = Artifacts(tmp_path)
    write_table(CHUNK_LIST, CHUNKS, artifacts.chunks)
    write_embeddings(EMBEDDINGS, artifacts.embeddings)
    return tmp_path


@pytest.fixture
def index(ragloop_here: Ragloop, project: Path) -> Callable[..., Done]:
    """`ragloop index ...` in the project."""
    return lambda *arguments: ragloop_here(project, "index", *arguments)


def parsed(done: Done, code: int = 0) -> dict[str, Any]:
    assert done.code == code, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def break_index(project: Path) -> None:
    next((project / ".ragloop" / "index" / NAME).rglob("segment.json")).unlink()


def lose_points(project: Path, lost: int) -> None:
    """Puts an index without the first points in the place of the good one, its seal intact."""
    edge = EdgeIndex(project / ".ragloop" / "index" / NAME, IndexParams())
    plan = build_plan(IndexParams(), EMBEDDINGS.facts)
    edge.begin(plan)
    ids, vectors = EMBEDDINGS.ids[lost:], EMBEDDINGS.vectors[lost:]
    edge.upsert(ids, vectors, [Bm25Encoder(1.0).passage("ferry")] * len(ids), [{}] * len(ids))
    edge.finish()
    edge.seal(Seal(plan.to_json(), 1.0, None))


def test_status_before_and_after_it_is_published(index: Callable[..., Done], project: Path) -> None:
    ledger.append(
        project / ".ragloop" / "ledger.jsonl", {"version": "3", "tags": {"fingerprint": NAME}}
    )
    ledger.append(
        project / ".ragloop" / "ledger.jsonl", {"version": None, "tags": {"fingerprint": NAME}}
    )
    before = parsed(index("status", "--json"))
    assert (before["state"], before["points"], before["expected"]) == ("missing", None, POINTS)
    assert parsed(index("publish", "--json")) == {"name": NAME, "kind": "edge", "points": POINTS}
    after = parsed(index("status", "--json"))
    assert after.pop("bytes") > 10_000
    assert len(after.pop("bm25")) == 8
    assert after == {
        "kind": "edge",
        "location": str(project / ".ragloop" / "index" / NAME),
        "name": NAME,
        "state": "complete",
        "points": POINTS,
        "expected": POINTS,
        "dimension": 16,
        "search": "exact",
        "quantization": "none",
        "on_disk": True,
        "recall_at_10": None,
        "releases": ["3"],
    }
    shown = index("status")
    assert (shown.code, "state            complete" in shown.out) == (0, True)


def test_publish_leaves_what_is_there_and_rebuild_does_not(
    index: Callable[..., Done], project: Path
) -> None:
    seal = project / ".ragloop" / "index" / NAME / "sealed.json"
    index("publish")
    first = seal.stat().st_ino
    assert "= index (edge)" in index("publish").err
    assert seal.stat().st_ino == first
    assert "✓ index (edge)" in index("rebuild").err
    assert seal.stat().st_ino != first
    assert [path.name for path in seal.parent.parent.iterdir()] == [NAME]


def test_verify_is_exit_code_1_where_the_index_is_wrong(
    index: Callable[..., Done], project: Path
) -> None:
    missing = index("verify")
    assert missing.code == 1
    assert missing.errors[-1].endswith("is missing or incomplete; run: ragloop index rebuild")
    index("publish")
    good = parsed(index("verify", "--json"))
    assert (good["points"], good["recall_at_10"], good["problems"]) == (POINTS, 1.0, [])

    lose_points(project, 3)
    wrong = parsed(index("verify", "--json"), code=1)
    assert wrong["problems"][:2] == [
        f"{POINTS - 3} points, expected {POINTS}",
        "3 ids are missing, 0000000000000001 first",
    ]
    shown = index("verify")
    assert (shown.code, shown.errors[-1]) == (
        1,
        "the index is not that of the embeddings; run: ragloop index rebuild",
    )
    assert f"wrong            {POINTS - 3} points, expected {POINTS}" in shown.out
    assert index("publish").code == 1
    assert index("rebuild").code == index("verify").code == 0


def test_a_broken_index_is_rebuilt(index: Callable[..., Done], project: Path) -> None:
    index("publish")
    break_index(project)
    assert parsed(index("status", "--json"))["state"] == "missing"
    assert index("verify").code == 1
    assert index("rebuild").code == 0
    assert parsed(index("verify", "--json"))["problems"] == []


def test_what_a_quantised_search_loses_is_shown(index: Callable[..., Done], project: Path) -> None:
    params = project / "params.yaml"
    text = params.read_text()
    assert "quantization: none" in text
    params.write_text(text.replace("quantization: none", "quantization: scalar"))
    done = index("publish")
    assert "index search (exact, scalar, rescored x3) finds 100.0 %" in done.err
    assert parsed(index("status", "--json"))["recall_at_10"] == 1.0
    assert "100.0 % of the nearest passages are found" in index("status").out


def test_export_and_import(index: Callable[..., Done], project: Path) -> None:
    index("publish")
    exported = parsed(index("export", "index.tar", "--json"))
    assert exported == {"file": "index.tar", "bytes": (project / "index.tar").stat().st_size}
    shutil.rmtree(project / ".ragloop" / "index")
    assert parsed(index("import", "index.tar", "--json"))["name"] == NAME
    assert parsed(index("verify", "--json"))["problems"] == []
    (project / "index.tar").write_bytes(b"cut")
    refused = index("import", "index.tar")
    assert (refused.code, len(refused.errors)) == (1, 1)
    assert "is no whole snapshot" in refused.err


def test_the_server_that_params_name_is_used(index: Callable[..., Done], project: Path) -> None:
    index("publish")
    with serve_stub() as (stub, port):
        params = project / "params.yaml"
        url = f"http://127.0.0.1:{port}"
        text = params.read_text().replace("kind: edge ", "kind: server ")
        params.write_text(text.replace("url: null  ", f"url: {url}  ", 1))
        assert parsed(index("status", "--json"))["state"] == "missing"
        assert parsed(index("publish", "--json"))["kind"] == "server"
        status = parsed(index("status", "--json"))
        assert (status["location"], status["state"]) == (f"collection ragloop-{NAME}", "complete")
        assert parsed(index("verify", "--json"))["problems"] == []
        seal = project / ".ragloop" / "index" / NAME / "sealed.json"
        before = seal.stat().st_ino
        assert index("rebuild").code == 0
        assert seal.stat().st_ino != before, "the one of this process is made anew too"
        assert stub.client.count(f"ragloop-{NAME}").count == POINTS + 1


def test_writing_needs_the_lock_and_looking_does_not(
    index: Callable[..., Done], project: Path, ragloop_here: Ragloop
) -> None:
    from tests.flows.programs import ragloop

    with lock.hold(project / ".ragloop" / "lock", "another run"):
        busy = ragloop(project, "index", "publish")
        assert (busy.returncode, "another run" in busy.stderr) == (3, True)
        assert ragloop(project, "index", "status").returncode == 0
    assert not (project / ".ragloop" / "index").exists()


def test_without_embeddings_it_says_what_to_run(index: Callable[..., Done], project: Path) -> None:
    shutil.rmtree(project / "data" / "embed")
    for command in ("status", "verify", "publish"):
        done = index(command)
        assert (done.code, len(done.errors)) == (1, 1)
        assert "run: dvc repro" in done.err


class TestWhere:
    def test_values_of_one_field_are_alternatives(self) -> None:
        conditions = ["language=sv", "metadata.sum=a=b", "language=zh"]
        assert answers.parse_where(conditions) == {
            "language": ["sv", "zh"],
            "metadata.sum": ["a=b"],
        }
        assert answers.parse_where([]) == {}

    @pytest.mark.parametrize("wrong", ["language", "=sv", "", "title=x"])
    def test_anything_else_is_wrong_usage(
        self, ragloop_here: Ragloop, project: Path, wrong: str
    ) -> None:
        with pytest.raises(InputError):
            answers.parse_where([wrong])
        done = ragloop_here(project, "search", "ferry", "--where", wrong)
        assert (done.code, done.out) == (2, "")
        assert "error: " in done.err
        assert not (project / ".ragloop").exists()


@pytest.mark.parametrize(
    "command", ["", "status", "verify", "rebuild", "publish", "export", "import"]
)
def test_every_command_has_help(index: Callable[..., Done], command: str) -> None:
    done = index(*command.split(), "--help")
    assert (done.code, "Usage:" in done.out) == (0, True)
