"""rag/retrieval/bm25.py: the terms of texts in any script, and weights worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rag.retrieval.bm25 import Bm25Encoder

K, B = 1.2, 0.75


@pytest.fixture(scope="module")
def bm25() -> Bm25Encoder:
    return Bm25Encoder(4.0)


def terms(bm25: Bm25Encoder, text: str) -> set[int]:
    return set(bm25.query(text).indices.tolist())


def weight(count: int, length: int, average: float, b: float = B) -> float:
    """The term-frequency part of BM25 (Robertson and Zaragoza 2009, equation 3.15)."""
    return count * (K + 1) / (count + K * (1 - b + b * length / average))


@pytest.mark.parametrize(
    ("text", "parts"),
    [("06:40", ["06", "40"]), ("240 kr", ["240", "kr"]), ("Berth 3, A380", ["berth", "3", "a380"])],
)
def test_numbers_are_terms(bm25: Bm25Encoder, text: str, parts: list[str]) -> None:
    assert terms(bm25, text) == set().union(*(terms(bm25, part) for part in parts))
    assert len(terms(bm25, text)) == len(parts)


def test_chinese_is_segmented(bm25: Bm25Encoder) -> None:
    sentence = terms(bm25, "渡輪在早上開出")
    assert terms(bm25, "渡輪") < sentence
    assert terms(bm25, "早上") < sentence
    assert not terms(bm25, "票價") & sentence


def test_a_mixed_text_has_the_terms_of_both_scripts(bm25: Bm25Encoder) -> None:
    mixed = terms(bm25, "渡輪 Petrel 在 06:40 開出, 票價240元")
    for part in ("渡輪", "Petrel", "petrel", "06:40", "票價", "240"):
        assert terms(bm25, part), part
        assert terms(bm25, part) <= mixed, part


@pytest.mark.parametrize("word", ["petrel", "Petrel", "kiosk", "sailing"])
def test_a_latin_word_is_the_same_term_in_both_tokenizers(bm25: Bm25Encoder, word: str) -> None:
    """With a Chinese character the text goes to the other tokenizer."""
    assert terms(bm25, f"{word} 渡輪") - terms(bm25, "渡輪") == terms(bm25, word)


def test_full_width_forms_are_the_ordinary_ones(bm25: Bm25Encoder) -> None:
    assert terms(bm25, "２４０元") == terms(bm25, "240元")
    assert terms(bm25, "Ｐｅｔｒｅｌ") == terms(bm25, "Petrel")


def test_endings_and_function_words_do_not_matter(bm25: Bm25Encoder) -> None:
    assert terms(bm25, "The ferries were sailing") == terms(bm25, "ferry sails")


@pytest.mark.parametrize("text", ["", "  ", "?!", "！", "the of and"])
def test_a_text_without_terms_has_none(bm25: Bm25Encoder, text: str) -> None:
    assert bm25.passage(text).indices.shape == (0,)
    assert bm25.query(text).values.shape == (0,)


def test_weights_of_a_passage_by_hand() -> None:
    """ "ferry" twice in three terms, where the average is 4 tokens."""
    bm25 = Bm25Encoder(4.0)
    vector = bm25.passage("petrel ferry ferry")
    found = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    [ferry], [petrel] = terms(bm25, "ferry"), terms(bm25, "petrel")
    # 2 · 2.2 / (2 + 1.2 · (0.25 + 0.75 · 3/4)) and 1 · 2.2 / (1 + 1.2 · 0.8125)
    assert found == pytest.approx({ferry: 4.4 / 2.975, petrel: 2.2 / 1.975}, rel=1e-6)
    assert weight(2, 3, 4.0) == pytest.approx(4.4 / 2.975)


def test_a_longer_text_than_average_weighs_less() -> None:
    for average in (2.0, 3.0, 30.0):
        values = Bm25Encoder(average).passage("petrel kiosk kennel").values
        np.testing.assert_allclose(values, [weight(1, 3, average)] * 3, rtol=1e-6)


def test_numbers_beside_chinese_have_no_length_penalty(bm25: Bm25Encoder) -> None:
    vector = bm25.passage("渡輪240")
    found = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    [number] = terms(bm25, "240")
    assert found[number] == pytest.approx(weight(1, 1, 4.0, b=0.0)) == pytest.approx(1.0)


def test_a_query_weighs_each_distinct_term_once(bm25: Bm25Encoder) -> None:
    vector = bm25.query("ferry ferry petrel 240 240")
    assert vector.values.tolist() == [1.0] * 3
    assert set(bm25.query("渡輪 ferry 240 240").values.tolist()) == {1.0}
    assert vector.indices.dtype == np.uint32
    assert vector.values.dtype == np.float32


def test_term_ids_are_ascending(bm25: Bm25Encoder) -> None:
    indices = bm25.passage("kiosk petrel 渡輪 06:40 fulmar gannet").indices
    assert np.all(np.diff(indices.astype(np.int64)) > 0)
