"""rag/retrieval/encoder.py against sentence-transformers on the same weights."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.retrieval.encoder import (
    LENGTH_STEP,
    Encoder,
    FloatMatrix,
    equal_length_batches,
    token_batches,
)

TEXTS = [
    "The Petrel sails at 06:40.",
    "Dogs travel free on every route, but not in the saloon of a vessel under charter.",
    "ferry",
    "渡輪在早上六點四十分開出",
    "",
    "Fares: adult 240 kr, child 120 kr, dog 0 kr.",
]


@pytest.fixture(scope="module")
def reference(encoder: Encoder) -> FloatMatrix:
    """What sentence-transformers itself gives for TEXTS."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(encoder.weights.folder), device="cpu")
    vectors: FloatMatrix = model.encode(TEXTS, normalize_embeddings=True)
    return vectors


@pytest.mark.parametrize("batch_tokens", [8, 40, 8192])
def test_vectors_are_those_of_sentence_transformers(
    encoder: Encoder, reference: FloatMatrix, batch_tokens: int
) -> None:
    vectors = encoder.encode(TEXTS, "passage", batch_tokens=batch_tokens)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, 384) == (6, encoder.dimension)
    np.testing.assert_allclose(vectors, reference, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_vectors_do_not_depend_on_the_order_of_texts(
    encoder: Encoder, reference: FloatMatrix
) -> None:
    order = list(range(len(TEXTS)))
    random.Random(3).shuffle(order)
    assert order != sorted(order)
    vectors = encoder.encode([TEXTS[i] for i in order], "query", batch_tokens=64)
    np.testing.assert_allclose(vectors, reference[order], atol=1e-5)


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([], "query").shape == (0, 384)


def test_progress_counts_every_text_once(encoder: Encoder) -> None:
    counts: list[int] = []
    encoder.encode(TEXTS, "passage", batch_tokens=16, progress=counts.append)
    assert len(counts) > 1
    assert sum(counts) == len(TEXTS)


def test_a_prompt_stands_before_the_text_of_its_side(encoder: Encoder, cache: Path) -> None:
    prompted = Encoder(RetrieverParams(query_prompt="query: "), cache, device="cpu")
    expected = encoder.encode(["query: dogs"], "query")
    np.testing.assert_allclose(prompted.encode(["dogs"], "query"), expected, atol=1e-6)
    plain = encoder.encode(["dogs"], "passage")
    np.testing.assert_allclose(prompted.encode(["dogs"], "passage"), plain, atol=1e-6)
    assert not np.allclose(expected, plain, atol=1e-2)
    counts: list[int] = []
    seven = "dogs " * 5  # with [CLS] and [SEP]; nine with the prompt, which are padded to sixteen
    prompted.encode([seven, seven], "query", batch_tokens=16, progress=counts.append)
    assert counts == [1, 1]


def test_a_long_text_is_cut_where_the_params_say(encoder: Encoder, cache: Path) -> None:
    """[CLS], fourteen words and [SEP] are sixteen tokens: what follows changes nothing."""
    short = Encoder(RetrieverParams(max_tokens=16), cache, device="cpu")
    fourteen = "dog " * 14
    cut, longer = short.encode([fourteen, fourteen + "ferry " * 2000], "passage")
    np.testing.assert_allclose(longer, cut, atol=1e-6)
    [whole] = encoder.encode([fourteen + "ferry " * 2000], "passage")
    assert float(whole @ cut) < 0.9


def test_bfloat16_is_close(cache: Path, reference: FloatMatrix) -> None:
    half = Encoder(RetrieverParams(precision="bfloat16"), cache, device="cpu")
    vectors = half.encode(TEXTS, "passage")
    assert vectors.dtype == np.float32
    assert (vectors * reference).sum(axis=1).min() > 0.999
    assert not np.array_equal(vectors, reference)


def test_special_tokens_are_counted(encoder: Encoder) -> None:
    """[CLS] and [SEP]; "06:40" is three tokens; nothing is cut at any length."""
    assert encoder.count_tokens(["", "dog", "the dog", "06:40", "dog " * 999]) == [
        2,
        3,
        4,
        5,
        1001,
    ]


def test_more_tokens_than_the_model_has_positions_are_refused(cache: Path) -> None:
    Encoder(RetrieverParams(max_tokens=512), cache)
    with pytest.raises(ModelError, match=r"max_tokens: bundled:minilm reads at most 512.*got 513"):
        Encoder(RetrieverParams(max_tokens=513), cache)


def mixed_texts(seed: int = 5, count: int = 24) -> list[str]:
    """Texts of 3 to about 60 tokens."""
    generator = random.Random(seed)
    words = ("ferry", "harbour", "ticket", "dog", "north", "06:40", "saloon", "charter", "渡輪")
    return [" ".join(generator.choices(words, k=generator.randrange(1, 40))) for _ in range(count)]


@pytest.mark.parametrize(
    "params",
    [
        RetrieverParams(),
        RetrieverParams(precision="bfloat16"),
        RetrieverParams(backend="openvino"),
        RetrieverParams(backend="openvino", precision="bfloat16"),
        RetrieverParams(backend="openvino", precision="int8"),
    ],
    ids=lambda params: f"{params.backend}-{params.precision}",
)
def test_a_vector_does_not_depend_on_its_batch_by_a_single_bit(
    params: RetrieverParams, cache: Path
) -> None:
    if params.backend == "openvino":
        pytest.importorskip("openvino", reason="needs the extra: pip install ragloop[openvino]")
    encoder = Encoder(params, cache, device="cpu")
    texts = mixed_texts()
    together = encoder.encode(texts, "passage", batch_tokens=8192)
    alone = np.concatenate([encoder.encode([text], "passage") for text in texts])
    few = encoder.encode(texts[::-1], "passage", batch_tokens=200)[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, few)


class TestFingerprint:
    def test_is_the_same_for_the_same_params(self, encoder: Encoder, cache: Path) -> None:
        other = Encoder(RetrieverParams(), cache)
        assert other.passage_fingerprint == encoder.passage_fingerprint
        assert other.query_fingerprint == encoder.query_fingerprint

    def test_changes_with_everything_that_changes_a_vector(self, cache: Path) -> None:
        changed = [
            RetrieverParams(),
            RetrieverParams(precision="bfloat16"),
            RetrieverParams(backend="openvino"),
            RetrieverParams(max_tokens=255),
        ]
        encoders = [Encoder(params, cache) for params in changed]
        assert len({one.passage_fingerprint for one in encoders}) == len(changed)
        assert len({one.query_fingerprint for one in encoders}) == len(changed)

    def test_a_prompt_belongs_to_its_side(self, encoder: Encoder, cache: Path) -> None:
        """A new prompt for questions leaves the passages, and so the index, as they are."""
        query = Encoder(RetrieverParams(query_prompt="query: "), cache)
        assert query.query_fingerprint != encoder.query_fingerprint
        assert query.passage_fingerprint == encoder.passage_fingerprint
        passage = Encoder(RetrieverParams(passage_prompt="passage: "), cache)
        assert passage.query_fingerprint == encoder.query_fingerprint
        assert passage.passage_fingerprint != encoder.passage_fingerprint

    def test_does_not_change_with_where_it_runs_or_how_texts_are_batched(
        self, encoder: Encoder, cache: Path
    ) -> None:
        other = Encoder(RetrieverParams(), cache, device="meta")
        encoder.encode(TEXTS[:2], "query", batch_tokens=16)
        assert other.passage_fingerprint == encoder.passage_fingerprint

    def test_changes_with_the_weights_wherever_they_lie(self, cache: Path, tmp_path: Path) -> None:
        found = []
        for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(content)
            found.append(Encoder(RetrieverParams(model=str(folder)), cache).passage_fingerprint)
        assert found[0] == found[1] != found[2]


@given(st.lists(st.integers(1, 300)), st.integers(1, 1000))
def test_equal_lengths_share_a_batch_within_the_budget(
    lengths: list[int], batch_tokens: int
) -> None:
    batches = equal_length_batches(lengths, batch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        [padded] = {-(-lengths[i] // LENGTH_STEP) for i in batch}
        assert padded * LENGTH_STEP * len(batch) <= batch_tokens or len(batch) == 1


def test_equal_lengths_worked_out_by_hand() -> None:
    """3, 8 and 1 are padded to 8, of which two fit into 16; 9 and 16 to 16, one at a time."""
    assert equal_length_batches([3, 9, 8, 16, 1], 16) == [[1], [3], [0, 2], [4]]


@given(st.lists(st.integers(1, 300)), st.integers(1, 1000))
def test_batches_keep_the_budget_and_hold_every_text_once(
    lengths: list[int], batch_tokens: int
) -> None:
    batches = token_batches(lengths, batch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= batch_tokens or len(batch) == 1
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


def test_batches_worked_out_by_hand() -> None:
    """Longest first: 5 alone would leave room for none; 3 and 2 fill 2 · 3; 2 and 1 fill 2 · 2."""
    assert token_batches([2, 5, 1, 3, 2], 6) == [[1], [3, 0], [4, 2]]
    assert token_batches([], 6) == []
