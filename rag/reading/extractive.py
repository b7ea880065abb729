"""The extractive reader: an encoder that points at the answer's span in a passage.

Every passage of a question is read on its own, as `[question][passage]`; the probability of a span
is normalised over all passages together, so that a confident passage wins over a hesitant one. The
first position of each passage is its null span: where the null spans win, there is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.params import ReaderParams
from rag.reading.reader import Array, Progress, as_evidence
from rag.records import Answer, Passage
from rag.retrieval.encoder import token_batches
from rag.weights import resolve_weights

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights"
_MAX_TOKENS = 512


@dataclass(frozen=True)
class Reading:
    """One passage as the model sees it; `offsets[t]` are the characters of passage token t."""

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int] | None]
    """None for tokens that are not of the passage: question, special tokens."""
    text: str

    def between(self, first: int, last: int) -> str:
        """The passage's text from token `first` to token `last`."""
        inside = [offset for offset in self.offsets[first : last + 1] if offset is not None]
        return self.text[inside[0][0] : inside[-1][1]]


class ExtractiveReader:
    """A question-answering head on an encoder; untrained where `folder` is None."""

    def __init__(self, params: ReaderParams, cache: Path, folder: Path | None) -> None:
        import torch
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.params = params
        base = resolve_weights(params.model, params.revision, cache).folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # A fixed seed: an encoder without a head gets a new one, the same in every process.
        torch.manual_seed(0)
        model: Any = AutoModelForQuestionAnswering.from_pretrained(
            folder / WEIGHTS if folder is not None else base,
            dtype=torch.float32,
            trust_remote_code=False,
        )
        self.model = model.to(self.device).eval()

    def read(self, question: str, text: str) -> Reading:
        """Tokens of a question with one passage; the passage is cut to what fits."""
        limit = min(self.params.max_prompt_tokens, _MAX_TOKENS)
        coded = self.tokenizer(
            question,
            text,
            truncation="only_second",
            max_length=limit,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        offsets = [
            tuple(offset) if sequence == 1 else None
            for offset, sequence in zip(coded.offset_mapping, coded.sequence_ids(), strict=True)
        ]
        return Reading(coded.input_ids, coded.token_type_ids, offsets, text)

    def logits(self, readings: Sequence[Reading]) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits (N, T); tokens outside the passage, but for the null, are -inf."""
        import torch

        width = max(len(reading.ids) for reading in readings)
        shape = (len(readings), width)
        ids = torch.full(shape, self.tokenizer.pad_token_id)
        types = torch.zeros(shape, dtype=torch.long)
        attention = torch.zeros(shape, dtype=torch.long)
        allowed = torch.zeros(shape, dtype=torch.bool)
        for i, reading in enumerate(readings):
            length = len(reading.ids)
            ids[i, :length] = torch.tensor(reading.ids)
            types[i, :length] = torch.tensor(reading.types)
            attention[i, :length] = 1
            allowed[i, :length] = torch.tensor([offset is not None for offset in reading.offsets])
            allowed[i, 0] = True
        output = self.model(
            input_ids=ids.to(self.device),
            token_type_ids=types.to(self.device),
            attention_mask=attention.to(self.device),
        )
        blocked = ~allowed.to(self.device)
        start = output.start_logits.float().masked_fill(blocked, -torch.inf)
        end = output.end_logits.float().masked_fill(blocked, -torch.inf)
        return start, end

    def answer(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        *,
        progress: Progress | None = None,
    ) -> list[Answer]:
        used = [found[: self.params.passages] for found in passages]
        readings = [
            self.read(question, passage.text)
            for question, found in zip(questions, used, strict=True)
            for passage in found
        ]
        scores = self._all_logits(readings)
        answers: list[Answer] = []
        start = 0
        for found in used:
            own = slice(start, start := start + len(found))
            text, score = self._best_span(readings[own], scores[own])
            answers.append(Answer(text, score, not text, as_evidence(found)))
            if progress is not None:
                progress(1)
        return answers

    def _all_logits(self, readings: Sequence[Reading]) -> list[tuple[Array, Array]]:
        import torch

        found: dict[int, tuple[Array, Array]] = {}
        lengths = [len(reading.ids) for reading in readings]
        with torch.inference_mode():
            for batch in token_batches(lengths, self.params.batch_tokens):
                start, end = self.logits([readings[i] for i in batch])
                for row, i in enumerate(batch):
                    found[i] = (
                        start[row, : lengths[i]].cpu().numpy(),
                        end[row, : lengths[i]].cpu().numpy(),
                    )
        return [found[i] for i in range(len(readings))]

    def _best_span(
        self, readings: Sequence[Reading], scores: Sequence[tuple[Array, Array]]
    ) -> tuple[str, float]:
        """The likeliest span over all passages and its log probability; "" where null wins."""
        if not readings:
            return "", 0.0
        start_total = _log_sum_exp(np.concatenate([start for start, _ in scores]))
        end_total = _log_sum_exp(np.concatenate([end for _, end in scores]))
        null = max(float(start[0] + end[0]) for start, end in scores)
        best, text = null, ""
        for reading, (start, end) in zip(readings, scores, strict=True):
            spans = start[:, None] + end[None, :]
            width = self.params.max_answer_tokens
            inside = np.triu(np.ones_like(spans, dtype=bool)) & ~np.triu(
                np.ones_like(spans, dtype=bool), width
            )
            inside[0, :] = False
            spans = np.where(inside, spans, -np.inf)
            first, last = np.unravel_index(int(spans.argmax()), spans.shape)
            if spans[first, last] > best:
                best, text = float(spans[first, last]), reading.between(int(first), int(last))
        return text, best - start_total - end_total

    def log_likelihood(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[str],
    ) -> Array:
        widest = max(map(len, passages))
        table = np.full((len(questions), widest), -np.inf, dtype=np.float32)
        cells = [(i, k) for i, found in enumerate(passages) for k in range(len(found))]
        readings = [self.read(questions[i], passages[i][k].text) for i, k in cells]
        for cell, reading, (start, end) in zip(
            cells, readings, self._all_logits(readings), strict=True
        ):
            spans = token_spans(reading, [answers[cell[0]]])
            if spans:
                values = np.array([start[a] + end[b] for a, b in spans])
                table[cell] = _log_sum_exp(values) - _log_sum_exp(start) - _log_sum_exp(end)
        return table


def token_spans(reading: Reading, answers: Sequence[str]) -> list[tuple[int, int]]:
    """(first, last) token of every place where an answer stands in the passage; [(0, 0)] for "".

    An answer that was cut off with the passage's end has no place.
    """
    spans = set()
    for answer in answers:
        if not answer:
            spans.add((0, 0))
            continue
        begin = reading.text.find(answer)
        while begin != -1:
            stop = begin + len(answer)
            inside = [
                token
                for token, offset in enumerate(reading.offsets)
                if offset is not None and offset[0] < stop and offset[1] > begin
            ]
            if inside and _reaches(reading, inside[-1], stop):
                spans.add((inside[0], inside[-1]))
            begin = reading.text.find(answer, begin + 1)
    return sorted(spans)


def _reaches(reading: Reading, token: int, stop: int) -> bool:
    offset = reading.offsets[token]
    return offset is not None and offset[1] >= stop


def _log_sum_exp(values: Array) -> float:
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))
