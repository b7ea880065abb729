"""The index on a server whose connections break: nothing is lost, nothing is there twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from rag.errors import IndexMismatchError, RagError
from rag.params import IndexParams
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval import index_connection
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import Embeddings, write_embeddings
from rag.retrieval.index import Hits, build_plan, index_name, open_index, publish_index
from rag.retrieval.index_check import verify_index
from rag.retrieval.index_server import ServerIndex
from rag.retrieval.index_snapshot import export_index, import_index
from tests.retrieval.index_data import in_batches, make_index_data
from tests.retrieval.qdrant_stub import Fault, Faults, QdrantStub, serve_proxy, serve_stub

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
POINTS, BATCH = 300, 50
CONTROL = 2**64 - 1
Data = tuple[list[Chunk], Embeddings]


@pytest.fixture(scope="module")
def data() -> Data:
    return make_index_data(POINTS)


@pytest.fixture
def server() -> Iterator[tuple[QdrantStub, int]]:
    with serve_stub() as running:
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_connection, "_FIRST_WAIT_SECONDS", 0.001)


def at(port: int, **changes: Any) -> IndexParams:
    return IndexParams(kind="server", url=f"http://127.0.0.1:{port}", upsert_batch=BATCH, **changes)


def results(params: IndexParams, folder: Path, embeddings: Embeddings) -> list[Hits]:
    index = open_index(params, folder, embeddings.facts)
    dense = index.search_dense(np.asarray(embeddings.vectors[:20]), 10)
    filtered = index.search_dense(np.asarray(embeddings.vectors[:5]), 10, {"language": "sv"})
    sparse = index.search_bm25([Bm25Encoder(4.0).query("petrel 17 gull 8")], POINTS)
    index.close()
    return [
        [(chunk_id, round(score, 5)) for chunk_id, score in sorted(hits, key=_best_first)]
        for hits in (*dense, *filtered, *sparse)
    ]


def _best_first(hit: tuple[str, float]) -> tuple[float, str]:
    return -round(hit[1], 5), hit[0]


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> list[Hits]:
    """From Edge: another engine, no connection."""
    chunks, embeddings = data
    folder = tmp_path_factory.mktemp("edge")
    publish_index(IndexParams(), folder, embeddings, [chunks])
    return results(IndexParams(), folder, embeddings)


def assert_all_there_once(stub: QdrantStub, embeddings: Embeddings) -> None:
    [collection] = stub.client.get_collections().collections
    records, _ = stub.client.scroll(collection.name, limit=10 * POINTS)
    numbers = [record.id for record in records]
    assert sorted(numbers) == sorted([*embeddings.ids.tolist(), CONTROL])


def test_a_server_finds_what_edge_finds(
    server: tuple[QdrantStub, int], data: Data, undisturbed: list[Hits], tmp_path: Path
) -> None:
    stub, port = server
    chunks, embeddings = data
    name = publish_index(at(port), tmp_path, embeddings, in_batches(chunks, 70))
    assert [c.name for c in stub.client.get_collections().collections] == [f"ragloop-{name}"]
    assert results(at(port), tmp_path, embeddings) == undisturbed
    assert stub.field_indexes == ["terms"]
    index = open_index(at(port), tmp_path, embeddings.facts)
    report = verify_index(index, embeddings)
    assert (report.problems, report.recall_at_10, report.points) == ((), 1.0, POINTS)
    stored = index.passages([chunks[7].chunk_id, "f" * 15 + "0"])
    index.close()
    assert list(stored) == [chunks[7].chunk_id]
    assert stored[chunks[7].chunk_id].metadata == {"year": 1962, "tags": ["odd"]}
    before = stub.requests["PUT points"]
    publish_index(at(port), tmp_path, embeddings, [chunks])
    assert stub.requests["PUT points"] == before, "what is there is not sent again"


@pytest.mark.parametrize("fault", ["cut request", "no answer", "half an answer", "busy", "refuse"])
def test_a_connection_that_drops_in_an_upsert_loses_and_duplicates_nothing(
    server: tuple[QdrantStub, int],
    data: Data,
    undisturbed: list[Hits],
    tmp_path: Path,
    fault: Fault,
) -> None:
    """Every fourth upsert fails, among them those that write how far the build came."""
    stub, port = server
    chunks, embeddings = data
    faults = Faults(lambda number: fault if number % 4 == 0 else None)
    with serve_proxy(port, faults) as proxy:
        publish_index(at(proxy), tmp_path, embeddings, [chunks])
        assert results(at(proxy), tmp_path, embeddings) == undisturbed
    assert len(faults.happened) >= 4
    assert_all_there_once(stub, embeddings)
    repeated = sum(count - 1 for number, count in stub.upserted.items() if number != CONTROL)
    applied_before_the_drop = fault in ("no answer", "half an answer")
    assert (repeated > 0) == applied_before_the_drop


def test_faults_of_every_kind_one_after_the_other(
    server: tuple[QdrantStub, int], data: Data, undisturbed: list[Hits], tmp_path: Path
) -> None:
    """The same request fails four times in four ways before it goes through."""
    stub, port = server
    chunks, embeddings = data
    kinds: list[Fault] = ["cut request", "no answer", "busy", "half an answer"]
    faults = Faults({number: kinds[number % 4] for number in (4, 5, 6, 7, 11, 12)})
    with serve_proxy(port, faults) as proxy:
        publish_index(at(proxy), tmp_path, embeddings, [chunks])
    assert sorted(faults.happened) == sorted([*kinds, "half an answer", "cut request"])
    assert results(at(port), tmp_path, embeddings) == undisturbed
    assert_all_there_once(stub, embeddings)


def test_a_server_that_stays_away_is_one_clear_error_and_the_build_goes_on_later(
    server: tuple[QdrantStub, int],
    data: Data,
    undisturbed: list[Hits],
    tmp_path: Path,
) -> None:
    stub, port = server
    chunks, embeddings = data
    gone = Faults(lambda number: "refuse" if number > 5 else None)
    with serve_proxy(port, gone) as proxy, pytest.raises(RagError) as error:
        publish_index(at(proxy), tmp_path, embeddings, [chunks])
    assert f"did not answer upsert in {index_connection.ATTEMPTS} attempts" in str(error.value)
    assert "run the same command: it goes on where it stopped" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(gone.happened) == index_connection.ATTEMPTS
    with pytest.raises(IndexMismatchError, match="is missing or incomplete; run: ragloop index"):
        open_index(at(port), tmp_path, embeddings.facts)

    stub.upserted.clear()
    counts: list[int] = []
    publish_index(at(port), tmp_path, embeddings, [chunks], progress=counts.append)
    # Upsert 1 begins the build; then each batch is followed by the record of how far it came.
    assert counts == [2 * BATCH, BATCH, BATCH, BATCH, BATCH]
    assert results(at(port), tmp_path, embeddings) == undisturbed
    assert not set(stub.upserted) & set(embeddings.ids[: 2 * BATCH].tolist())


def test_a_refused_request_is_not_repeated(server: tuple[QdrantStub, int]) -> None:
    stub, port = server
    calls = index_connection.ServerCalls(index_connection.connect(f"http://127.0.0.1:{port}", None))
    with pytest.raises(RagError, match=r"Qdrant refused count: .*404.*does not exist"):
        calls.call("count", "nothing")
    calls.close()
    assert stub.requests["POST points/count"] == 1


def test_the_waits_between_attempts_grow_and_are_bounded(
    server: tuple[QdrantStub, int], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_connection, "_FIRST_WAIT_SECONDS", 0.25)
    waits: list[float] = []
    _, embeddings = data
    with serve_proxy(server[1], Faults(lambda _: "busy")) as proxy:
        client = index_connection.connect(f"http://127.0.0.1:{proxy}", None)
        calls = index_connection.ServerCalls(client, attempts=8, sleep=waits.append)
        index = ServerIndex(client, "name", at(proxy), calls=calls)
        with pytest.raises(RagError, match="in 8 attempts"):
            index.begin(build_plan(at(proxy), embeddings.facts))
        index.close()
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


PUBLISH = """
import os, signal, sys
from pathlib import Path
from rag.params import IndexParams
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.index import publish_index

