"""Chunks a second and recall of every encoder backend against `SentenceTransformer.encode`.

All encode the same chunks: the paragraphs of a SQuAD file, cut at 256 tokens. They take turns, and
the ratio is the median over the rounds. Recall@5 is that of the file's questions, asked of all
paragraphs by vectors of the same encoder; its interval resamples articles.

    python benchmarks/encoding.py squad-v1.1-36-articles.json.xz [--questions 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag.evaluation.statistics import paired_bootstrap
from rag.params import RetrieverParams
from rag.retrieval.encoder import Encoder, FloatMatrix

CANDIDATES = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True)
class Task:
    """Paragraphs, questions with the position of their paragraph, and each question's article."""

    passages: list[str]
    questions: list[str]
    gold: list[int]
    articles: list[str]


def main() -> None:
    arguments = _arguments()
    task = _task(arguments.file, arguments.questions)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        reference = Reference(cache, arguments.device)
        encoders = {
            f"{backend} {precision}": Encoder(
                RetrieverParams.model_validate({"backend": backend, "precision": precision}),
                cache,
                device=arguments.device,
            )
            for backend, precision in CANDIDATES
            if arguments.device != "cuda" or backend == "torch"
        }
        _compare(task, reference, encoders, arguments)
        if arguments.device == "cuda":
            _print_ceiling(task, encoders["torch bfloat16"], arguments.batch_tokens)


class Reference:
    """sentence-transformers as its documentation shows it: float32, batches of 32."""

    def __init__(self, cache: Path, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        weights = Encoder(RetrieverParams(), cache).weights
        self._model = SentenceTransformer(str(weights.folder), device=device)
        self._model.max_seq_length = RetrieverParams().max_tokens

    def encode(self, texts: list[str]) -> FloatMatrix:
        vectors: FloatMatrix = self._model.encode(texts, normalize_embeddings=True)
        return vectors


def _compare(
    task: Task,
    reference: Reference,
    encoders: dict[str, Encoder],
    arguments: argparse.Namespace,
) -> None:
    def encode(encoder: Encoder, side: str) -> Callable[[list[str]], FloatMatrix]:
        return lambda texts: encoder.encode(
            texts,
            side,
            batch_tokens=arguments.batch_tokens,  # type: ignore[arg-type]
        )

    lengths = next(iter(encoders.values())).count_tokens(task.passages)
    print(
        f"{len(task.passages)} chunks, {np.minimum(lengths, 256).mean():.0f} tokens on average, "
        f"{len(task.questions)} questions\n"
    )
    systems = {name: encode(encoder, "passage") for name, encoder in encoders.items()}
    for run in (reference.encode, *systems.values()):
        run(task.passages[:32])  # loads, exports, compiles
    seconds: dict[str, list[float]] = {}
    vectors = {}
    for _ in range(arguments.rounds):
        for name, run in {"reference": reference.encode, **systems}.items():
            started = time.perf_counter()
            vectors[name] = run(task.passages)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    base = _hits(vectors["reference"], reference.encode(task.questions), task.gold)
    print("| encoder | chunks/s | times the reference (min, max) | recall@5 | change in points |")
    print("|---|---|---|---|---|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["reference"], times, strict=True)]
        hits, change = base, ""
        if name != "reference":
            hits = _hits(vectors[name], encode(encoders[name], "query")(task.questions), task.gold)
            interval = paired_bootstrap(
                hits, base, task.articles, resamples=10_000, confidence=0.95, seed=13
            )
            change = "{:+.2f} ({:+.2f}, {:+.2f})".format(
                *(100 * end for end in (interval.value, interval.low, interval.high))
            )
        title = "SentenceTransformer.encode" if name == "reference" else name
        print(
            f"| {title} | {len(task.passages) / statistics.median(times):.1f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) | "
            f"{100 * hits.mean():.2f} | {change} |"
        )


def _hits(passages: FloatMatrix, questions: FloatMatrix, gold: list[int]) -> FloatMatrix:
    """1.0 for each question whose paragraph is among the five nearest."""
    scores = questions @ passages.T  # (Q, N)
    best = np.argpartition(-scores, 5, axis=1)[:, :5]
    return (best == np.array(gold)[:, None]).any(axis=1).astype(np.float32)


def _print_ceiling(task: Task, encoder: Encoder, batch_tokens: int) -> None:
    """The share of the GPU's matrix-product rate, measured here, that encoding reaches."""
    import torch

    size = 8192
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    ceiling = 20 * 2 * size**3 / (time.perf_counter() - started)
    lengths = np.minimum(encoder.count_tokens(task.passages), 256)
    # MiniLM: 6 layers of 4 projections 384 x 384 and 2 of 384 x 1536, and attention itself.
    layers, width = 6, 384
    work = 2 * layers * (4 * width**2 + 8 * width**2) * lengths + 4 * layers * width * lengths**2
    started = time.perf_counter()
    encoder.encode(task.passages, "passage", batch_tokens=batch_tokens)
    reached = float(work.sum()) / (time.perf_counter() - started)
    print(
        f"\nmatrix product {ceiling / 1e12:.0f} TFLOP/s, encoding {reached / 1e12:.2f} TFLOP/s: "
        f"{100 * reached / ceiling:.1f} % of it"
    )


def _task(path: Path, limit: int) -> Task:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    task = Task([], [], [], [])
    for number, article in enumerate(articles):
        for paragraph in article["paragraphs"]:
            task.passages.append(paragraph["context"])
            for question in paragraph["qas"]:
                task.questions.append(question["question"])
                task.gold.append(len(task.passages) - 1)
                task.articles.append(str(number))
    step = max(1, len(task.questions) // limit)
    return Task(task.passages, task.questions[::step], task.gold[::step], task.articles[::step])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="SQuAD JSON, also .xz")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
