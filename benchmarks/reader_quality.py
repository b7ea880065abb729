"""How well readers answer on articles not seen in training: each fusion, its baselines, the oracle.

    python benchmarks/reader_quality.py --data DATA
    python benchmarks/reader_quality.py ... --set-name squad2 --systems concat_1 --baselines never

Every paragraph of a set is in the corpus; the last six articles are test, the six before them dev,
and train questions come from the rest: all questions of paragraphs that are spread evenly, at most
`--train` of them. Retrieval is the hybrid of the project; the first line has its recall. Systems
are trained and asked through the stages and the class that serve, with params.yaml and what
SYSTEMS names; `--state` keeps what is finished, so that a run can go on, and `--set` changes
a parameter of all of them. Intervals resample the test articles' paragraphs.

closed_book, zero_shot, one_shot   the untuned model: no passages; none or one worked example
concat_1, rag_sequence_3, ...      tuned: the fusion and the passages read; dev chose the step
rag_sequence_1, rag_token_3        the weights of rag_sequence_3, read otherwise
oracle                             the best tuned system, given the gold passage
never                              the best tuned system, which may not decline to answer
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from retrieval_quality import DataSet, prepare

from rag.artifacts import Artifacts
from rag.evaluation.evaluate import answer_questions
from rag.evaluation.scoring import compare_systems, summarize
from rag.finetune.examples import evenly, gold_passages
from rag.params import Params, load_params
from rag.reading.answerer import QuestionAnswerer
from rag.records import (
    PREDICTIONS,
    QUESTIONS,
    Question,
    read_chunks,
    read_questions,
    read_table,
    write_table,
)
from rag.stages import run_stage

ROOT = Path(__file__).resolve().parent.parent
SETS = {
    "squad": DataSet(("squad_en/squad-v1.1-36-articles.json.xz",), 6),
    "squad2": DataSet(("squad_en/squad-v2.0-articles.json.xz",), 6),
}
STAGES = ("chunk", "train_retriever", "embed", "retrieve")
UNTUNED = ("closed_book", "zero_shot", "one_shot")
BASELINES = (*UNTUNED, "oracle")
#: Learnt from one passage a question, the one that answers it, and from what is asked of it.
FROM_ONE = ("reader.training.passages=1", "reader.training.question_weight=0.3")
#: What a system changes in params.yaml.
SYSTEMS: Mapping[str, Sequence[str]] = {
    "concat_1": ("reader.passages=1",),
    "rag_sequence_3": ("reader.fusion=rag_sequence", "reader.passages=3", *FROM_ONE),
    "extractive_3": (
        "reader.kind=extractive",
        "reader.model=bundled:minilm",
        "reader.fusion=rag_sequence",
        "reader.passages=3",
        "reader.lora=null",
        "reader.training.epochs=4",
        "reader.training.learning_rate=0.0001",
        "reader.training.batch_tokens=4096",
    ),
    "concat_3": (
        "reader.passages=3",
        "reader.max_prompt_tokens=800",
        "reader.training.batch_tokens=2048",
        "reader.training.epochs=1",
    ),
}
#: Systems that are another's weights, and how they are read.
READ_OTHERWISE: Mapping[str, tuple[str, Sequence[str]]] = {
    "rag_sequence_1": ("rag_sequence_3", ("reader.passages=1",)),
    "rag_token_3": ("rag_sequence_3", ("reader.fusion=rag_token",)),
}
METRICS = ("exact_match", "f1", "bleu", "rougeL", "abstention_rate")


def main() -> None:
    """Prints the table of all systems and the differences that matter, as Markdown."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = Artifacts((options.state or Path(temporary)) / options.set_name)
        params = load_params(ROOT / "params.yaml", options.set)
        _prepare(artifacts, params, options)
        found = {name: _system(name, name, artifacts, options) for name in options.systems}
        best = max(found, key=lambda name: float(found[name].facts["dev"]["dev_f1"]))
        for name, (of, _) in READ_OTHERWISE.items():
            if of in found:
                found[name] = _system(name, of, artifacts, options)
        for name in options.baselines:
            of = options.systems[0] if name in UNTUNED else best
            found[name] = _system(name, of, artifacts, options)
        _report(found, best, params)


def _prepare(artifacts: Artifacts, params: Params, options: argparse.Namespace) -> None:
    """Data and retrieval, once for all systems."""
    if not artifacts.fusion.is_file():
        shutil.rmtree(artifacts.root, ignore_errors=True)
        prepare(SETS[options.set_name], options.data, artifacts, None)
        train = read_questions(artifacts.questions, "train")
        kept = [
            *_whole_paragraphs(train, options.train),
            *evenly(read_questions(artifacts.questions, "dev"), options.dev),
            *evenly(read_questions(artifacts.questions, "test"), options.test),
        ]
        write_table(kept, QUESTIONS, artifacts.questions)
        for stage in STAGES:
            run_stage(stage, params, artifacts)


def _whole_paragraphs(questions: Sequence[Question], count: int) -> list[Question]:
    """All questions of as many evenly spread paragraphs as give at most `count`."""
    of: dict[str | None, list[Question]] = {}
    for question in questions:
        of.setdefault(question.document_id, []).append(question)
    kept: list[Question] = []
    for paragraphs in range(1, len(of) + 1):
        chosen = [item for name in evenly(list(of), paragraphs) for item in of[name]]
        if len(chosen) > count:
            break
        kept = chosen
    return kept


