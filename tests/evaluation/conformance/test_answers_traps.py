"""Every known way in which scorers of answers go wrong, with the right value worked out by hand."""

from __future__ import annotations

import pytest

from rag.evaluation.answer_scores import answer_scores, exact_match, token_f1
from rag.evaluation.bleu import corpus_bleu
from rag.evaluation.rouge import rouge

TRAPS = [
    # An answer that SQuAD's rules strip to nothing would match every other one, and silence.
    ("Zebra", ["A"], 0.0, 0.0),
    ("", ["A"], 0.0, 0.0),
    ("A", ["A"], 1.0, 1.0),
    ("a", ["A"], 1.0, 1.0),
    ("?", ["!"], 0.0, 0.0),
    # Part of a number is not that number.
    ("2019", ["1"], 0.0, 0.0),
    ("in 2019", ["1"], 0.0, 0.0),
    ("in 2019", ["2019"], 0.0, 2 / 3),
    # Chinese: full stops, quotes, widths and spaces are not part of an answer; order is free in F1.
    ("北京。", ["北京"], 1.0, 1.0),
    ("「北京」", ["北京"], 1.0, 1.0),
    ("北 京", ["北京"], 1.0, 1.0),
    ("２０１９年", ["2019年"], 1.0, 1.0),
    ("上海", ["北京"], 0.0, 0.0),
    ("北京市", ["北京"], 0.0, 2 * 2 / 5),
    ("北京是中国的首都", ["中国的首都北京"], 0.0, 2 * 7 / 15),
    # Korean: one token a syllable, as KorQuAD counts, so that a particle does not cost the word.
    ("서울은", ["서울"], 0.0, 2 * 2 / 5),
    # Curly and straight quotes are equal, doubled or single.
    ("the captain’s “log”", ['captain\'s "log"'], 1.0, 1.0),
    ("don’t", ["don't"], 1.0, 1.0),
    # Nothing against nothing is right; nothing against something is wrong, both ways.
    ("", [], 1.0, 1.0),
    ("", [""], 1.0, 1.0),
    (" \n", [], 1.0, 1.0),
    ("text", [], 0.0, 0.0),
    ("", ["text"], 0.0, 0.0),
    # Words that a classifier by substring takes for "no" and "yes".
    ("unknown", ["no"], 0.0, 0.0),
    ("not sure", ["no"], 0.0, 0.0),
    ("yesterday", ["yes"], 0.0, 0.0),
    # Repeating a word earns it once: 2 * 1 / (3 + 1).
    ("dog dog dog", ["dog"], 0.0, 0.5),
    # The best of several answers counts, each metric for itself.
    ("red dog", ["cat", "the dog", "big red dog"], 0.0, 0.8),
]


@pytest.mark.parametrize(("prediction", "answers", "match", "f1"), TRAPS)
def test_one_answer_by_hand(prediction: str, answers: list[str], match: float, f1: float) -> None:
    assert exact_match(prediction, answers) == match
    assert token_f1(prediction, answers) == pytest.approx(f1, abs=1e-12)


def test_all_of_them_at_once_score_the_same() -> None:
    """Counted together, no answer borrows a token from its neighbour."""
    scores = answer_scores([trap[0] for trap in TRAPS], [trap[1] for trap in TRAPS])
    assert scores[:, 0].tolist() == [trap[2] for trap in TRAPS]
    assert scores[:, 1].tolist() == pytest.approx([trap[3] for trap in TRAPS], abs=1e-12)


@pytest.mark.parametrize(
    "text", ["北京是中国的首都", "東京は首都です", "서울은 수도이다", "กรุงเทพ"]
)
def test_identical_text_is_never_0(text: str) -> None:
    assert corpus_bleu([text], [[text]]) == pytest.approx(100.0, abs=1e-9)
    assert rouge(text, [text]) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


def test_a_chinese_answer_with_one_character_wrong() -> None:
    # Of 8 characters 6 match, of 7 pairs 5 (海是 does not), of 6 triples 4, of 5 quadruples 3...
    expected = 100 * (6 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** (1 / 4)
    assert corpus_bleu(["上海是中国的首都"], [["北京是中国的首都"]]) == pytest.approx(
        expected, abs=1e-9
    )
    scores = rouge("上海是中国的首都", ["北京是中国的首都"])
    assert scores == pytest.approx({"rouge1": 6 / 8, "rouge2": 5 / 7, "rougeL": 6 / 8}, abs=1e-12)


def test_accepted_answers_belong_to_their_question() -> None:
    """Nested by stream, each answer of the second question would be one of the first too."""
    predictions = ["a b c d e", "f g h i j"]
    assert corpus_bleu(predictions, [["f g h i j"], ["a b c d e"]]) == 0.0
    assert corpus_bleu(predictions, [["a b c d e", "x"], ["f g h i j"]]) == pytest.approx(100.0)


def test_nothing_is_worth_nothing_but_against_nothing() -> None:
    assert (
        rouge("", ["text"])
        == rouge("text", [])
        == dict.fromkeys(("rouge1", "rouge2", "rougeL"), 0.0)
    )
    assert (
        rouge("", []) == rouge(" ", ["", "x"]) == dict.fromkeys(("rouge1", "rouge2", "rougeL"), 1.0)
    )
    assert corpus_bleu([""], [["text"]]) == 0.0
    assert corpus_bleu([""], [[""]]) == 100.0
