"""Properties of `ragloop score` on any data: bounds, symmetry, and order that does not matter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.evaluation.answer_scores import answer_scores
from rag.evaluation.bleu import bleu_of, bleu_statistics
from rag.evaluation.rouge import rouge_scores
from rag.evaluation.score_files import score_files
from rag.evaluation.score_table import score_table
from rag.evaluation.statistics import Resampling

#: Of each property; enough to find what was broken on purpose, few enough to be quick.
EXAMPLES = 40

WORD = st.sampled_from(["eagle", "sea", "the", "A", "2019", "北京", "中国", "서울", "は", "’", "?"])
TEXT = st.one_of(st.lists(WORD, max_size=6).map(" ".join), st.text(max_size=12))
ANSWERS = st.lists(TEXT, max_size=3)
ROWS = st.lists(st.tuples(TEXT, ANSWERS), min_size=1, max_size=8)


@settings(max_examples=EXAMPLES)
@given(ROWS)
def test_every_score_is_between_0_and_1(rows: list[tuple[str, list[str]]]) -> None:
    texts, answers = [text for text, _ in rows], [each for _, each in rows]
    scores = answer_scores(texts, answers)
    rouge = rouge_scores(texts, answers)
    for each in (*scores.T, *rouge.values()):
        assert ((each >= 0.0) & (each <= 1.0)).all()
    assert (scores[:, 0] <= scores[:, 1]).all()  # an exact match has F1 1
    assert (rouge["rougeL"] <= rouge["rouge1"] + 1e-12).all()
    bleu = bleu_of(bleu_statistics(texts, [each or [""] for each in answers]))
    assert ((bleu >= 0.0) & (bleu <= 100.0 + 1e-9)).all()


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_f1_and_rouge_are_symmetric(pairs: list[tuple[str, str]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = (answer_scores(x, [[y] for y in z]) for x, z in ((first, second), (second, first)))
    assert (one == other).all()
    rouge, swapped = (
        rouge_scores(first, [[b] for b in second]),
        rouge_scores(second, [[a] for a in first]),
    )
    for kind, scores in rouge.items():
        assert scores == pytest.approx(swapped[kind], abs=1e-12)


@settings(max_examples=EXAMPLES)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_examples_and_answers_is_free(
    rows: list[tuple[str, list[str]]], generator: random.Random
) -> None:
    """What is counted together does not mix: row by row the same bits."""
    order = list(range(len(rows)))
    generator.shuffle(order)
    shuffled = [(rows[row][0], sorted(rows[row][1])) for row in order]
    texts, answers = [text for text, _ in rows], [each or [""] for _, each in rows]
    other_texts, other_answers = (
        [text for text, _ in shuffled],
        [each or [""] for _, each in shuffled],
    )
    assert (answer_scores(texts, answers)[order] == answer_scores(other_texts, other_answers)).all()
    assert (
        bleu_statistics(texts, answers)[order] == bleu_statistics(other_texts, other_answers)
    ).all()
    ours, others = rouge_scores(texts, answers), rouge_scores(other_texts, other_answers)
    assert all((ours[kind][order] == others[kind]).all() for kind in ours)


def dataset(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of predictions and of references, with documents, slices and a few unanswerable."""
    generator = random.Random(seed)
    names = ["Ashby", "the Sea Eagle", "北京大学", "in 2019", "서울", "a harbour town"]
    references = [
        {
            "id": f"q{number}",
            "answers": generator.sample(names, generator.choice([0, 1, 2])),
            "document": generator.choice(["d1", "d2", "d3", None]),
            "kind": generator.choice(["x", "y"]),
        }
        for number in range(30)
    ]
    return [{"id": row["id"], "answer": generator.choice(names)} for row in references], references


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_files_give_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """Values, intervals, slices and the list of missing ids, whatever the order of the lines."""
    predictions, references = dataset(seed)
    outputs = []
    for turn in range(3):
        generator = random.Random(turn)
        files = []
        for name, rows in (("p.jsonl", predictions[:-2]), ("r.jsonl", references)):
            mixed = generator.sample(rows, len(rows)) if turn else rows
            files.append(write_lines(tmp_path / name, mixed))
        per_question = tmp_path / "questions.jsonl"
        found = score_files(*files, resamples=50, by="kind", per_question=per_question)
        outputs.append((json.dumps(found), per_question.read_bytes()))
    assert outputs[0] == outputs[1] == outputs[2]
    assert json.loads(outputs[0][0])["missing"] == ["q28", "q29"]


def test_the_format_of_the_references_changes_nothing(tmp_path: Path) -> None:
    """A SQuAD paragraph is resampled as a document is: the same bits from both formats."""
    rows = [{"id": f"q{n}", "answers": [f"w{n % 4}"], "document": f"d{n // 3}"} for n in range(12)]
    paragraphs = [
        {
            "context": "",
            "qas": [{"id": row["id"], "answers": [{"text": row["answers"][0]}]} for row in part],
        }
        for part in (rows[start : start + 3] for start in range(9, -1, -3))
    ]
    squad = tmp_path / "r.json"
    squad.write_text(json.dumps({"data": [{"paragraphs": [each]} for each in paragraphs]}))
    predictions = tmp_path / "p.json"
    predictions.write_text(json.dumps({row["id"]: "w1 w2" for row in rows}))
    lines = write_lines(tmp_path / "r.jsonl", rows)
    assert score_files(predictions, squad, resamples=80) == score_files(
        predictions, lines, resamples=80
    )


@settings(max_examples=EXAMPLES)
@given(ROWS, st.integers(1, 3))
def test_intervals_hold_within_bounds(rows: list[tuple[str, list[str]]], documents: int) -> None:
    rows = [*rows, ("eagle", ["sea eagle"])]
    ids = [f"q{number:03d}" for number in range(len(rows))]
    clusters = [f"d{number % documents}" for number in range(len(rows))]
    answers = [[text for text in each if text.strip()] for _, each in rows]
    table = score_table([text for text, _ in rows], ids, answers, clusters, stem=False)
    every = np.ones(len(rows), dtype=bool)
    for interval in table.intervals(every, Resampling(20, 0.9, 3)).values():
        assert -1e-9 <= interval.low <= interval.high <= 100.0 + 1e-9
        assert -1e-9 <= interval.value <= 100.0 + 1e-9
