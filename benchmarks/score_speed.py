"""`ragloop score` against the calls that it replaces: time, values, memory up to a million answers.

    python benchmarks/score_speed.py                       # 10,000 answers, both sides; a minute
    python benchmarks/score_speed.py --reference-resamples 10000      # nothing extrapolated
    python benchmarks/score_speed.py --scale 100000 300000 1000000    # time and memory alone
    python benchmarks/score_speed.py --scale 1000000 --resamples 10000

Ours is the whole command in a process of its own: start, reading, scoring, 10,000 resamples, JSON.
Theirs starts its clock after imports and reading. It scores each example once: SQuAD's rules as the
metric of `evaluate` states them (its script is not in the package and would be fetched),
rouge_score, sacrebleu. Then each is resampled as its users do: rouge_score's `BootstrapAggregator`,
`corpus_score(n_bootstrap=...)` of sacrebleu, and numpy for exact match and F1. The time of their
resampling is proportional to the number of resamples: by default it is measured on 1,000 and
multiplied by 10 (sacrebleu holds all its draws at once: 5 GB for 10,000). Compare seconds of
processor time where the machine is shared. Everything is seeded; questions are clusters of one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from score_speed_libraries import reference

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

COUNT, RESAMPLES, SEED = 10_000, 10_000, 13
SCALE_RESAMPLES = 1_000
WORDS, ANSWERS, ARTICLE_SHARE, COPIED, EDITED = 20_000, 3, 0.1, 0.4, 0.4
QUESTIONS_OF_AN_ARTICLE = 250
METRICS = ("exact_match", "f1", "bleu", "rouge1", "rouge2", "rougeL")


def main() -> None:
    """Prints the comparison, or with --scale a row for each number of answers."""
    options = _options()
    if options.child:
        print(json.dumps(reference(Path(options.child), options.reference_resamples)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.scale:
            print_scale(Path(folder), options.scale, options.resamples or SCALE_RESAMPLES)
        else:
            compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Both sides on the same files, one after the other."""
    write_files(folder, options.count)
    print(f"{options.count:,} answers, {RESAMPLES:,} resamples, one core\n")
    ours = timed(score_command(folder, RESAMPLES))
    found = json.loads(ours.output)["metrics"]
    command = [sys.executable, __file__, "--child", str(folder)]
    arguments = ["--reference-resamples", str(options.reference_resamples)]
    theirs = json.loads(timed([*command, *arguments]).output)
    factor = RESAMPLES / options.reference_resamples
    cpu = theirs["scoring"]["cpu"] + factor * theirs["resampling"]["cpu"]
    wall = theirs["scoring"]["wall"] + factor * theirs["resampling"]["wall"]
    extrapolated = "" if factor == 1 else f", resampling x {factor:g} from {theirs['resamples']:,}"
    print(f"{'':<12}{'wall s':>9}{'cpu s':>9}")
    print(f"{'ours':<12}{ours.wall:>9.2f}{ours.cpu:>9.2f}   whole command, {ours.peak_mb:.0f} MB")
    print(f"{'libraries':<12}{wall:>9.2f}{cpu:>9.2f}   after imports{extrapolated}")
    print(f"{'ratio':<12}{wall / ours.wall:>9.1f}{cpu / ours.cpu:>9.1f}\n")
    exact = exact_values(folder)
    print(f"{'metric':<13}{'ours':>12}{'difference':>12}{'interval':>18}{'libraries':>18}")
    for name in METRICS:
        low, high = found[name]["low"], found[name]["high"]
        low_theirs, high_theirs = theirs["intervals"][name]
        print(
            f"{name:<13}{exact[name]:>12.6f}{abs(exact[name] - theirs['values'][name]):>12.1e}"
            f"{f'{low:.3f}-{high:.3f}':>18}{f'{low_theirs:.3f}-{high_theirs:.3f}':>18}"
        )
    largest = max(abs(exact[name] - theirs["values"][name]) for name in METRICS)
    print(f"\nlargest difference in values: {largest:.1e} points")


def print_scale(folder: Path, counts: list[int], resamples: int) -> None:
    """Time and peak memory of the command alone, for growing numbers of answers."""
    print(f"{resamples:,} resamples; seconds are processor time\n")
    print(f"{'answers':>10}{'cpu s':>9}{'us/answer':>11}{'peak MB':>9}")
    for count in counts:
        write_files(folder, count)
        whole = timed(score_command(folder, resamples))
        print(
            f"{count:>10,}{whole.cpu:>9.1f}{1e6 * whole.cpu / count:>11.1f}{whole.peak_mb:>9.0f}",
            flush=True,
        )


