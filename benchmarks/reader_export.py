"""What a tuned reader is worth in each form that it can be served in: size, speed and answers.

    python benchmarks/reader_export.py PROJECT [--questions 100] [--rounds 3]

PROJECT is a folder in which `ragloop run` trained a reader with reader.export=adapter. All forms
answer the same dev questions from the passages that retrieval gave; they take turns, and the ratio
is the median over the rounds. F1 is in percent, its difference from the adapter's with a 95 %
interval that resamples documents. An adapter needs the base model's file on top of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import token_f1
from rag.evaluation.statistics import paired_bootstrap
from rag.finetune.examples import ReadingExample
from rag.finetune.export import save_tuned
from rag.finetune.reader import reading_data
from rag.params import ReaderParams, load_params
from rag.reading.quantized import quantize_linears, sample_inputs
from rag.reading.reader import load_reader, manifest_examples, manifest_temperature, read_manifest
from rag.records import Answer

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Form:
    """A way to serve a reader."""

    name: str
    precision: str
    is_merged: bool = False
    quantize: str = "none"
    output: bool = False
    """Whether int8 takes the output matrix too."""


FORMS = (
    Form("adapter bfloat16", "bfloat16"),
    Form("merged bfloat16", "bfloat16", is_merged=True),
    Form("merged float32", "float32", is_merged=True),
    Form("int8", "bfloat16", quantize="int8"),
    Form("int8 and output matrix", "bfloat16", quantize="int8", output=True),
)


@dataclass(frozen=True)
class Served:
    """A reader ready to answer, and what it took to get there."""

    reader: Any
    disk_megabytes: float
    load_seconds: float


def main() -> None:
    arguments = _arguments()
    artifacts = Artifacts(arguments.project)
    dev_questions = f"reader.training.dev_questions={arguments.questions}"
    params = load_params(artifacts.params, [dev_questions])
    if read_manifest(artifacts.reader).get("export") != "adapter":
        raise SystemExit(f"{artifacts.reader}: expected an adapter, reader.export=adapter")
    dev = reading_data(params, artifacts).dev
    with tempfile.TemporaryDirectory() as folder:
        forms = {form: _open(form, params.reader, artifacts, Path(folder)) for form in FORMS}
        answers, seconds = _take_turns(forms, dev, arguments.rounds)
    _print(forms, dev, answers, seconds)


def _open(form: Form, params: ReaderParams, artifacts: Artifacts, scratch: Path) -> Served:
    training = params.training.model_copy(update={"precision": form.precision})
    chosen = {"export": "merged" if form.is_merged else "adapter", "quantize": form.quantize}
    params = params.model_copy(update={"training": training, **chosen})
    manifest = read_manifest(artifacts.reader)

    def load(folder: Path) -> Any:
        return load_reader(
            params,
            artifacts.weights_cache,
            folder,
            prior_temperature=manifest_temperature(manifest),
            examples=manifest_examples(manifest, params.examples),
        )

    folder = artifacts.reader
    if form.is_merged:
        adapted = load(folder)
        folder = scratch / form.name
        save_tuned(adapted.model, folder, params, adapted.tokenizers)
        (folder / "reader.json").write_bytes((artifacts.reader / "reader.json").read_bytes())
    load(folder)  # files are read from the disk once
    started = time.perf_counter()
    reader = load(folder)
    if form.output:
        quantize_linears(reader.model, sample_inputs(reader.tokenizer), output=True)
    seconds = time.perf_counter() - started
    names = ("adapter", "weights")
    files = [file for name in names for file in (folder / name).rglob("*") if file.is_file()]
    return Served(reader, sum(file.stat().st_size for file in files) / _MEGABYTE, seconds)


def _take_turns(
    forms: dict[Form, Served], dev: Sequence[ReadingExample], rounds: int
) -> tuple[dict[Form, list[Answer]], dict[Form, list[float]]]:
    questions = [example.question.text for example in dev]
    passages = [example.passages for example in dev]
    answers: dict[Form, list[Answer]] = {}
    seconds: dict[Form, list[float]] = {form: [] for form in forms}
    for served in forms.values():
        served.reader.answer(questions[:4], passages[:4])
    for number in range(rounds):
        # Every other round backwards, so that none always follows the same one.
        for form in list(forms)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            answers[form] = forms[form].reader.answer(questions, passages)
            seconds[form].append(time.perf_counter() - started)
            print(f"{form.name}: {seconds[form][-1]:.1f} s", file=sys.stderr, flush=True)
    return answers, seconds


def _print(
    forms: dict[Form, Served],
    dev: Sequence[ReadingExample],
    answers: dict[Form, list[Answer]],
    seconds: dict[Form, list[float]],
) -> None:
    reference = FORMS[0]
    scores = {
        form: [
            100 * token_f1(answer.text, example.question.answers)
            for answer, example in zip(found, dev, strict=True)
        ]
        for form, found in answers.items()
    }
    documents = [example.question.document_id or example.question.question_id for example in dev]
    print(f"{len(dev)} questions of {len(set(documents))} documents")
    print(f"{'':24}  MB  load s  quest./s  times faster       F1  difference        same answers")
    for form, served in forms.items():
        ratios = [own / other for own, other in zip(seconds[reference], seconds[form], strict=True)]
        gap = paired_bootstrap(
            scores[form],
            scores[reference],
            documents,
            resamples=10_000,
            confidence=0.95,
            seed=13,
            bounds=(-100.0, 100.0),
        )
        same = [
            one.text == other.text
            for one, other in zip(answers[form], answers[reference], strict=True)
        ]
        print(
            f"{form.name:22}{served.disk_megabytes:6.0f}{served.load_seconds:8.1f}"
            f"{len(dev) / statistics.median(seconds[form]):10.2f}"
            f"{statistics.median(ratios):7.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f"{statistics.fmean(scores[form]):9.1f}"
            f"{gap.value:+7.1f} ({gap.low:+.1f} to {gap.high:+.1f})"
            f"{100 * statistics.fmean(same):9.0f} %"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
