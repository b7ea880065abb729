"""BM25 vectors for texts in any script, made by Qdrant's own tokenizers.

`qdrant_edge.Bm25` has two tokenizers that matter: `Word` keeps numbers but takes a run of Chinese
for one word, `Multilingual` segments Chinese, Japanese and Korean but drops every number (measured
with qdrant-edge-py 0.9.0). Both hash a word to the same id, so a text is tokenised by what it
contains: with East Asian letters by `Multilingual` plus its numbers by `Word`, otherwise by `Word`.
Full-width letters and digits are made ordinary ones first (Unicode NFKC): either may be typed. The
inverse document frequency is applied by the index (sparse vectors with the IDF modifier).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_EAST_ASIAN = re.compile(r"[⺀-鿿가-힯豈-﫿ｦ-ﾟ]")
_NUMBER = re.compile(r"\d+")
_TERM_SATURATION = 1.2
_LENGTH_NORMALISATION = 0.75


@dataclass(frozen=True)
class SparseVector:
    """Term ids and their weights, both of shape (T,)."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


class Bm25Encoder:
    """`average_tokens` is the mean length of the indexed texts: the point of no length penalty."""

    def __init__(self, average_tokens: float) -> None:
        import qdrant_edge

        tokenizers = qdrant_edge.TokenizerType
        self._words = self._model(tokenizers.Word, average_tokens, _LENGTH_NORMALISATION)
        self._segments = self._model(tokenizers.Multilingual, average_tokens, _LENGTH_NORMALISATION)
        # Numbers alone are no text of a length, so they carry no length normalisation.
        self._numbers = self._model(tokenizers.Word, average_tokens, 0.0)

    @staticmethod
    def _model(tokenizer: Any, average_tokens: float, normalisation: float) -> Any:
        from qdrant_edge import Bm25, Bm25Config

        return Bm25(
            Bm25Config(
                k=_TERM_SATURATION,
                b=normalisation,
                avg_len=average_tokens,
                tokenizer=tokenizer,
                language="english",
            )
        )

    def passage(self, text: str) -> SparseVector:
        """Term-frequency weights of an indexed text."""
        return self._embed(text, "embed_document")

    def query(self, text: str) -> SparseVector:
        """Weight 1 for each distinct term of a question."""
        return self._embed(text, "embed_query")

    def _embed(self, text: str, method: str) -> SparseVector:
        text = unicodedata.normalize("NFKC", text)
        if not _EAST_ASIAN.search(text):
            return _sparse([getattr(self._words, method)(text)])
        numbers = " ".join(_NUMBER.findall(text))
        return _sparse(
            [getattr(self._segments, method)(text), getattr(self._numbers, method)(numbers)]
        )


def _sparse(parts: list[Any]) -> SparseVector:
    weights: dict[int, float] = {}
    for part in parts:
        weights |= dict(zip(part.indices, part.values, strict=True))
    indices = np.array(sorted(weights), dtype=np.uint32)
    return SparseVector(indices, np.array([weights[i] for i in indices.tolist()], dtype=np.float32))