folder, url = Path(sys.argv[1]), sys.argv[2]
done = 0
def progress(count):
    global done
    done += count
    if done == 150:
        os.kill(os.getpid(), signal.SIGKILL)
publish_index(IndexParams(kind="server", url=url, upsert_batch=50), folder,
              read_embeddings(folder / "embed"), folder / "chunks.parquet", progress=progress)
"""


def test_a_killed_build_goes_on_with_the_next_batch(
    server: tuple[QdrantStub, int], data: Data, undisturbed: list[Hits], tmp_path: Path
) -> None:
    stub, port = server
    chunks, embeddings = data
    write_embeddings(embeddings, tmp_path / "embed")
    write_table(chunks, CHUNKS, tmp_path / "chunks.parquet")
    command = [sys.executable, "-c", PUBLISH, str(tmp_path), f"http://127.0.0.1:{port}"]
    killed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    counts: list[int] = []
    publish_index(
        at(port), tmp_path, embeddings, tmp_path / "chunks.parquet", progress=counts.append
    )
    assert counts == [150, 50, 50, 50]
    assert {count for number, count in stub.upserted.items() if number != CONTROL} == {1}
    assert results(at(port), tmp_path, embeddings) == undisturbed


@pytest.mark.parametrize(
    "harm", ["a point less", "another vector", "unsealed", "no collection", "foreign"]
)
def test_a_collection_that_is_not_the_one_is_refused(
    server: tuple[QdrantStub, int], data: Data, tmp_path: Path, harm: str
) -> None:
    stub, port = server
    chunks, embeddings = data
    name = f"ragloop-{publish_index(at(port), tmp_path, embeddings, [chunks])}"
    canary = int(next(iter(embeddings.facts.canaries)), 16)
    if harm == "a point less":
        stub.client.delete(name, [int(embeddings.ids[9])])
        message = f"holds {POINTS - 1} points, expected {POINTS}"
    elif harm == "another vector":
        vector = np.asarray(embeddings.vectors[5]).tolist()
        stub.client.update_vectors(name, [models.PointVectors(id=canary, vector={"dense": vector})])
        message = f"canary {canary:016x} differs"
    elif harm == "unsealed":
        stub.client.delete(name, [CONTROL])
        message = "is missing or incomplete"
    elif harm == "no collection":
        stub.client.delete_collection(name)
        message = "is missing or incomplete"
    else:
        [point] = stub.client.retrieve(name, [CONTROL], with_payload=True)
        assert point.payload is not None
        point.payload["ragloop"]["seal"]["plan"]["fingerprint"] = "f" * 64
        stub.client.set_payload(name, point.payload, points=[CONTROL])
        message = "holds the vectors ffffffffffffffff"
    with pytest.raises(IndexMismatchError, match=rf"{message}.*; run: ragloop index rebuild$"):
        open_index(at(port), tmp_path, embeddings.facts)
    publish_index(at(port), tmp_path, embeddings, [chunks], rebuild=True)
    open_index(at(port), tmp_path, embeddings.facts).close()


def test_a_snapshot_goes_out_and_in(
    server: tuple[QdrantStub, int], data: Data, undisturbed: list[Hits], tmp_path: Path
) -> None:
    stub, port = server
    chunks, embeddings = data
    publish_index(at(port), tmp_path, embeddings, [chunks])
    size = export_index(at(port), tmp_path, embeddings.facts, tmp_path / "out" / "index.tar")
    assert (tmp_path / "out" / "index.tar").stat().st_size == size
    name = index_name(at(port), embeddings.facts)
    stub.client.delete_collection(f"ragloop-{name}")
    assert import_index(at(port), tmp_path, embeddings.facts, tmp_path / "out/index.tar") == name
    assert results(at(port), tmp_path, embeddings) == undisturbed


def test_no_request_is_larger_than_five_megabytes(
    server: tuple[QdrantStub, int], tmp_path: Path
) -> None:
    chunks, embeddings = make_index_data(600, dimension=768)
    long = [Chunk(c.chunk_id, c.document_id, c.ordinal, c.text + " 渡輪" * 1500, 4) for c in chunks]
    stub, port = server
    params = IndexParams(kind="server", url=f"http://127.0.0.1:{port}", upsert_batch=600)
    publish_index(params, tmp_path, embeddings, [long])
    assert 2_000_000 < stub.largest_request < 5_000_000
    assert_all_there_once(stub, embeddings)
