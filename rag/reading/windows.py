"""Passages as an encoder sees them: in windows where they are long, and token by token.

A passage that does not fit is read in windows that share some tokens. Each of its tokens belongs to
one window, the one in which it has the most text around it: what two windows share is divided in
its middle. So a passage is one row of tokens however many windows it took, and no span of it counts
twice. Place 0 of the row is the null answer, and place t the passage's t-th token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import ReaderParams

IntMatrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """What goes through the model at once; its null answer stands at position 0."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True)
class Reading:
    """A question with one passage of T tokens."""

    windows: tuple[Window, ...]
    tokens: IntMatrix
    """The window of each token and its position there, shape (T, 2)."""
    offsets: list[tuple[int, int]]
    """The characters of each token."""
    text: str

    def between(self, first: int, last: int) -> str:
        """The passage's text from place `first` to place `last`; the null answer is empty."""
        if first == 0:
            return ""
        return self.text[self.offsets[first - 1][0] : self.offsets[last - 1][1]].strip()


class WindowReader:
    """Tokenises questions with passages; windows have at most `max_prompt_tokens`."""

    def __init__(self, tokenizer: Any, config: Any, params: ReaderParams) -> None:
        self._tokenizer = tokenizer
        own_limit = getattr(config, "max_position_embeddings", params.max_prompt_tokens)
        self._limit = min(params.max_prompt_tokens, tokenizer.model_max_length, own_limit)
        special = tokenizer.num_special_tokens_to_add(pair=True)
        # Half of a window is left for the passage, so that windows always move on.
        self._question_tokens = self._limit // 2 - special
        self._stride = params.stride_tokens
        if self._stride >= self._limit // 2:
            raise ModelError(
                f"model {params.model!r} reads {self._limit} tokens at once: reader.stride_tokens "
                f"must be below half of that, got {self._stride}"
            )

    def read(self, questions: Sequence[str], texts: Sequence[str]) -> list[Reading]:
        """One reading of each question with the text of the same position."""
        if not questions:
            return []
        coded = self._tokenizer(
            self._shortened(questions),
            list(texts),
            truncation="only_second",
            max_length=self._limit,
            stride=self._stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        windows: list[list[Any]] = [[] for _ in texts]
        for encoding, sample in zip(
            coded.encodings, coded["overflow_to_sample_mapping"], strict=True
        ):
            windows[sample].append(encoding)
        return [self._joined(own, text) for own, text in zip(windows, texts, strict=True)]

    def _shortened(self, questions: Sequence[str]) -> list[str]:
        """Questions cut to the tokens that may be theirs."""
        coded = self._tokenizer(
            list(dict.fromkeys(questions)), add_special_tokens=False, return_offsets_mapping=True
        )
        limit = self._question_tokens
        cut = {
            question: question[: offsets[limit - 1][1]] if len(offsets) > limit else question
            for question, offsets in zip(
                dict.fromkeys(questions), coded["offset_mapping"], strict=True
            )
        }
        return [cut[question] for question in questions]

    def _joined(self, encodings: Sequence[Any], text: str) -> Reading:
        windows: list[Window] = []
        tokens: list[tuple[int, int]] = []
        offsets: list[tuple[int, int]] = []
        for number, encoding in enumerate(encodings):
            inside = [t for t, part in enumerate(encoding.sequence_ids) if part == 1]
            # The first half of what is shared stays with the window before.
            given_back = self._stride - self._stride // 2 if number else 0
            del tokens[len(tokens) - given_back :]
            del offsets[len(offsets) - given_back :]
            skipped = self._stride - given_back if number else 0
            tokens += [(number, t) for t in inside[skipped:]]
            offsets += [encoding.offsets[t] for t in inside[skipped:]]
            windows.append(Window(encoding.ids, encoding.type_ids))
        places = np.array(tokens, dtype=np.int64).reshape(-1, 2)
        return Reading(tuple(windows), places, offsets, text)


def token_spans(reading: Reading, answers: Sequence[str], max_tokens: int) -> list[tuple[int, int]]:
    """(first, last) place of every span that is an answer; (0, 0) for "".

    A span is an answer if its text is, whatever its case and spacing. Where an answer begins or
    ends within tokens wherever it stands, the spans that just cover it take its place. Spans of
    more than `max_tokens` are never given as an answer, and so are none.
    """
    spans = set()
    for answer in answers:
        if not answer.strip():
            spans.add((0, 0))
            continue
        found = list(_covering(reading, answer))
        exact = [(first, last) for first, last, fits in found if fits]
        spans |= set(exact or [(first, last) for first, last, _ in found])
    return sorted((first, last) for first, last in spans if last - first < max_tokens)


def _covering(reading: Reading, answer: str) -> Iterator[tuple[int, int, bool]]:
    """Spans that cover the answer in each of its places, and whether they fit it exactly."""
    words = r"\s+".join(map(re.escape, answer.split()))
    # A place may overlap with the next one, hence the lookahead.
    for match in re.finditer(f"(?=({words}))", reading.text, re.IGNORECASE):
        begin, stop = match.span(1)
        inside = [
            place
            for place, (start, end) in enumerate(reading.offsets, start=1)
            if start < stop and end > begin
        ]
        if inside:
            text = reading.between(inside[0], inside[-1])
            yield inside[0], inside[-1], text_key(text) == text_key(answer)


def text_key(text: str) -> str:
    """The same for texts that are one answer: case and spacing do not count."""
    return " ".join(text.split()).lower()
