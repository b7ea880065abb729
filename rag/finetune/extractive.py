"""Fine-tuning of the extractive reader: an adapter or all weights, all places of an answer.

The loss is `-log p(y|x)`, where the probability of an answer is summed over every place where it
stands. `joint` normalises the passages of a question together; `rag_sequence` normalises each alone
and weighs it by p(z|x). Tokens of a question are made once, and a batch goes through the model in
groups of alike length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.finetune.adapters import add_lora
from rag.finetune.examples import ReadingExample, dev_metrics
from rag.finetune.export import save_tuned
from rag.finetune.trainable import Loss, halved, length_buckets
from rag.params import Params
from rag.reading.abstention import AnswerScore
from rag.reading.extractive import ExtractiveReader
from rag.reading.marginal import rag_sequence
from rag.reading.windows import Reading, token_spans
from rag.records import Answer, Passage

if TYPE_CHECKING:
    import torch

Spans = list[tuple[int, int]]


class ExtractiveReaderTraining:
    """A `ReaderTraining`; an example is a question with its passages.

    Examples whose passages do not hold the answer teach nothing and are left out.
    """

    def __init__(
        self,
        reader: ExtractiveReader,
        params: Params,
        examples: Sequence[ReadingExample],
        dev: Sequence[ReadingExample],
        scores: Mapping[str, AnswerScore],
    ) -> None:
        self._reader = reader
        self._params = params.reader
        self._dev = dev
        self._scores = scores
        self._add_adapter(params.seed)
        if self._params.training.gradient_checkpointing:
            reader.model.activation_checkpointing_enable()
        self._question_ids: list[str] = []
        self._passages: list[tuple[Passage, ...]] = []
        self._readings: list[list[Reading]] = []
        self._spans: list[list[Spans]] = []
        """Of each passage of each question, (first, last) of every place of the answer."""
        for example, readings in zip(examples, _tokenised(reader, examples), strict=True):
            wanted = list(example.question.answers) if example.target else [""]
            width = self._params.max_answer_tokens
            spans = [token_spans(reading, wanted, width) for reading in readings]
            if any(spans):
                self._question_ids.append(example.question.question_id)
                self._passages.append(example.passages)
                self._readings.append(readings)
                self._spans.append(spans)
        self.lengths = [
            # As many as are read at a time, where there are more to choose from.
            sum(len(w.ids) for r in readings[: self._params.passages] for w in r.windows)
            for readings in self._readings
        ]

    def _add_adapter(self, seed: int) -> None:
        reader, lora = self._reader, self._params.lora
        if lora is None:
            return
        body = reader.model.base_model_prefix
        head = [
            name
            for name, module in reader.model.named_children()
            if name != body and any(True for _ in module.parameters())
        ]
        reader.model = add_lora(
            reader.model,
            lora,
            # peft's own wrapper for question answering would not pass token types on.
            task="FEATURE_EXTRACTION",
            name=self._params.model,
            seed=seed,
            also_trained=tuple(head),
        )

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {name: p for name, p in self._reader.model.named_parameters() if p.requires_grad}

    def rates(self) -> Mapping[str, float]:
        return {}

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, self._params.training.batch_tokens, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [self._question_ids[i] for i in batch]

    def size(self, batch: Sequence[int]) -> int:
        """Tokens of all windows; groups of alike lengths leave little padding beside them."""
        return sum(self.lengths[i] for i in batch)

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return halved(batch)

    def models(self) -> Sequence[torch.nn.Module]:
        return [self._reader.model]

    def loss(self, batch: Sequence[int]) -> Loss:
        """The mean is over questions."""
        if self._params.is_marginal:
            passages = [self._passages[i] for i in batch]
            prior = self._reader.log_prior(passages, max(map(len, passages)))
            return self.loss_with_prior(batch, prior)[0]
        before = self._reader.tokens_read, self._reader.tokens_padded
        return self._as_loss(self._joint(batch), before)

    def answered_from(self, position: int) -> Sequence[int]:
        """Places of the passages of an example that its answer can be read from: those it is in."""
        return [place for place, spans in enumerate(self._spans[position]) if spans]

    def loss_with_prior(
        self,
        batch: Sequence[int],
        prior: torch.Tensor,
        chosen: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Loss, torch.Tensor]:
        """The marginal loss with log p(z|x) (B, K) given, into which gradient flows too, and
        log p(y|x,z) (B, K).

        `chosen` has the places of the passages that are read, among those of each example: all of
        them where it is None.
        """
        before = self._reader.tokens_read, self._reader.tokens_padded
        likelihood = self.likelihood(batch, chosen)
        log_p = rag_sequence(prior.to(likelihood.device), likelihood)
        return self._as_loss(log_p, before), likelihood

    def likelihood(
        self, batch: Sequence[int], chosen: Sequence[Sequence[int]] | None = None
    ) -> torch.Tensor:
        """log p(y|x,z), shape (B, K), with gradient; -inf where passage z does not hold y."""
        import torch

        if chosen is None:
            chosen = [range(len(self._readings[i])) for i in batch]
        start, end = self._logits(batch, chosen)  # (N, 1 + T)
        cells = [(b, column) for b, own in enumerate(chosen) for column in range(len(own))]
        spans = [self._spans[batch[b]][chosen[b][column]] for b, column in cells]
        held = [n for n, own in enumerate(spans) if own]
        found = _log_sums(_span_logits(start, end, spans), [len(spans[n]) for n in held])
        log_p = found - (start.logsumexp(1) + end.logsumexp(1))[held]
        table = torch.full(
            (len(batch), max(map(len, chosen))),
            -torch.inf,
            device=log_p.device,
        )
        rows, columns = torch.tensor([cells[n] for n in held], device=log_p.device).unbind(1)
        return table.index_put((rows, columns), log_p)

    def _joint(self, batch: Sequence[int]) -> torch.Tensor:
        """log p(y|x), shape (B,), the passages of a question normalised together."""
        start, end = self._logits(batch, [range(len(self._readings[i])) for i in batch])
        spans = [own for i in batch for own in self._spans[i]]
        found = _log_sums(
            _span_logits(start, end, spans), [sum(map(len, self._spans[i])) for i in batch]
        )
        counts = [len(self._readings[i]) for i in batch]
        return found - _log_sums(start.logsumexp(1), counts) - _log_sums(end.logsumexp(1), counts)

    def _logits(
        self, batch: Sequence[int], chosen: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._reader.logits(
            [self._readings[i][k] for i, own in zip(batch, chosen, strict=True) for k in own],
            # Sharded layers have to run equally often in every process.
            at_once=self._params.training.shard_weights,
        )

    def _as_loss(self, log_p: torch.Tensor, before: tuple[int, int]) -> Loss:
        return Loss(
            total=-log_p.sum(),
            weight=float(len(log_p)),
            tokens=self._reader.tokens_read - before[0],
            padded_tokens=self._reader.tokens_padded - before[1],
        )

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
        """The adapter, or all weights where params ask for them, as safetensors."""
        save_tuned(self._reader.model, folder, self._params, self._reader.tokenizers)

    def serve(self, reader: ExtractiveReader) -> None:
        """From here on answers are those of `reader`: what was saved, loaded as it is served."""
        self._reader = reader


def _tokenised(reader: ExtractiveReader, examples: Sequence[ReadingExample]) -> list[list[Reading]]:
    """The readings of each example's passages, all made at once."""
    shown = [(example.question.text, p.text) for example in examples for p in example.passages]
    readings = iter(reader.read([question for question, _ in shown], [text for _, text in shown]))
    return [[next(readings) for _ in example.passages] for example in examples]


def _span_logits(start: torch.Tensor, end: torch.Tensor, spans: Sequence[Spans]) -> torch.Tensor:
    """Start plus end logit of every span, `spans[n]` being those of passage n: shape (S,)."""
    import torch

    places = [(n, first, last) for n, own in enumerate(spans) for first, last in own]
    passages, first, last = torch.tensor(places, device=start.device).unbind(1)
    return start[passages, first] + end[passages, last]


def _log_sums(values: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """log of the sum of exp over runs of values, shapes (S,) and (G,), where run g is `counts[g]`
    long."""
    import torch

    runs = values.split(list(counts))
    rows = torch.nn.utils.rnn.pad_sequence(runs, batch_first=True, padding_value=-torch.inf)
    return rows.logsumexp(1)
