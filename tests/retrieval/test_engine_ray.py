"""rag/retrieval/engine_ray.py on a Ray of this machine: the bytes of the local engine."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rag.artifacts import Artifacts
from rag.errors import InputError, ModelError
from rag.params import EmbedParams, Params, RetrieverParams
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval import embedding
from rag.retrieval.embedding import embed_chunks
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.encoder import Encoder
from rag.retrieval.engine import Part
from rag.retrieval.engine_ray import RayEngine, Share, connected, shares
from rag.retrieval.vector_store import as_keys, text_key

TEXTS = [f"The Petrel {i} sails at 06:40. " * (1 + i % 9) for i in range(120)]
RAY = EmbedParams(engine="ray", workers=2, batch_tokens=256)


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([node(CPU=8.0)], None, Share(8, 1, 0)),
        ([node(CPU=8.0)], 3, Share(3, 2, 0)),
        ([node(CPU=16.0), node(CPU=4.0)], 2, Share(2, 4, 0)),
        ([node(CPU=16.0), node(CPU=4.0, alive=False)], 2, Share(2, 8, 0)),
        ([node(), node(CPU=2.0)], None, Share(2, 1, 0)),
        ([node(CPU=16.0, GPU=2.0), node(CPU=16.0, GPU=1.0)], None, Share(3, 1, 1)),
        ([node(CPU=16.0, GPU=2.0), node(CPU=64.0)], 1, Share(1, 1, 1)),
    ],
)
def test_one_worker_a_gpu_or_a_core(
    nodes: list[dict[str, Any]], workers: int | None, expected: Share
) -> None:
    assert shares(nodes, workers) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "problem"),
    [
        ([node(CPU=8.0)], 9, "9, but the cluster has 8 cores"),
        ([node(CPU=8.0, GPU=1.0)], 2, "2, but the cluster has 1 GPUs"),
        ([node(CPU=8.0, alive=False)], None, "0, but the cluster has 0 cores"),
    ],
)
def test_more_workers_than_there_is_room_for_are_refused(
    nodes: list[dict[str, Any]], workers: int | None, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        shares(nodes, workers)


def test_without_the_package_the_error_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'ragloop\[ray\]'"), connected(None):
        pass


@pytest.mark.integration
@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1'.*refused"),
        ("ray://127.0.0.1:1", "no Ray cluster at 'ray://127.0.0.1:1'"),
        ("head", "'head' is no address"),
        ("head:", "'head:' is no address"),
    ],
)
def test_no_cluster_at_the_address(address: str, problem: str) -> None:
    """Stands before the tests that share a Ray: in a process that has one, it is used."""
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=problem), connected(address):
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One Ray for all tests of this file: a start takes seconds."""
    pytest.importorskip("ray")
    with connected(None) as ray:
        yield ray


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    artifacts = Artifacts(tmp_path / "ray")
    write(artifacts)
    return artifacts


def write(artifacts: Artifacts) -> None:
    chunks = [
        Chunk(text_key(text).hex()[:16], "d", i, text, len(text.split()) * 2)
        for i, text in enumerate(TEXTS)
    ]
    write_table(chunks, CHUNKS, artifacts.chunks)


def keep_as_it_is(artifacts: Artifacts, encoder: Encoder) -> None:
    """What train_retriever leaves in mode `none`."""
    for side in (artifacts.passage_encoder, artifacts.query_encoder):
        side.mkdir(parents=True)
        manifest = {
            "model": "bundled:minilm",
            "revision": None,
            "sha256": encoder.weights.sha256,
            "weights": "base",
        }
        (side / "encoder.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def local(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of the local engine."""
    artifacts = Artifacts(tmp_path_factory.mktemp("local"))
    write(artifacts)
    embed_chunks(Params(embed=EmbedParams(batch_tokens=4096)), artifacts, encoder)
    return output(artifacts)


def output(artifacts: Artifacts) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in artifacts.embeddings.iterdir()}


