"""rag/retrieval/embedding.py: the same bytes however they came about, and no text encoded twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import EmbedParams, Params, ReaderParams
from rag.progress import VARIABLE, read_progress
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval import embedding
from rag.retrieval.embedding import embed_chunks, passage_vectors
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.encoder import Encoder, FloatMatrix
from rag.retrieval.vector_store import VectorStore, text_key
from tests.retrieval.hash_encoder import HashEncoder, vector_of

ROOT = Path(__file__).resolve().parents[2]
PARAMS = Params(embed=EmbedParams(batch_tokens=256))

#: Document -> its chunks; one text stands in two of them.
DOCUMENTS = {
    f"d{number}": [f"ferry {number} {'sails ' * (number % 7)}", f"harbour {number}"]
    for number in range(60)
} | {"twice": ["ferry 1 sails ", "ferry 1 sails ", "only here"]}


def write_chunks(artifacts: Artifacts, documents: Mapping[str, Sequence[str]]) -> list[Chunk]:
    chunks = [
        Chunk(
            text_key(f"{document_id} {ordinal} {text}").hex()[:16],
            document_id,
            ordinal,
            text,
            len(text.split()) + 2,
        )
        for document_id, texts in documents.items()
        for ordinal, text in enumerate(texts)
    ]
    write_table(chunks, CHUNKS, artifacts.chunks)
    return chunks


def output(artifacts: Artifacts) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in artifacts.embeddings.iterdir()}


def from_scratch(folder: Path, documents: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    artifacts = Artifacts(folder)
    write_chunks(artifacts, documents)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    return output(artifacts)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "project")


def test_every_chunk_has_the_vector_of_its_text(artifacts: Artifacts) -> None:
    chunks = write_chunks(artifacts, DOCUMENTS)
    encoder = HashEncoder()
    work = embed_chunks(PARAMS, artifacts, encoder)
    found = read_embeddings(artifacts.embeddings)
    assert found.ids.tolist() == [int(chunk.chunk_id, 16) for chunk in chunks]
    np.testing.assert_array_equal(found.vectors, [vector_of(chunk.text) for chunk in chunks])
    assert found.facts == work.facts
    assert found.facts.encoder == encoder.passage_fingerprint
    assert sorted(encoder.encoded) == sorted({chunk.text for chunk in chunks}), "each text once"
    assert work.encoded == len(encoder.encoded) == 121


def test_nothing_changed_nothing_is_encoded(artifacts: Artifacts) -> None:
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    before = output(artifacts)
    encoder = HashEncoder()
    assert embed_chunks(PARAMS, artifacts, encoder).encoded == 0
    reader = Params(embed=PARAMS.embed, reader=ReaderParams(passages=2))
    assert embed_chunks(reader, artifacts, encoder).encoded == 0
    assert encoder.encoded == []
    assert output(artifacts) == before


def test_an_edit_encodes_the_changed_chunks_alone(artifacts: Artifacts, tmp_path: Path) -> None:
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    edited = DOCUMENTS | {"d7": ["ferry 7", DOCUMENTS["d7"][1]], "new": ["a new pier", "only here"]}
    del edited["d3"]
    chunks = write_chunks(artifacts, edited)
    encoder = HashEncoder()
    assert embed_chunks(PARAMS, artifacts, encoder).encoded == 2
    assert sorted(encoder.encoded) == ["a new pier", "ferry 7"]
    ids = read_embeddings(artifacts.embeddings).ids.tolist()
    assert ids == [int(chunk.chunk_id, 16) for chunk in chunks], "the deleted document is gone"
    assert output(artifacts) == from_scratch(tmp_path / "scratch", edited)


def test_order_windows_and_parts_change_no_vector(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = list(DOCUMENTS.items())
    random.Random(5).shuffle(shuffled)
    write_chunks(artifacts, dict(shuffled))
    monkeypatch.setattr(embedding, "_READ_ROWS", 7)
    monkeypatch.setattr(embedding, "_WINDOW_CHUNKS", 11)
    monkeypatch.setattr(embedding, "_WRITE_ROWS", 5)
    monkeypatch.setattr(embedding, "_FIRST_PART_BATCHES", 1)
    encoder = HashEncoder()
    embed_chunks(PARAMS, artifacts, encoder)
    assert len(encoder.encoded) == 121
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, encoder)
    assert len(encoder.encoded) == 121
    monkeypatch.undo()
    assert output(artifacts) == from_scratch(tmp_path / "scratch", DOCUMENTS)


def test_a_text_that_was_given_up_and_comes_back_is_encoded_once_at_most(
    artifacts: Artifacts,
) -> None:
    """Less than half is used: the store is compacted, and its size follows what is used."""
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    few = {name: DOCUMENTS[name] for name in list(DOCUMENTS)[:10]}
    write_chunks(artifacts, few)
    assert embed_chunks(PARAMS, artifacts, HashEncoder()).encoded == 0
    with VectorStore(artifacts.vectors, HashEncoder().passage_fingerprint) as store:
        assert len(store) == 20
    write_chunks(artifacts, DOCUMENTS)
    assert embed_chunks(PARAMS, artifacts, HashEncoder()).encoded == 101


def test_the_vectors_of_another_encoder_are_never_used(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    chunks = write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder("a"))
    first = output(artifacts)
    assert embed_chunks(PARAMS, artifacts, HashEncoder("b")).encoded == 121
    found = read_embeddings(artifacts.embeddings)
    np.testing.assert_array_equal(found.vectors, [vector_of(chunk.text, "b") for chunk in chunks])
    assert embed_chunks(PARAMS, artifacts, HashEncoder("a")).encoded == 0, "both are kept"
    assert output(artifacts) == first


def test_training_and_embedding_share_a_store(artifacts: Artifacts) -> None:
    chunks = write_chunks(artifacts, DOCUMENTS)
    passages = passage_vectors(PARAMS, artifacts, HashEncoder())
    np.testing.assert_array_equal(passages.vectors, [vector_of(chunk.text) for chunk in chunks])
    assert embed_chunks(PARAMS, artifacts, HashEncoder()).encoded == 0
    found = read_embeddings(artifacts.embeddings)
    assert found.facts == passages.facts
    np.testing.assert_array_equal(found.ids, passages.ids)


def test_a_damaged_row_is_encoded_again(artifacts: Artifacts, tmp_path: Path) -> None:
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    [rows] = artifacts.vectors.glob("*/0.rows")
    content = bytearray(rows.read_bytes())
    content[100] ^= 1
    rows.write_bytes(content)
    assert embed_chunks(PARAMS, artifacts, HashEncoder()).encoded == 1
    assert output(artifacts) == from_scratch(tmp_path / "scratch", DOCUMENTS)


def test_the_bar_counts_what_has_to_be_encoded(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "progress.json"))
    few = {name: DOCUMENTS[name] for name in list(DOCUMENTS)[:10]}
    write_chunks(artifacts, few)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    assert read_progress(tmp_path / "progress.json") == ("embed", 20, 20, 0.0)
    write_chunks(artifacts, DOCUMENTS)
    embed_chunks(PARAMS, artifacts, HashEncoder())
    assert read_progress(tmp_path / "progress.json") == ("embed", 101, 101, 0.0)


def test_an_encoder_that_fails_leaves_what_was_done(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_FIRST_PART_BATCHES", 1)

    class Failing(HashEncoder):
        def encode(self, texts: Sequence[str], side: str, **options: object) -> FloatMatrix:
            if self.encoded:
                return np.full((len(texts), self.dimension), np.nan, dtype=np.float32)
            return super().encode(texts, side, batch_tokens=256)

    write_chunks(artifacts, DOCUMENTS)
    failing = Failing()
    with pytest.raises(RagError, match="not finite"):
        embed_chunks(PARAMS, artifacts, failing)
    assert not artifacts.embeddings.exists()
    rest = HashEncoder()
    embed_chunks(PARAMS, artifacts, rest)
    assert sorted(failing.encoded + rest.encoded) == sorted(
        {text for texts in DOCUMENTS.values() for text in texts}
    )


KILLED = """
import sys
from pathlib import Path
from rag.artifacts import Artifacts
from rag.params import EmbedParams, Params
from rag.retrieval import embedding
from tests.retrieval.hash_encoder import HashEncoder

