"""BLEU and ROUGE against sacrebleu and rouge_score, and on the texts where those give 0."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from rag.errors import MetricError
from rag.evaluation.bleu import (
    bleu_of,
    bleu_signature,
    bleu_statistics,
    bleu_tokenizer,
    corpus_bleu,
)
from rag.evaluation.rouge import ROUGE_TYPES, rouge, rouge_scores

WORDS = "the a sea eagle, sails daily. from port's harbour-side at 9:30 for $5 (or more) ran"


def random_corpus(seed: int, size: int) -> tuple[list[str], list[list[str]]]:
    generator = random.Random(seed)

    def sentence() -> str:
        return " ".join(generator.choices(WORDS.split(), k=generator.randint(1, 12)))

    references = [[sentence() for _ in range(3)] for _ in range(size)]
    predictions = [
        generator.choice([sentence(), accepted[0], accepted[1] + " daily"])
        for accepted in references
    ]
    return predictions, references


@pytest.mark.parametrize("seed", range(5))
def test_bleu_agrees_with_sacrebleu(seed: int) -> None:
    predictions, references = random_corpus(seed, 40)
    streams = [list(stream) for stream in zip(*references, strict=True)]
    expected = sacrebleu.corpus_bleu(predictions, streams).score
    assert corpus_bleu(predictions, references) == pytest.approx(expected, abs=1e-9)


def test_bleu_of_resamples_agrees_with_sacrebleu() -> None:
    predictions, references = random_corpus(7, 30)
    counts = bleu_statistics(predictions, references)
    drawn = np.random.default_rng(0).integers(0, 30, size=(20, 30))
    scores = bleu_of(counts[drawn].sum(axis=1))
    for chosen, score in zip(drawn, scores, strict=True):
        streams = [[references[row][stream] for row in chosen] for stream in range(3)]
        expected = sacrebleu.corpus_bleu([predictions[row] for row in chosen], streams).score
        assert score == pytest.approx(expected, abs=1e-9)


def test_bleu_smooths_orders_without_a_match_as_sacrebleu_does() -> None:
    predictions, references = ["the eagle never lands here now"], [["the eagle sails on a sea"]]
    expected = sacrebleu.corpus_bleu(predictions, [["the eagle sails on a sea"]]).score
    assert 0.0 < expected == pytest.approx(corpus_bleu(predictions, references), abs=1e-9)


def test_references_are_nested_by_example() -> None:
    predictions = ["The cat sat on the mat. Dogs barked."]
    references = [["The cat sat on the mat. It was a sunny day."]]
    # 8 of 10 words match, 6 of 9 pairs, 5 of 8 triples, 4 of 7 quadruples; 10 words for 13.
    by_hand = 100 * math.exp(1 - 13 / 10) * (8 / 10 * 6 / 9 * 5 / 8 * 4 / 7) ** (1 / 4)
    assert corpus_bleu(predictions, references) == pytest.approx(by_hand, abs=1e-9)
    two = ["a b c d e", "f g h i j"]
    assert corpus_bleu(two, [["a b c d e", "x"], ["f g h i j"]]) == pytest.approx(100.0)
    assert corpus_bleu(two, [["f g h i j"], ["a b c d e"]]) == 0.0


@pytest.mark.parametrize(
    "text",
    ["北京是中国的首都", "北京", "東京は首都です", "서울은 수도이다", "กรุงเทพ", "eagle"],
)
def test_identical_text_of_any_script_scores_100(text: str) -> None:
    assert corpus_bleu([text], [[text]]) == pytest.approx(100.0)
    scores = rouge(text, [text])
    assert (scores["rouge1"], scores["rougeL"]) == (1.0, 1.0)


def test_identical_chinese_scores_0_without_our_tokenizers() -> None:
    text = "北京是中国的首都"
    assert sacrebleu.corpus_bleu([text], [[text]]).score == 0.0
    assert RougeScorer(["rougeL"]).score(text, text)["rougeL"].fmeasure == 0.0


def test_bleu_tokenizer_follows_the_script_of_the_references() -> None:
    assert bleu_tokenizer(["Sea Eagle"]) == "13a"
    assert bleu_tokenizer(["Beijing (北京)"]) == "zh"
    assert bleu_tokenizer(["東京タワー"]) == "char"
    assert bleu_tokenizer(["서울"]) == "char"
    signature = bleu_signature([["Sea Eagle"], ["北京"]])
    assert signature == f"case:mixed|eff:yes|tok:13a+zh|smooth:exp|version:{sacrebleu.__version__}"


def test_bleu_of_nothing() -> None:
    assert corpus_bleu([""], [[""]]) == 100.0
    assert corpus_bleu([""], [["text"]]) == 0.0
    with pytest.raises(MetricError, match="no example"):
        corpus_bleu([], [])
    with pytest.raises(MetricError, match="example 1 has no reference"):
        corpus_bleu(["a", "b"], [["a"], []])
    with pytest.raises(MetricError, match="2 predictions but 1 lists"):
        corpus_bleu(["a", "b"], [["a"]])


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_agrees_with_rouge_score_on_ascii(stem: bool) -> None:
    predictions, references = random_corpus(3, 60)
    scores = rouge_scores(predictions, references, stem=stem)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=stem)
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        expected = scorer.score_multi(accepted, prediction)
        for kind in ROUGE_TYPES:
            assert scores[kind][row] == pytest.approx(expected[kind].fmeasure, abs=1e-9)


def test_stemming_joins_word_forms() -> None:
    assert rouge("running", ["runs"])["rouge1"] == 0.0
    assert rouge("running", ["runs"], stem=True)["rouge1"] == 1.0


def test_rouge_by_hand() -> None:
    # 中 国 的 首 都 北 京 in both; the longest common subsequence is 中国的首都: 5 of 8 and 7.
    scores = rouge("北京是中国的首都", ["中国的首都北京"])
    assert scores["rouge1"] == pytest.approx(14 / 15)
    assert scores["rougeL"] == pytest.approx(10 / 15)
    assert rouge("", [])["rougeL"] == rouge("", [""])["rouge2"] == 1.0
    assert rouge("", ["text"])["rougeL"] == rouge("text", [])["rougeL"] == 0.0
