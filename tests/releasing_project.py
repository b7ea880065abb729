"""A project that releases in a second: tiny models, three passages, editions of another colour.

Each edition has passages of its own, so an answer shows which release gave its words and which gave
its passages. A killed program is a process of its own, forked from one that has imported all.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from rag.artifacts import Artifacts
from rag.params import Params, load_params
from rag.reading.reader import write_manifest as write_reader_manifest
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.embeddings import make_embeddings, write_embeddings
from rag.retrieval.encoder import Encoder, write_manifest
from rag.retrieval.fusion import Fusion
from tests.answering_project import write_adapter
from tests.tiny_bert import save_tiny_sentence_transformer
from tests.toy import write_toy_model

QUESTION = "who sails the boat at noon ?"
METRICS = {
    "n_questions": 20,
    "systems": {"tuned": {"f1": {"value": 60.0, "low": 50.0, "high": 70.0}}},
}
_PLACES = ("north", "south", "port")


def make_releasing_project(
    root: Path, keep: int = 1, keep_challengers: int = 0
) -> tuple[Artifacts, Params]:
    """A project whose stores exist and which has released nothing."""
    root.mkdir(parents=True)
    encoder = save_tiny_sentence_transformer(root / "tiny" / "encoder")
    reader = write_toy_model(root / "tiny" / "reader", hidden=32, layers=1)
    tree = {
        "retriever": {"model": str(encoder), "revision": None, "max_tokens": 64},
        "chunk": {"max_chunk_tokens": 64},
        "reader": {"model": str(reader), "max_answer_tokens": 6, "abstain": None},
        "release": {"keep": keep, "keep_challengers": keep_challengers},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/.ragloop/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    artifacts = Artifacts(root)
    write_adapter(reader, artifacts.reader / "adapter")
    return artifacts, load_params(artifacts.params)


def write_edition(artifacts: Artifacts, params: Params, colour: str) -> None:
    """What the stages would leave of documents about this colour."""
    texts = [f"the {colour} boat sails from {place} at noon" for place in _PLACES]
    names = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    chunks = [
        Chunk(name, f"{colour}-{i}", 0, text, 8)
        for i, (name, text) in enumerate(zip(names, texts, strict=True))
    ]
    write_table(chunks, CHUNKS, artifacts.chunks)
    encoder = Encoder(params.retriever, artifacts.weights_cache)
    vectors = encoder.encode(texts, "passage", batch_tokens=params.embed.batch_tokens)
    embeddings = make_embeddings(names, vectors, encoder.passage_fingerprint)
    write_embeddings(embeddings, artifacts.embeddings)
    for folder in (artifacts.passage_encoder, artifacts.query_encoder):
        write_manifest(folder, params.retriever, encoder.weights, "base")
    Fusion().write(artifacts.fusion)
    reader = params.reader
    write_reader_manifest(
        artifacts.reader, kind=reader.kind, model=reader.model, abstain_below=None
    )
    artifacts.metrics.parent.mkdir(parents=True, exist_ok=True)
    artifacts.metrics.write_text(json.dumps(METRICS), encoding="utf-8")


def colours(found: dict[str, Any]) -> set[str]:
    """The editions that the evidence of an answer comes from."""
    return {str(passage["document_id"]).partition("-")[0] for passage in found["evidence"]}


def opened(root: Path) -> tuple[Artifacts, Params]:
    """The project in this process, its environment set and its store chosen."""
    from flows import settings, stores
    from rag import tracking

    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:9/api"  # no Prefect store is needed
    os.chdir(root)
    artifacts = Artifacts(root)
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    stores.initialise(artifacts, params)
    tracking.configure(artifacts, params)
    return artifacts, params


class Killed(Exception):
    """The program died of SIGKILL, as it was told to."""


def in_a_process(program: Callable[..., Any], *arguments: Any) -> Any:
    """What the program returns; Killed where it killed itself, its traceback where it failed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.releasing_commands"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, program, arguments))
    process.start()
    theirs.close()
    try:
        done, value = ours.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise Killed from None
        raise AssertionError(f"the program ended with exit code {process.exitcode}") from None
    finally:
        process.join()
    assert done, value
    return value


def _answer(pipe: Any, program: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import traceback

    value: tuple[bool, Any] = False, "the program left by itself"
    try:
        value = True, program(*arguments)
    except BaseException:
        value = False, traceback.format_exc()
        raise
    finally:
        pipe.send(value)
        pipe.close()


class Template:
    """A prepared project that each test gets anew, always in the same place.

    MLflow's store names its files by their absolute paths, so a copy could not lie elsewhere.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept = root.with_name(f"{root.name}.kept")

    def keep(self) -> None:
        """What is there now is what `fresh` gives from now on."""
        shutil.copytree(self.root, self._kept, symlinks=True)

    def fresh(self) -> Path:
        shutil.rmtree(self.root)
        shutil.copytree(self._kept, self.root, symlinks=True)
        return self.root


if sys.platform != "linux":
    raise RuntimeError("these tests fork")
