"""The extractive reader: an encoder that points at the answer's span in a passage.

Every passage of a question is read on its own, as `[question][passage]`, a long one in windows. Two
ways of putting passages together:

- `joint`: start and end are each normalised over all passages together, so that a confident passage
  wins over a hesitant one; the answer is the likeliest span of all.
- `rag_sequence`: p(y|x) = sum_z p(z|x) p(y|x,z), each passage normalised alone and weighed by its
  retrieval score; the answer is the likeliest text, wherever it stands.

The first place of each passage is its null answer: where that wins, there is no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.params import ReaderParams
from rag.reading.marginal import passage_prior
from rag.reading.packing import alike_lengths
from rag.reading.prompts import Example
from rag.reading.reader import Array, Progress, as_evidence
from rag.reading.span_model import load_span_model
from rag.reading.spans import Logits, likeliest_span, likeliest_text, log_normaliser
from rag.reading.tuned import model_folder, serving_device
from rag.reading.windows import Reading, Window, WindowReader, token_spans
from rag.records import Answer, Passage
from rag.retrieval.encoder import token_batches

if TYPE_CHECKING:
    import torch

#: Questions whose windows are sorted by length together while answering.
_TOGETHER = 64


class ExtractiveReader:
    """A question-answering head on an encoder; untrained where `folder` is None."""

    def __init__(
        self,
        params: ReaderParams,
        cache: Path,
        folder: Path | None,
        *,
        prior_temperature: float = 1.0,
        examples: Sequence[Example] = (),
    ) -> None:
        """`examples` is what other readers show in a prompt; a span needs none."""
        from transformers import AutoTokenizer

        self.params = params
        self.prior_temperature = prior_temperature
        source = model_folder(params, cache, folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self.device = serving_device(params, folder)
        self.model = load_span_model(source, params, folder, self.device, self.tokenizer)
        self._windows = WindowReader(self.tokenizer, self.model.config, params)
        #: Tokens that went through the model so far, without padding and with it.
        self.tokens_read = self.tokens_padded = 0

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """What is written down beside the weights, by its folder below them."""
        return {"": self.tokenizer}

    def read(self, questions: Sequence[str], passages: Sequence[str]) -> list[Reading]:
        """Each question with the passage of the same position, as tokens."""
        return self._windows.read(questions, passages)

    def groups(self, windows: Sequence[Window]) -> list[list[int]]:
        """Windows of alike lengths, within `batch_tokens`: what goes through the model at once."""
        lengths = [len(window.ids) for window in windows]
        return [
            [group[i] for i in part]
            for group in alike_lengths(lengths)
            for part in token_batches([lengths[i] for i in group], self.params.batch_tokens)
        ]

    def logits(
        self, readings: Sequence[Reading], *, at_once: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits (N, 1 + T) of N passages, null first; -inf where there is no token.

        The null answer of a passage in several windows is the one that is least likely: an answer
        in any window is one of the passage (as for SQuAD 2.0 in Devlin et al. 2019, BERT). With
        `at_once` the model runs once however unlike the windows' lengths.
        """
        import torch

        windows = [window for reading in readings for window in reading.windows]
        groups = [list(range(len(windows)))] if at_once else self.groups(windows)
        base = [0] * len(windows)  # where each window begins among all logits
        parts: list[torch.Tensor] = []
        total = 0
        for group in groups:
            logits = self._forward([windows[i] for i in group])  # (2, n, W)
            for row, i in enumerate(group):
                base[i] = total + row * logits.shape[2]
            total += logits.shape[1] * logits.shape[2]
            parts.append(logits.flatten(1))
        absent = torch.full((2, 1), -torch.inf, device=self.device)
        flat = torch.cat([*parts, absent], 1)  # (2, M + 1)
        places, nulls = _places(readings, base, total)
        null = flat[:, nulls.to(self.device)]  # (2, N, V)
        least = null.sum(0).argmin(1).view(1, -1, 1).expand(2, -1, 1)
        both = torch.cat([null.gather(2, least), flat[:, places.to(self.device)]], 2)
        return both[0], both[1]

    def _forward(self, windows: Sequence[Window]) -> torch.Tensor:
        """Logits of a model's every position, shape (2, n, W), in float32."""
        import torch

        lengths = [len(window.ids) for window in windows]
        shape = (len(windows), max(lengths))
        inputs = {
            "input_ids": torch.full(shape, self.tokenizer.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "token_type_ids": torch.zeros(shape, dtype=torch.long),
        }
        for row, (window, length) in enumerate(zip(windows, lengths, strict=True)):
            inputs["input_ids"][row, :length] = torch.tensor(window.ids)
            inputs["attention_mask"][row, :length] = 1
            inputs["token_type_ids"][row, :length] = torch.tensor(window.types)
        self.tokens_read += sum(lengths)
        self.tokens_padded += shape[0] * shape[1]
        mixed = self.params.training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            output = self.model(
                **{
                    name: tensor.to(self.device)
                    for name, tensor in inputs.items()
                    if name in self.tokenizer.model_input_names
                }
            )
        return torch.stack([output.start_logits, output.end_logits]).float()

    def log_prior(self, passages: Sequence[Sequence[Passage]], width: int) -> torch.Tensor:
        """log p(z|x), shape (B, width); -inf where there is no passage."""
        return passage_prior(passages, width, self.prior_temperature).to(self.device)

    # answering

    def answer(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        *,
        progress: Progress | None = None,
    ) -> list[Answer]:
        used = [tuple(found[: self.params.passages]) for found in passages]
        answers: list[Answer] = []
        for first in range(0, len(used), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            answers += self._answers(questions[part], used[part])
            if progress is not None:
                progress(len(used[part]))
        return answers

    def _answers(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[Answer]:
        readings = self.read(
            [question for question, found in zip(questions, passages, strict=True) for _ in found],
            [passage.text for found in passages for passage in found],
        )
        logits = self._all_logits(readings)
        answers: list[Answer] = []
        start = 0
        for found in passages:
            own = slice(start, start := start + len(found))
            if not found:
                answers.append(Answer("", 0.0, abstained=True))
            else:
                answers.append(self._answer(readings[own], logits[own], found))
        return answers

    def _answer(
        self, readings: Sequence[Reading], logits: Sequence[Logits], passages: Sequence[Passage]
    ) -> Answer:
        width = self.params.max_answer_tokens
        if not self.params.is_marginal:
            text, score = likeliest_span(readings, logits, width)
            return Answer(text, score, not text, as_evidence(passages))
        prior = self.log_prior([passages], len(passages))[0].double().cpu().numpy()
        text, score, posterior = likeliest_text(readings, logits, prior, width)
        return Answer(text, score, not text, as_evidence(passages, posterior))

    def _all_logits(self, readings: Sequence[Reading]) -> list[Logits]:
        import torch

        if not readings:
            return []
        with torch.inference_mode():
            start, end = (part.double().cpu().numpy() for part in self.logits(readings))
        counts = [1 + len(reading.tokens) for reading in readings]
        return [(start[i, :count], end[i, :count]) for i, count in enumerate(counts)]

    def log_likelihood(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[str],
    ) -> Array:
        """log p(y|x,z) as `rag_sequence` has it, whatever the fusion: -inf where y is not in z."""
        widest = max(map(len, passages))
        table = np.full((len(questions), widest), -np.inf, dtype=np.float32)
        for first in range(0, len(questions), _TOGETHER):
            rows = range(first, min(first + _TOGETHER, len(questions)))
            cells = [(i, k) for i in rows for k in range(len(passages[i]))]
            readings = self.read(
                [questions[i] for i, _ in cells], [passages[i][k].text for i, k in cells]
            )
            for cell, reading, (start, end) in zip(
                cells, readings, self._all_logits(readings), strict=True
            ):
                wanted = [answers[cell[0]]]
                spans = token_spans(reading, wanted, self.params.max_answer_tokens)
                if spans:
                    values = [start[a] + end[b] for a, b in spans]
                    table[cell] = np.logaddexp.reduce(values) - log_normaliser([(start, end)])
        return table


def _places(
    readings: Sequence[Reading], base: Sequence[int], absent: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the logits of each passage stand: of its tokens (N, T), of its nulls (N, V).

    `base[w]` is where window w begins and `absent` where there is none; a passage of fewer than V
    windows has its first null again.
    """
    import torch

    places = np.full((len(readings), max(len(r.tokens) for r in readings)), absent)
    nulls = np.empty((len(readings), max(len(r.windows) for r in readings)), dtype=np.int64)
    window = 0
    for row, reading in enumerate(readings):
        own = np.array(base[window : window + len(reading.windows)])
        places[row, : len(reading.tokens)] = own[reading.tokens[:, 0]] + reading.tokens[:, 1]
        nulls[row] = own[0]
        nulls[row, : len(own)] = own
        window += len(own)
    return torch.from_numpy(places), torch.from_numpy(nulls)
