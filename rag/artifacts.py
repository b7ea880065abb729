"""Where every stage reads and writes: one name for each file, relative to a root.

The root is a checkout (stages, flows) or a release's folder (serving): both have the same layout
below `data/`, so the code that evaluates is the code that serves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".ragloop"
QUERY_ENCODER = "query_encoder"


@dataclass(frozen=True)
class Artifacts:
    """Paths below `root`; nothing is created by naming it.

    `state_folder` holds what can be made again at any time (indexes, converted weights,
    checkpoints, logs), the ledger of releases and what people said in reviews; it is
    `root/.ragloop` unless given.
    """

    root: Path
    state_folder: Path | None = None

    @classmethod
    def here(cls) -> Artifacts:
        """Artifacts of the project in the current working directory."""
        return cls(Path.cwd())

    # data/: versioned by DVC
    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def demo(self) -> Path:
        return self.data / "demo"

    @property
    def raw(self) -> Path:
        """What the pipeline reads: `documents/**` and `questions/**` as the user gave them."""
        return self.data / "raw"

    @property
    def documents(self) -> Path:
        return self.data / "prepare" / "documents.parquet"

    @property
    def questions(self) -> Path:
        return self.data / "prepare" / "questions.parquet"

    @property
    def rejects(self) -> Path:
        """Rows set aside when `prepare.strict` is false, one JSON object a line."""
        return self.data / "prepare" / "rejects.jsonl"

    @property
    def chunks(self) -> Path:
        return self.data / "chunk" / "chunks.parquet"

    @property
    def retriever(self) -> Path:
        return self.data / "models" / "retriever"

    @property
    def passage_encoder(self) -> Path:
        """The passage side of the retriever: what an index depends on."""
        return self.retriever / "passage"

    @property
    def query_encoder(self) -> Path:
        """The query side: tuned alone in mode `query`, which leaves the index as it is."""
        return self.retriever / "query"

    @property
    def retriever_history(self) -> Path:
        """The retriever's training curve, as `history` is the reader's."""
        return self.query_encoder / "history.jsonl"

    @property
    def embeddings(self) -> Path:
        return self.data / "embed"

    @property
    def contexts(self) -> Path:
        return self.data / "retrieve" / "contexts.parquet"

    @property
    def fusion(self) -> Path:
        return self.data / "retrieve" / "fusion.json"

    @property
    def reader(self) -> Path:
        return self.data / "models" / "reader"

    @property
    def reader_query_encoder(self) -> Path:
        """The query side that end-to-end training tuned, beside the reader it belongs to."""
        return self.reader / QUERY_ENCODER

    @property
    def history(self) -> Path:
        """Training curve, one JSON object a step, written as training goes."""
        return self.reader / "history.jsonl"

    @property
    def predictions(self) -> Path:
        return self.data / "evaluate" / "predictions.parquet"

    @property
    def probes(self) -> Path:
        """What the tuned system says to its wrong answers when it is shown other passages."""
        return self.data / "evaluate" / "probes.parquet"

    @property
    def metrics(self) -> Path:
        return self.data / "evaluate" / "metrics.json"

    @property
    def report(self) -> Path:
        return self.data / "evaluate" / "report.html"

    @property
    def plots(self) -> Path:
        return self.data / "evaluate" / "plots"

    # .ragloop/: derived, never versioned
    @property
    def state(self) -> Path:
        return self.state_folder or self.root / STATE_FOLDER

    @property
    def vectors(self) -> Path:
        """Vectors of texts that were encoded before, by encoder and content."""
        return self.state / "vectors"

    @property
    def index_folder(self) -> Path:
        return self.state / "index"

    @property
    def weights_cache(self) -> Path:
        return self.state / "models"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def speed(self) -> Path:
        """How fast stages trained, one JSON file a stage: of this machine, so no output."""
        return self.state / "speed"

    @property
    def stage_times(self) -> Path:
        """When each stage's function began and ended, one JSON file a stage."""
        return self.state / "stage_times"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.jsonl"

    @property
    def reviews(self) -> Path:
        """What people were asked about answers, who was who, and what they said."""
        return self.state / "reviews"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def queries(self) -> Path:
        """Served queries, where `watch.query_log` is true."""
        return self.state / "queries"

    @property
    def feedback(self) -> Path:
        """What people said of served answers."""
        return self.state / "feedback.jsonl"

    @property
    def intake(self) -> Path:
        """Which content of the watched place was taken in last."""
        return self.state / "intake.json"

    @property
    def watch(self) -> Path:
        """What the triggers remember from one look to the next."""
        return self.state / "watch.json"

    @property
    def watch_lock(self) -> Path:
        return self.state / "watch.lock"

    @property
    def notices(self) -> Path:
        """Everything that somebody was told, and whether it arrived."""
        return self.state / "notices.jsonl"


def folder_bytes(folder: Path) -> int:
    """Size of every regular file below `folder`, in bytes; links are not followed."""
    total = 0
    for path, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in files)
    return total
