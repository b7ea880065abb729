"""Answers copied from the passages: decoding is left no token that leads away from their words.

A small model that writes freely rewords what it read or misspells it, and an answer that stands in
no passage cannot be given. So a hypothesis may only grow into words that follow one another in a
passage, or into the refusal; it may end where a word ends. Probabilities stay the model's own: what
is impossible is left out, and the rest is not scaled up.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag.corpus.text import CJK
from rag.errors import ModelError
from rag.reading.beam import Steps
from rag.reading.prompts import REFUSAL

if TYPE_CHECKING:
    import torch

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+|\S")
#: A place in a text: which text, and how many bytes into it.
Place = tuple[int, int]


_LAST_WORD = re.compile(rf"[^\W_{CJK}]+\W*$")


def whole_words(text: str) -> str:
    """A text that was cut at a limit of tokens, without its last word, which may be a part of one.

    >>> whole_words("docked for 9 da")
    'docked for 9'
    """
    return _LAST_WORD.sub("", text).strip()


@dataclass(frozen=True)
class Vocabulary:
    """The bytes that each token writes, by which the next token of a text is found."""

    ids: Mapping[bytes, int]
    longest: int
    space_first: bool
    """Whether a word at the start of a text is written with a space in front."""

    def starts_of(self, text: bytes, place: int) -> list[int]:
        """Tokens that write the next bytes of `text` from `place` on."""
        window = text[place : place + self.longest]
        found = (self.ids.get(window[:length]) for length in range(1, len(window) + 1))
        return [token for token in found if token is not None]


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer of bytes (GPT-2, Llama 3, SmolLM) or of SentencePiece (T5).

    Raises ModelError for others: their tokens do not say where a word begins.
    """
    kind = str(tokenizer.backend_tokenizer.decoder)
    special = set(tokenizer.all_special_ids)
    tokens = {i: token for token, i in tokenizer.get_vocab().items() if i not in special}
    if "ByteLevel" in kind:
        of = _byte_of_letter()
        ids = {
            bytes(of[letter] for letter in token): i
            for i, token in tokens.items()
            if all(letter in of for letter in token)
        }
        space_first = False
    elif "Metaspace" in kind or "▁" in kind:
        ids = {token.replace("▁", " ").encode(): i for i, token in tokens.items()}
        space_first = True
    else:
        raise ModelError(
            f"{tokenizer.name_or_path}: answers cannot be copied with this kind of tokenizer; "
            "set reader.verbatim: false"
        )
    return Vocabulary(ids, max(map(len, ids)), space_first)


def _byte_of_letter() -> dict[str, int]:
    """Byte-level tokenizers write each byte as a visible letter (GPT-2's table)."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}


class _Text:
    """A passage as bytes, with the places where a word begins or ends."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        lead = " " if vocabulary.space_first else ""
        self.content = (lead + text).encode()
        spans = [match.span() for match in _WORD.finditer(lead + text)]
        at = _byte_places(lead + text)
        self.starts = [at[start] for start, _ in spans]
        if vocabulary.space_first:
            self.starts = [
                place - 1 for place in self.starts if self.content[place - 1 : place] == b" "
            ]
        self._ends = [at[end] for _, end in spans]
        self._vocabulary = vocabulary
        self._next: dict[int, list[int]] = {}

    def ends_at(self, place: int) -> bool:
        """Whether a word ends there."""
        i = bisect_left(self._ends, place)
        return i < len(self._ends) and self._ends[i] == place

    def next_tokens(self, place: int) -> list[int]:
        if place not in self._next:
            self._next[place] = self._vocabulary.starts_of(self.content, place)
        return self._next[place]


def _byte_places(text: str) -> list[int]:
    """The place in bytes of each character, and of the end."""
    places = [0]
    for character in text:
        places.append(places[-1] + len(character.encode()))
    return places


class Copied:
    """Steps whose hypotheses are copied from texts: those of each source, N of them."""

    def __init__(
        self,
        steps: Steps,
        texts: Sequence[Sequence[str]],
        vocabulary: Vocabulary,
        *,
        end_id: int,
        first_ids: Sequence[int] = (),
        may_refuse: bool = True,
    ) -> None:
        """`first_ids` are tokens that every answer of the model begins with (BART's `<s>`)."""
        self._steps = steps
        self._end_id = end_id
        self._first_ids = tuple(first_ids)
        made = lru_cache(None)(lambda text: _Text(text, vocabulary))
        self._bytes = {token: written for written, token in vocabulary.ids.items()}
        self._texts: list[list[_Text]] = [[made(text) for text in own] for own in texts]
        refusal = made(REFUSAL)
        self._places: list[list[list[Place]]] = []
        for own in self._texts:
            places = [(t, start) for t, text in enumerate(own) for start in text.starts]
            if own and may_refuse:
                own.append(refusal)
                places.append((len(own) - 1, refusal.starts[0]))
            self._places.append([places])
        self._length = 0

    def first(self) -> torch.Tensor:
        log_p = self._steps.first()
        return self._kept(log_p.unsqueeze(1)).squeeze(1)

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        self._length += 1
        log_p = self._steps.next(tokens, parents)
        rows = zip(self._places, tokens.tolist(), parents.tolist(), self._texts, strict=True)
        self._places = [
            [
                self._advanced(places[parent], token, texts)
                for token, parent in zip(own_tokens, own_parents, strict=True)
            ]
            for places, own_tokens, own_parents, texts in rows
        ]
        return self._kept(log_p)

    def _advanced(self, places: list[Place], token: int, texts: Sequence[_Text]) -> list[Place]:
        if self._length <= len(self._first_ids):
            return places
        written = self._bytes.get(token)
        if written is None:
            return []
        return [
            (t, place + len(written))
            for t, place in places
            if texts[t].content.startswith(written, place)
        ]

    def _kept(self, log_p: torch.Tensor) -> torch.Tensor:
        """log p (N, B, V) with -inf at tokens that lead away; sources without texts are free."""
        import torch

        kept = torch.full_like(log_p, -torch.inf)
        for n, (beams, texts) in enumerate(zip(self._places, self._texts, strict=True)):
            for b, places in enumerate(beams):
                if not texts:
                    kept[n, b] = log_p[n, b]
                    continue
                allowed = self._allowed(places, texts)
                kept[n, b, allowed] = log_p[n, b, allowed]
        return kept

    def _allowed(self, places: Sequence[Place], texts: Sequence[_Text]) -> list[int]:
        if self._length < len(self._first_ids):
            return [self._first_ids[self._length]]
        allowed = {token for t, place in places for token in texts[t].next_tokens(place)}
        is_begun = self._length > len(self._first_ids)
        if not places or (is_begun and any(texts[t].ends_at(place) for t, place in places)):
            # A hypothesis that is finished already has no place; its end changes nothing.
            allowed.add(self._end_id)
        return sorted(allowed)
