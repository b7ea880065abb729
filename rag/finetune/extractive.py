"""Fine-tuning of the extractive reader: all weights, all places of an answer.

The loss is `-log p(answer)`, where the probability of an answer is summed over every place where it
stands in the passages shown, each passage normalised together with the others of its question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.finetune.examples import ReadingExample, dev_metrics
from rag.finetune.loop import length_buckets
from rag.params import Params
from rag.reading.abstention import AnswerScore
from rag.reading.extractive import WEIGHTS, ExtractiveReader, token_spans
from rag.records import Answer

if TYPE_CHECKING:
    import torch


class ExtractiveReaderTraining:
    """A `ReaderTraining`; an example is a question with its passages."""

    def __init__(
        self,
        reader: ExtractiveReader,
        params: Params,
        examples: Sequence[ReadingExample],
        dev: Sequence[ReadingExample],
        scores: Mapping[str, AnswerScore],
    ) -> None:
        self._reader = reader
        self._dev = dev
        self._scores = scores
        self._batch_tokens = params.reader.training.batch_tokens
        self._question_ids = []
        self._readings = []
        self._spans = []
        for example in examples:
            readings = [
                reader.read(example.question.text, passage.text) for passage in example.passages
            ]
            wanted = list(example.question.answers) if example.target else [""]
            spans = [token_spans(reading, wanted) for reading in readings]
            if any(spans):
                self._question_ids.append(example.question.question_id)
                self._readings.append(readings)
                self._spans.append(spans)
        self.lengths = [
            max(len(reading.ids) for reading in readings) * len(readings)
            for readings in self._readings
        ]

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return dict(self._reader.model.named_parameters())

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, self._batch_tokens, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [self._question_ids[i] for i in batch]

    def loss(self, batch: Sequence[int]) -> torch.Tensor:
        import torch

        readings = [reading for i in batch for reading in self._readings[i]]
        start, end = self._reader.logits(readings)
        counts = [len(self._readings[i]) for i in batch]
        losses = []
        for i, starts, ends in zip(batch, start.split(counts), end.split(counts), strict=True):
            places = [(p, a, b) for p, spans in enumerate(self._spans[i]) for a, b in spans]
            passage, first, last = map(list, zip(*places, strict=True))
            spans = starts[passage, first] + ends[passage, last]
            total = starts.flatten().logsumexp(0) + ends.flatten().logsumexp(0)
            losses.append(total - spans.logsumexp(0))
        return torch.stack(losses).mean()

    def evaluate(self) -> Mapping[str, float]:
        return dev_metrics(self.answer(self._dev), self._dev, self._scores)

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as the reader stands now."""
        return self._reader.answer(
            [example.question.text for example in examples],
            [example.passages for example in examples],
        )

    def train_mode(self, training: bool) -> None:
        self._reader.model.train(training)

    def save(self, folder: Path) -> None:
        """The weights and their config as safetensors."""
        self._reader.model.config.name_or_path = self._reader.params.model
        self._reader.model.save_pretrained(str(folder / WEIGHTS))
