"""Encoder over what train_retriever left: a side tuned alone, both sides, or the model as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.retrieval.encoder import Encoder, write_manifest
from tests.retrieval.test_encoder import TEXTS
from tests.tiny_bert import save_tiny_sentence_transformer


class TestTunedSides:
    """`folder` as train_retriever leaves it, with a tiny model for the tuned side."""

    @pytest.fixture
    def params(self, tmp_path: Path) -> RetrieverParams:
        base = save_tiny_sentence_transformer(tmp_path / "base", seed=1)
        return RetrieverParams(model=str(base), max_tokens=64)

    def test_the_manifest_pins_the_weights(self, tmp_path: Path, cache: Path) -> None:
        encoder = Encoder(RetrieverParams(), cache)
        write_manifest(tmp_path / "passage", RetrieverParams(), encoder.weights, "base")
        assert json.loads((tmp_path / "passage" / "encoder.json").read_text()) == {
            "model": "bundled:minilm",
            "revision": None,
            "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "weights": "base",
        }

    def test_a_tuned_query_side_leaves_the_passages_as_they_are(
        self, params: RetrieverParams, tmp_path: Path, cache: Path
    ) -> None:
        base = Encoder(params, cache, device="cpu")
        folder = tmp_path / "retriever"
        write_manifest(folder / "passage", params, base.weights, "base")
        write_manifest(folder / "query", params, base.weights, "tuned")
        other = save_tiny_sentence_transformer(folder / "query" / "model", seed=2)
        tuned = Encoder(params, cache, folder=folder, device="cpu")
        np.testing.assert_array_equal(tuned.encode(TEXTS, "passage"), base.encode(TEXTS, "passage"))
        assert tuned.passage_fingerprint == base.passage_fingerprint
        expected = Encoder(
            params.model_copy(update={"model": str(other)}), cache, device="cpu"
        ).encode(TEXTS, "query")
        np.testing.assert_array_equal(tuned.encode(TEXTS, "query"), expected)
        assert not np.allclose(tuned.encode(TEXTS, "query"), base.encode(TEXTS, "query"))
        assert tuned.query_fingerprint != base.query_fingerprint

    def test_both_sides_can_share_what_was_tuned(
        self, params: RetrieverParams, tmp_path: Path, cache: Path
    ) -> None:
        base = Encoder(params, cache, device="cpu")
        folder = tmp_path / "retriever"
        write_manifest(folder / "passage", params, base.weights, "tuned")
        write_manifest(folder / "query", params, base.weights, "passage")
        save_tiny_sentence_transformer(folder / "passage" / "model", seed=2)
        tuned = Encoder(params, cache, folder=folder, device="cpu")
        np.testing.assert_array_equal(tuned.encode(TEXTS, "query"), tuned.encode(TEXTS, "passage"))
        assert not np.allclose(tuned.encode(TEXTS, "query"), base.encode(TEXTS, "query"))

    def test_what_was_tuned_from_another_model_is_refused(
        self, params: RetrieverParams, tmp_path: Path, cache: Path
    ) -> None:
        folder = tmp_path / "retriever"
        for side in ("passage", "query"):
            write_manifest(folder / side, params, Encoder(params, cache).weights, "base")
        with pytest.raises(ModelError, match="train_retriever left one with"):
            Encoder(RetrieverParams(), cache, folder=folder)

    def test_a_missing_side_is_named(
        self, params: RetrieverParams, tmp_path: Path, cache: Path
    ) -> None:
        with pytest.raises(ModelError, match=r"passage/encoder.json is missing; run: dvc repro"):
            Encoder(params, cache, folder=tmp_path)