@dataclass(frozen=True)
class Timed:
    """What a process printed and what it cost."""

    output: str
    wall: float
    cpu: float
    peak_mb: float


def timed(command: list[str]) -> Timed:
    """Runs a command on one thread; the peak memory is its own, not that of earlier commands."""
    watched = (
        "import json, resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)\n"
        "wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.stdout, wall, used.ru_utime + used.ru_stime, used.ru_maxrss]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *command],
        env={**_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    output, wall, cpu, peak_kb = json.loads(done.stdout)
    return Timed(output, wall, cpu, peak_kb / 1024)


def score_command(folder: Path, resamples: int) -> list[str]:
    """The command as a user types it, with JSON output."""
    files = [str(folder / "predictions.json"), str(folder / "references.json")]
    start = [sys.executable, "-m", "flows.cli", "score", *files]
    return [*start, "--json", "--resamples", str(resamples), "--seed", str(SEED)]


def write_files(folder: Path, count: int) -> None:
    """Predictions and SQuAD references, seeded: spans of 1 to 4 words and sentences of 8 to 25."""
    generator = random.Random(SEED)
    letters = string.ascii_lowercase
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(WORDS)]
    words = ["sea" if word in ("an", "the") else word for word in words]
    weights = [1.0 / (rank + 10) for rank in range(WORDS)]
    cumulative = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)

    def text(size: int) -> str:
        chosen = generator.choices(words, cum_weights=cumulative, k=size)
        chosen = ["the " + word if generator.random() < ARTICLE_SHARE else word for word in chosen]
        if size > 4:
            chosen[size // 2] += ","
            return " ".join(chosen).capitalize() + "."
        return " ".join(word.capitalize() for word in chosen)

    def edited(answer: str) -> str:
        kept = [word for word in answer.split() if generator.random() < 0.8]
        kept += generator.choices(words, k=generator.randint(0, 3))
        # Not an article alone: SQuAD's script would take it for nothing, and we do not.
        return " ".join(kept) if {*map(str.lower, kept)} - {"the"} else answer

    question, context = text(10), text(40)  # not scored, but read
    with (
        (folder / "predictions.json").open("w") as predictions,
        (folder / "references.json").open("w") as references,
    ):
        predictions.write("{")
        references.write('{"version": "v2.0", "data": [')
        for start in range(0, count, QUESTIONS_OF_AN_ARTICLE):
            paragraphs = []
            for number in range(start, min(start + QUESTIONS_OF_AN_ARTICLE, count)):
                is_span = generator.random() < 0.5
                answer = text(generator.randint(1, 4) if is_span else generator.randint(8, 25))
                accepted = [answer]
                while len(accepted) < ANSWERS and generator.random() < 0.5:
                    accepted.append(edited(answer))
                fate = generator.random()
                guess = (
                    answer if fate < COPIED else edited(answer) if fate < COPIED + EDITED else ""
                )
                row = {"id": f"q{number:07d}", "question": question, "is_impossible": False}
                row["answers"] = [{"text": each, "answer_start": 0} for each in accepted]
                paragraphs.append({"context": context, "qas": [row]})
                comma = "," if number else ""
                predictions.write(f"{comma}\n{json.dumps(row['id'])}: {json.dumps(guess)}")
            comma = "," if start else ""
            references.write(f"{comma}\n{json.dumps({'title': 't', 'paragraphs': paragraphs})}")
        predictions.write("}\n")
        references.write("]}\n")


def exact_values(folder: Path) -> dict[str, float]:
    """Our values before they are rounded for the output."""
    from rag.evaluation.score_inputs import read_predictions, read_references
    from rag.evaluation.score_table import score_table
    from rag.evaluation.statistics import Resampling

    predictions = read_predictions(folder / "predictions.json")
    gold = read_references(folder / "references.json")
    texts = [predictions.get(name) for name in gold.question_ids]
    table = score_table(texts, gold.question_ids, gold.answers, gold.clusters, stem=False)
    found = table.intervals(table.answerable, Resampling(1, 0.95, SEED))
    return {name: interval.value for name, interval in found.items()}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--reference-resamples", type=int, default=1_000)
    parser.add_argument("--scale", type=int, nargs="+")
    parser.add_argument("--resamples", type=int, help="of --scale")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
