"""What a change of the documents costs the embed stage, against its first run.

    python benchmarks/incremental.py --data DATA             # 10,000 real paragraphs
    python benchmarks/incremental.py --data DATA --documents 500 --tune

A folder of SQuAD files (.json, also .xz) and QED files (.jsonl, also .xz): each paragraph is a
document. The embed stage runs in a process of its own each time, as in a flow: at first, with 1 %
of the documents edited, with nothing changed, with another reader, and, with `--tune`, after the
query side alone was trained. `stage` is all that it does; `loading` is the part of it that brings
the libraries and the weights into memory, the same for one chunk and for a million.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.corpus.text import language_of
from rag.params import Params, parse_params
from rag.records import (
    DOCUMENTS,
    QUESTIONS,
    Document,
    Question,
    read_chunks,
    write_table,
)
from rag.stages import run_stage
from rag.yaml_input import merge_overrides, read_yaml

ROOT = Path(__file__).resolve().parent.parent
EDITED_SHARE = 0.01
ADDED = " This paragraph was revised."
MOST_SHARE = 0.03
TUNE = (
    "retriever.mode=query",
    "retriever.training.epochs=1",
    "retriever.training.evaluations=1",
    "retriever.training.batch_questions=16",
)


@dataclass(frozen=True)
class Run:
    """One run of the embed stage; times in seconds."""

    encoded: int
    stage: float
    loading: float


def main() -> None:
    parser = argparse.ArgumentParser(description="The embed stage after small changes.")
    parser.add_argument("--data", type=Path, help="folder of SQuAD and QED files")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--tune", action="store_true", help="train the query side at the end")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    overrides: list[str] = arguments.set
    if arguments.child:
        print(json.dumps(vars(embed_here(Artifacts(arguments.child), load(overrides)))))
        return
    documents, questions = read_data(arguments.data, arguments.documents)
    with tempfile.TemporaryDirectory() as folder:
        compare(Artifacts(Path(folder)), documents, questions, overrides, tune=arguments.tune)


def compare(
    artifacts: Artifacts,
    documents: Sequence[Document],
    questions: Sequence[Question],
    overrides: list[str],
    *,
    tune: bool,
) -> None:
    params = load(overrides)
    before = chunk(artifacts, params, documents)
    write_table(questions, QUESTIONS, artifacts.questions)
    run_stage("train_retriever", params, artifacts)
    print(f"{len(documents):,} documents, {len(before):,} different chunks\n")
    print("| run | chunks changed | chunks encoded | stage, s | of it loading, s | of first run |")
    print("|---|---|---|---|---|---|")
    first = run("first run", artifacts, overrides, len(before))

    step = round(1 / EDITED_SHARE)
    edited = [
        replace(document, text=document.text + ADDED) if i % step == 0 else document
        for i, document in enumerate(documents)
    ]
    changed = len(chunk(artifacts, params, edited) - before)
    change = run("1 % of the documents edited", artifacts, overrides, changed, first)
    same = run("nothing changed", artifacts, overrides, 0, first)
    other = [*overrides, "reader.passages=2", "retrieve.top_k=9"]
    reader = run("another reader", artifacts, other, 0, first)
    failures = []
    if tune:
        vectors = digest(artifacts.embeddings)
        run_stage("train_retriever", load([*overrides, *TUNE]), artifacts)
        tuned = run("query side trained", artifacts, [*overrides, *TUNE], 0, first)
        if tuned.encoded or digest(artifacts.embeddings) != vectors:
            failures.append("training the query side changed the passages' vectors")
    share = change.stage / first.stage
    bare = (change.stage - change.loading) / (first.stage - first.loading)
    print(
        f"\nediting 1 %: {change.encoded} chunks encoded of {changed} changed; the stage took "
        f"{share:.1%} of the first run, {bare:.1%} without loading (aim: {MOST_SHARE:.0%})"
    )
    if change.encoded > changed or same.encoded or reader.encoded:
        failures.append("more was encoded than was changed")
    if share > MOST_SHARE:
        failures.append("the edit took longer than it may")
    raise SystemExit("; ".join(failures) or None)


def run(
    name: str, artifacts: Artifacts, overrides: list[str], changed: int, first: Run | None = None
) -> Run:
    """The embed stage in a process of its own, and its row of the table."""
    changes = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, __file__, "--child", str(artifacts.root), *changes]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = Run(**json.loads(done.stdout.splitlines()[-1]))
    share = found.stage / (first or found).stage
    print(
        f"| {name} | {changed:,} | {found.encoded:,} | {found.stage:.2f} | {found.loading:.2f} "
        f"| {share:.1%} |",
        flush=True,
    )
    return found


def embed_here(artifacts: Artifacts, params: Params) -> Run:
    """What the stage does, with the loading of the model timed on its own."""
    started = time.monotonic()
    from rag.reading.answerer import load_encoder
    from rag.retrieval.embedding import embed_chunks

    encoder = load_encoder(artifacts, params)
    watched = LoadingWatch(encoder)
    work = embed_chunks(params, artifacts, watched)
    return Run(work.encoded, time.monotonic() - started, watched.seconds)


class LoadingWatch:
    """An encoder that counts the seconds until it knows its dimension, which loads the model."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.passage_fingerprint = encoder.passage_fingerprint
        self.encode = encoder.encode
        self.seconds = 0.0

    @property
    def dimension(self) -> int:
        started = time.monotonic()
        dimension: int = self._encoder.dimension
        self.seconds += time.monotonic() - started
        return dimension


def load(overrides: list[str]) -> Params:
    return parse_params(merge_overrides(read_yaml(ROOT / "params.yaml"), overrides))


def chunk(artifacts: Artifacts, params: Params, documents: Sequence[Document]) -> set[str]:
    """Runs the chunk stage; the different texts of its chunks."""
    write_table(documents, DOCUMENTS, artifacts.documents)
    run_stage("chunk", params, artifacts)
    return {item.text for item in read_chunks(artifacts.chunks)}


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def read_data(folder: Path, limit: int) -> tuple[list[Document], list[Question]]:
    """The first `limit` different paragraphs, and questions on them, every fifth one for dev."""
    documents: dict[str, Document] = {}
    questions: list[Question] = []
    for title, text, asked in paragraphs(folder):
        if text in documents or len(documents) == limit:
            continue
        name = f"{len(documents):08}"
        language = language_of(text)
        documents[text] = Document(name, title, text, f"{name}.txt", language)
        for question, answer in asked[:1]:
            number = len(questions)
            split = "train" if number % 5 else "dev"
            row = Question(f"q{number}", question, (answer,), name, True, split, language)
            questions.append(row)
    if len(documents) < limit:
        raise SystemExit(f"{folder} has {len(documents)} different paragraphs, expected {limit}")
    return list(documents.values()), questions[:500]


def paragraphs(folder: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """(title, paragraph, [(question, answer), ...]) of every file below a folder."""
    for path in sorted(folder.rglob("*.json*")):
        compressed = path.suffix == ".xz"
        with lzma.open(path, "rt", encoding="utf-8") if compressed else path.open() as file:
            if ".jsonl" in path.name:
                for row in map(json.loads, file):
                    if "paragraph_text" in row:
                        yield row["title_text"], row["paragraph_text"], []
                continue
            for article in json.load(file).get("data", []):
                for paragraph in article["paragraphs"]:
                    asked = [
                        (item["question"], item["answers"][0]["text"])
                        for item in paragraph["qas"]
                        if item["answers"]
                    ]
                    yield article.get("title", ""), paragraph["context"], asked


if __name__ == "__main__":
    main()
