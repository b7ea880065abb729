"""rag/retrieval/bm25.py: the terms of texts in any script, and weights worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rag.retrieval.bm25 import Bm25Encoder

K, B = 0.9, 0.75


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
def test_a_latin_word_is_the_same_term_beside_chinese(bm25: Bm25Encoder, word: str) -> None:
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
    # 2 · 1.9 / (2 + 0.9 · (0.25 + 0.75 · 3/4)) and 1 · 1.9 / (1 + 0.9 · 0.8125)
    assert found == pytest.approx({ferry: 3.8 / 2.73125, petrel: 1.9 / 1.73125}, rel=1e-6)
    assert weight(2, 3, 4.0) == pytest.approx(3.8 / 2.73125)


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
def test_terms_are_counted_whatever_their_number(count: int) -> None:
    vector = Bm25Encoder(10.0).passage("ferry " * count)
    np.testing.assert_allclose(vector.values, [weight(count, count, 10.0)], rtol=1e-6)


def test_a_longer_text_than_average_weighs_less() -> None:
    for average in (2.0, 3.0, 30.0):
        values = Bm25Encoder(average).passage("petrel kiosk kennel").values
        np.testing.assert_allclose(values, [weight(1, 3, average)] * 3, rtol=1e-6)


def test_numbers_and_latin_words_count_for_the_length_of_a_chinese_text(bm25: Bm25Encoder) -> None:
    """渡輪 is two segments and the pair of both; 240 and "petrel" make five terms."""
    vector = bm25.passage("渡輪240 petrel")
    assert len(vector.indices) == 5
    np.testing.assert_allclose(vector.values, [weight(1, 5, 4.0)] * 5, rtol=1e-6)


def test_a_pair_that_is_a_word_is_one_term(bm25: Bm25Encoder) -> None:
    """北京 is a word of the segmenter and a pair; 是 is a word, 京是 and 是北 are pairs."""
    vector = bm25.passage("北京是北京")
    found = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    [beijing] = terms(bm25, "北京")
    assert len(found) == 4
    assert found[beijing] == pytest.approx(weight(2, 5, 4.0))


def test_korean_particles_do_not_hide_a_noun(bm25: Bm25Encoder) -> None:
    assert terms(bm25, "서울은 어디") & terms(bm25, "서울에서 출발한다")
    assert not terms(bm25, "부산은") & terms(bm25, "서울에서")


def test_japanese_words_are_found_within_a_sentence(bm25: Bm25Encoder) -> None:
    assert terms(bm25, "タワー") <= terms(bm25, "東京タワーは高いです")


@pytest.mark.parametrize("word", ["ภูเก็ต", "क्या", "புத்தகம்", "မြန်မာ"])
def test_vowel_signs_do_not_cut_a_word(bm25: Bm25Encoder, word: str) -> None:
    assert len(terms(bm25, word)) == 1
    assert terms(bm25, word) <= terms(bm25, f"{word} petrel 3")


@pytest.mark.parametrize(
    ("text", "same"),
    [("२०२०", "2020"), ("٣ كتاب", "كتاب 3"), ("naïve café", "naive cafe"), ("Привет", "привет")],
)
def test_digits_accents_and_case_are_made_alike(bm25: Bm25Encoder, text: str, same: str) -> None:
    assert terms(bm25, text) == terms(bm25, same)


def test_average_length_is_in_terms() -> None:
    """3 (two distinct), 1 of 3 words ("the" and "of" are none), 4 (see above), and nothing."""
    texts = ["petrel ferry ferry", "the ferry of", "北京是", "?!"]
    # 北京, 是, and the pair 京是
    assert Bm25Encoder.average_length(texts) == (3 + 1 + 3 + 0) / 4
    assert Bm25Encoder.average_length(iter(texts)) == (3 + 1 + 3 + 0) / 4
    assert Bm25Encoder.average_length(["ferry"] * 3000 + ["ferry kiosk"] * 3000) == 1.5


@pytest.mark.parametrize("texts", [[], ["?!", "the"]])
def test_texts_without_terms_have_the_length_of_one(texts: list[str]) -> None:
    assert Bm25Encoder.average_length(texts) == 1.0


def test_many_passages_are_the_single_ones_in_order(bm25: Bm25Encoder) -> None:
    texts = [f"ferry {number} 渡輪" for number in range(2500)]
    for text, vector in zip(texts, bm25.passages(texts), strict=True):
        single = bm25.passage(text)
        np.testing.assert_array_equal(vector.indices, single.indices)
        np.testing.assert_array_equal(vector.values, single.values)


def test_a_query_weighs_each_distinct_term_once(bm25: Bm25Encoder) -> None:
    vector = bm25.query("ferry ferry petrel 240 240")
    assert vector.values.tolist() == [1.0] * 3
    assert set(bm25.query("渡輪 ferry 240 240").values.tolist()) == {1.0}
    assert vector.indices.dtype == np.uint32
    assert vector.values.dtype == np.float32


def test_term_ids_are_ascending(bm25: Bm25Encoder) -> None:
    indices = bm25.passage("kiosk petrel 渡輪 06:40 fulmar gannet").indices
    assert np.all(np.diff(indices.astype(np.int64)) > 0)