@dataclass(frozen=True)
class Result:
    """`records.PREDICTIONS` of one system, and what it took."""

    table: pa.Table
    facts: Mapping[str, Any]


def _system(name: str, of: str, artifacts: Artifacts, options: argparse.Namespace) -> Result:
    """One system's answers, kept for the next call; `of` is the tuned one whose folder it uses."""
    own = artifacts.root / "systems" / name
    table, facts = own / "predictions.parquet", own / "facts.json"
    if not facts.is_file():
        settings = () if name in UNTUNED else SYSTEMS[of]
        if name in READ_OTHERWISE:
            settings = (*settings, *READ_OTHERWISE[name][1])
        params = load_params(ROOT / "params.yaml", [*options.set, *settings, *_DEV])
        project = _project(artifacts, artifacts.root / "systems" / of)
        found: dict[str, Any] = {"of": of}
        if name in SYSTEMS:
            started = time.monotonic()
            run_stage("train_reader", params, project)
            found["train_seconds"] = time.monotonic() - started
            manifest = json.loads((project.reader / "reader.json").read_text(encoding="utf-8"))
            found["dev"] = manifest["dev"]
        started = time.monotonic()
        rows = _answers(name, project, params)
        found["answer_seconds"] = time.monotonic() - started
        own.mkdir(parents=True, exist_ok=True)
        write_table(rows, PREDICTIONS, table)
        facts.write_text(json.dumps(found), encoding="utf-8")
        print(f"{name}: {found}", flush=True)
    return Result(read_table(table), json.loads(facts.read_text(encoding="utf-8")))


def _answers(name: str, project: Artifacts, params: Params) -> list[dict[str, Any]]:
    system: Any = name if name in (*UNTUNED, "oracle") else "tuned"
    answerer = QuestionAnswerer.load(project, params, system)
    questions = read_questions(project.questions, "test")
    gold = None
    if name == "oracle":
        gold = gold_passages(questions, read_chunks(project.chunks))
    if name == "never":
        answerer = answerer.unchecked()
        answerer.reader.may_refuse = False  # type: ignore[attr-defined]
    rows = answer_questions(answerer, questions, name, gold=gold)
    answerer.close()
    return rows


#: Dev questions that choose the threshold, and tell which system is the best.
_DEV = ("reader.training.dev_questions=200", "reader.training.evaluations=1")


def _project(shared: Artifacts, root: Path) -> Artifacts:
    """A project of its own for one system, over the data and the index of all."""
    project = Artifacts(root, shared.state)
    for part in ("prepare", "chunk", "embed", "retrieve", "models/retriever"):
        link = project.data / part
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((shared.data / part).resolve())
    return project


def _report(found: Mapping[str, Result], best: str, params: Params) -> None:
    tables = {name: _named(result.table, name) for name, result in found.items()}
    metrics = summarize(
        pa.concat_tables(tables.values()),
        resamples=params.evaluate.resamples,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    recall = ", ".join(
        f"{name} {metrics['systems'][best][name]['value']:.1f}" for name in ("recall@1", "recall@5")
    )
    print(f"\n{metrics['n_questions']} test questions, {recall}; the best on dev is {best}\n")
    print(f"| system | {' | '.join(METRICS)} | training, s | answering, s |")
    print(f"|---|{'---|' * (len(METRICS) + 2)}")
    for name, of in metrics["systems"].items():
        cells = [f"{of[m]['value']:.1f} ({of[m]['low']:.1f}, {of[m]['high']:.1f})" for m in METRICS]
        facts = found[name].facts
        train = f"{facts['train_seconds']:.0f}" if "train_seconds" in facts else "-"
        print(f"| {name} | {' | '.join(cells)} | {train} | {facts['answer_seconds']:.0f} |")
    print("\n| difference | f1 | exact_match |\n|---|---|---|")
    for other in found:
        if other == best:
            continue
        differences = compare_systems(
            tables[best],
            tables[other],
            resamples=params.evaluate.resamples,
            confidence=params.evaluate.confidence,
            seed=params.seed,
        )
        cells = [
            f"{differences[m].value:+.1f} ({differences[m].low:+.1f}, {differences[m].high:+.1f})"
            for m in ("f1", "exact_match")
        ]
        print(f"| {best} - {other} | {' | '.join(cells)} |")


def _named(table: pa.Table, name: str) -> pa.Table:
    column = table.schema.get_field_index("system")
    return table.set_column(column, "system", pa.array([name] * len(table)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--set-name", choices=SETS, default="squad")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--train", type=int, default=2000, help="questions to train on, at most")
    parser.add_argument("--dev", type=int, default=400)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--state", type=Path, help="folder that keeps what is finished")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--baselines", type=lambda text: text.split(","), default=list(BASELINES))
    options = parser.parse_args()
    for option, known in (("systems", SYSTEMS), ("baselines", (*BASELINES, "never"))):
        if unknown := set(getattr(options, option)) - set(known):
            parser.error(f"--{option}: {', '.join(unknown)}; known: {', '.join(known)}")
    return options


if __name__ == "__main__":
    main()
