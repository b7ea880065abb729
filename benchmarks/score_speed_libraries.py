"""The libraries' side of score_speed.py: their values, their resampling, their seconds."""

from __future__ import annotations

import collections
import json
import re
import string
import time
from pathlib import Path
from typing import Any

SEED = 13
PUNCTUATION = frozenset(string.punctuation)


def reference(folder: Path, resamples: int) -> dict[str, Any]:
    """The libraries' values, intervals and seconds; the clock runs after imports and reading."""
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator
    from sacrebleu.metrics.bleu import BLEU

    predictions = json.loads((folder / "predictions.json").read_text())
    articles = json.loads((folder / "references.json").read_text())["data"]
    rows = [row for each in articles for part in each["paragraphs"] for row in part["qas"]]
    texts = [predictions[row["id"]] for row in rows]
    accepted = [[answer["text"] for answer in row["answers"]] for row in rows]
    most = max(map(len, accepted))
    streams = [[each[n] if n < len(each) else None for each in accepted] for n in range(most)]
    clock = Clock()
    squad = np.array(
        [
            [max(rule(text, answer) for answer in answers) for rule in (squad_exact, squad_f1)]
            for text, answers in zip(texts, accepted, strict=True)
        ]
    )
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rouge = [scorer.score_multi(each, text) for text, each in zip(texts, accepted, strict=True)]
    bleu = BLEU(force=True)
    scored = bleu.corpus_score(texts, streams).score
    bleu_alone = Clock()
    bleu.corpus_score(texts, streams)
    again = bleu_alone.read()
    scoring = clock.read(minus=again)
    clock = Clock()
    np.random.seed(SEED)
    aggregator = BootstrapAggregator(confidence_interval=0.95, n_samples=resamples)
    for each in rouge:
        aggregator.add_scores(each)
    aggregated = aggregator.aggregate()
    generator = np.random.default_rng(SEED)
    means = [
        squad[generator.integers(0, len(squad), len(squad))].mean(axis=0) for _ in range(resamples)
    ]
    resampled_bleu = bleu.corpus_score(texts, streams, n_bootstrap=resamples)
    resampling = clock.read(minus=again)
    low, high = np.percentile(means, [2.5, 97.5], axis=0) * 100
    measures = {kind: [each[kind].fmeasure for each in rouge] for kind in scorer.rouge_types}
    middle, half = resampled_bleu._mean, resampled_bleu._ci
    return {
        "resamples": resamples,
        "scoring": scoring,
        "resampling": resampling,
        "values": {
            "exact_match": 100 * squad[:, 0].mean(),
            "f1": 100 * squad[:, 1].mean(),
            "bleu": scored,
            **{kind: 100 * float(np.mean(each)) for kind, each in measures.items()},
        },
        "intervals": {
            "exact_match": (low[0], high[0]),
            "f1": (low[1], high[1]),
            "bleu": (middle - half, middle + half),
            **{
                kind: (100 * found.low.fmeasure, 100 * found.high.fmeasure)
                for kind, found in aggregated.items()
            },
        },
    }


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, minus: dict[str, float] | None = None) -> dict[str, float]:
        """Seconds so far, less those of a call that was made twice."""
        less = minus or {"wall": 0.0, "cpu": 0.0}
        return {
            "wall": time.perf_counter() - self._wall - less["wall"],
            "cpu": time.process_time() - self._cpu - less["cpu"],
        }


def squad_tokens(text: str) -> list[str]:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(each for each in text.lower() if each not in PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_exact(prediction: str, answer: str) -> float:
    """SQuAD's exact match."""
    return float(squad_tokens(prediction) == squad_tokens(answer))


def squad_f1(prediction: str, answer: str) -> float:
    """SQuAD's token F1."""
    ours, theirs = squad_tokens(prediction), squad_tokens(answer)
    common = (collections.Counter(ours) & collections.Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else float(ours == theirs)