embedding._PART_SECONDS = 0.001
encoder = HashEncoder(log=Path(sys.argv[2]), seconds=0.02)
embedding.embed_chunks(
    Params(embed=EmbedParams(batch_tokens=256)), Artifacts(Path(sys.argv[1])), encoder
)
"""


@pytest.mark.parametrize("killed_after", [1, 60, 230])
def test_a_kill_loses_one_part_at_most(tmp_path: Path, killed_after: int) -> None:
    """SIGKILL once so many texts were encoded; the next run gives the same bytes."""
    documents = {f"d{i}": [f"ferry {i} {'sails ' * (i % 40)}"] for i in range(400)}
    artifacts, log = Artifacts(tmp_path / "project"), tmp_path / "log"
    write_chunks(artifacts, documents)
    command = [sys.executable, "-c", KILLED, str(artifacts.root), str(log)]
    process = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < killed_after:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not artifacts.embeddings.exists()

    encoded = len(log.read_text().splitlines())
    with VectorStore(artifacts.vectors, HashEncoder().passage_fingerprint) as store:
        committed = len(store)
    assert encoded - committed <= 256 // 3 + 1, "one part of 256 tokens, three at least a text"
    rest = HashEncoder()
    assert embed_chunks(PARAMS, artifacts, rest).encoded == len(documents) - committed
    assert len(rest.encoded) == len(documents) - committed
    assert output(artifacts) == from_scratch(tmp_path / "scratch", documents)


@pytest.mark.integration
def test_minilm_gives_the_same_bytes_in_one_run_and_in_two(
    tmp_path: Path, encoder: Encoder
) -> None:
    """The real encoder: other batches, other neighbours, the same bits."""
    whole, part = Artifacts(tmp_path / "whole"), Artifacts(tmp_path / "part")
    write_chunks(whole, DOCUMENTS)
    embed_chunks(PARAMS, whole, encoder)
    write_chunks(part, {name: texts[:1] for name, texts in list(DOCUMENTS.items())[::3]})
    embed_chunks(Params(embed=EmbedParams(batch_tokens=4096)), part, encoder)
    write_chunks(part, DOCUMENTS)
    embed_chunks(PARAMS, part, encoder)
    assert output(part) == output(whole)
