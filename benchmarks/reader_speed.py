"""Training speed of a reader: this project's loop against `transformers.Trainer`, and the outcome.

    python benchmarks/reader_speed.py squad-v1.1-36-articles.json.xz --reader causal
    python benchmarks/reader_speed.py squad-v1.1-36-articles.json.xz --reader extractive

Both train on the same questions of a SQuAD file's first articles, each with its paragraph, for as
many epochs, at the same learning rate and, for the causal reader, with LoRA of the same rank on the
same kinds of module. Trainer runs at its defaults: float32, eight questions a batch, padding to the
longest of a batch, the losses of transformers' own model classes, adapters on all layers. The
systems take turns, each time in a process of its own, whose largest resident set is its memory;
reading the file and making tokens is not timed. Dev F1 is of questions about the other articles,
answered from their paragraph by this project's reader with either's weights; its intervals resample
articles. `benchmarks/reader_speed_systems.py` has the two systems.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from reader_speed_systems import DEFAULTS, SYSTEMS, Run, Task, dev_scores

from rag.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap


def main() -> None:
    arguments = _arguments()
    task = Task(
        arguments.reader,
        arguments.file,
        arguments.cache,
        arguments.questions,
        arguments.dev_questions,
        arguments.epochs,
        arguments.learning_rate,
        arguments.batch_tokens,
    )
    if arguments.worker:
        run = SYSTEMS[arguments.worker](task, arguments.out)
        (arguments.out / "run.json").write_text(json.dumps(asdict(run)), encoding="utf-8")
        return
    train, dev = task.examples()
    print(
        f"{task.reader}: {len(train)} questions, {task.epochs} epochs, learning rate "
        f"{task.learning_rate:g}; {len(dev)} dev questions\n"
    )
    task.prepare()
    runs: dict[str, list[Run]] = {system: [] for system in SYSTEMS}
    with tempfile.TemporaryDirectory(prefix="ragloop-benchmark-") as folder:
        for number in range(arguments.rounds):
            for system in SYSTEMS:
                runs[system].append(_in_process(system, Path(folder) / f"{system}-{number}"))
        scores = {name: dev_scores(task, Path(folder) / f"{name}-0") for name in SYSTEMS}
    articles = [example.passages[0].document_id for example in dev]
    _show(runs, scores, articles)


def _in_process(system: str, out: Path) -> Run:
    out.mkdir()
    command = [sys.executable, *sys.argv, "--worker", system, "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{system} ended with {done.returncode}:\n{done.stderr}")
    return Run(**json.loads((out / "run.json").read_text(encoding="utf-8")))


def _show(runs: dict[str, list[Run]], scores: dict[str, list[float]], articles: list[str]) -> None:
    print(
        "| system | samples/s | tokens/s | times the Trainer (min, max) | dev F1 | peak memory "
        "| padding | of the GPU |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for system, own in runs.items():
        ratios = [
            base.seconds / run.seconds for base, run in zip(runs["trainer"], own, strict=True)
        ]
        f1 = bootstrap_interval(
            scores[system], articles, resamples=10_000, confidence=0.95, seed=13
        )
        utilisation = max(run.utilisation for run in own)
        print(
            f"| {system} | {statistics.median(run.samples / run.seconds for run in own):.2f} "
            f"| {statistics.median(run.tokens / run.seconds for run in own):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) "
            f"| {_percent(f1)} | {max(run.peak_bytes for run in own) / 2**30:.2f} GiB "
            f"| {100 * (1 - own[0].tokens / own[0].padded_tokens):.0f} % "
            f"| {f'{100 * utilisation:.1f} %' if utilisation else '-'} |"
        )
    difference = paired_bootstrap(
        scores["ragloop"],
        scores["trainer"],
        articles,
        resamples=10_000,
        confidence=0.95,
        seed=13,
    )
    print(f"\ndev F1, ragloop less trainer: {_percent(difference)} points")


def _percent(interval: Interval) -> str:
    ends = (interval.value, interval.low, interval.high)
    return "{:.1f} ({:.1f}, {:.1f})".format(*(100 * end for end in ends))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="SQuAD JSON, also .xz")
    parser.add_argument("--reader", choices=tuple(DEFAULTS), default="causal")
    parser.add_argument("--questions", type=int, help="to train on")
    parser.add_argument("--dev-questions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-tokens", type=int, help="of this project's batches")
    parser.add_argument("--cache", type=Path, default=Path(".ragloop/models"))
    parser.add_argument("--worker", choices=tuple(SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name, value in DEFAULTS[arguments.reader].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


if __name__ == "__main__":
    main()