def worker_processes() -> list[int]:
    """The actors of this process's Ray, by the title that Ray gives them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(part.startswith("ray::Worker") for part in process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def parts() -> Iterator[Part]:
    for start in range(0, len(TEXTS), 10):
        texts = tuple(TEXTS[start : start + 10])
        yield Part(as_keys([text_key(text) for text in texts]), texts, 100)


@pytest.mark.integration
@pytest.mark.slow
def test_the_same_bytes_as_the_local_engine(
    cluster: Any,
    artifacts: Artifacts,
    encoder: Encoder,
    local: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "_PART_SECONDS", 0.001)
    monkeypatch.setattr(embedding, "_FIRST_PART_BATCHES", 1)
    keep_as_it_is(artifacts, encoder)
    work = embed_chunks(Params(embed=RAY), artifacts, encoder)
    assert work.encoded == len(TEXTS)
    assert output(artifacts) == local
    assert embed_chunks(Params(embed=RAY), artifacts, encoder).encoded == 0


@pytest.mark.integration
@pytest.mark.slow
def test_the_part_of_a_worker_that_is_killed_is_done_again(
    cluster: Any, artifacts: Artifacts, encoder: Encoder, local: dict[str, bytes]
) -> None:
    """SIGKILL to the process of each worker while it works."""
    engine = RayEngine(
        RAY, RetrieverParams(), artifacts.weights_cache, None,
        fingerprint=encoder.passage_fingerprint,
    )  # fmt: skip
    handed, found, killed = 0, {}, list[int]()

    def counted() -> Iterator[Part]:
        nonlocal handed
        for part in parts():
            handed += 1
            yield part

    advanced: list[int] = []
    for done in engine.encode(counted(), advanced.append):
        found.update(zip(done.part.texts, done.vectors, strict=True))
        assert handed - len(found) // 10 <= 2 * 2, "two parts a worker are under way, no more"
        if len(found) == 20:
            killed = worker_processes()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
    assert len(killed) == 2
    assert handed == 12
    assert sum(advanced) == len(found) == len(TEXTS)
    expected = encoder.encode(TEXTS, "passage")
    np.testing.assert_array_equal([found[text] for text in TEXTS], expected)


@pytest.mark.integration
@pytest.mark.slow
def test_a_model_that_is_a_folder_is_sent_as_files(
    cluster: Any, artifacts: Artifacts, encoder: Encoder, local: dict[str, bytes]
) -> None:
    """With a retriever's folder beside it, as train_retriever leaves it."""
    retriever = RetrieverParams(model=str(encoder.weights.folder))
    own = Encoder(retriever, artifacts.weights_cache)
    keep_as_it_is(artifacts, own)
    params = Params(embed=RAY.model_copy(update={"workers": 1}), retriever=retriever)
    embed_chunks(params, artifacts, own)
    np.testing.assert_array_equal(
        read_embeddings(artifacts.embeddings).vectors, encoder.encode(TEXTS, "passage")
    )


@pytest.mark.integration
@pytest.mark.slow
def test_a_worker_with_another_encoder_is_refused(cluster: Any, artifacts: Artifacts) -> None:
    one = RAY.model_copy(update={"workers": 1})
    engine = RayEngine(one, RetrieverParams(), artifacts.weights_cache, None, fingerprint="f" * 64)
    with pytest.raises(ModelError, match=r"the Ray worker on .* expected f{16}"):
        next(engine.encode(parts(), lambda _: None))


@pytest.mark.integration
@pytest.mark.slow
def test_what_a_worker_says_comes_back_as_it_is(cluster: Any, artifacts: Artifacts) -> None:
    one = RAY.model_copy(update={"workers": 1})
    missing = RetrieverParams(model="./no-such-model")
    engine = RayEngine(one, missing, artifacts.weights_cache, None, fingerprint="f" * 64)
    with pytest.raises(ModelError, match="no such folder"):
        next(engine.encode(parts(), lambda _: None))
