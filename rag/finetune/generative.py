"""Fine-tuning of readers that write text: the loss of each fusion, over answer tokens alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.finetune.adapters import add_lora
from rag.finetune.examples import ReadingExample, dev_metrics
from rag.finetune.export import save_tuned
from rag.finetune.frozen_layers import FrozenLayers, can_split
from rag.finetune.trainable import Loss, halved
from rag.params import Params
from rag.reading.abstention import AnswerScore
from rag.reading.causal import ROW_TOKENS, CausalReader
from rag.reading.generative import GenerativeReader, Source
from rag.reading.marginal import rag_sequence, rag_token
from rag.reading.packing import pack, question_batches, total_tokens
from rag.records import Answer
from rag.retrieval.relevance import contains

if TYPE_CHECKING:
    import torch

_MEGABYTE = 1_000_000
_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


class GenerativeReaderTraining:
    """A `ReaderTraining` over questions; batches hold questions about the same passages together.

    The loss is -log p(y|x) by the fusion that params name: of RAG the marginal over the passages.
    """

    def __init__(
        self,
        reader: GenerativeReader,
        params: Params,
        examples: Sequence[ReadingExample],
        dev: Sequence[ReadingExample],
        scores: Mapping[str, AnswerScore],
    ) -> None:
        self._reader: Any = reader
        self._params = params.reader
        self._dev = dev
        self._scores = scores
        self._examples = examples
        self._sources = [
            reader.sources(example.question.text, example.passages) for example in examples
        ]
        self._answers = [reader.answer_ids(example.target) for example in examples]
        self._costs = [
            # As many as are read at a time, where there are more to choose from.
            [reader.cost(source, answer) for source in sources[: params.reader.passages]]
            for sources, answer in zip(self._sources, self._answers, strict=True)
        ]
        self._batches = self._batches_of(params.reader.training.batch_tokens)
        if params.reader.lora is not None:
            reader_model = add_lora(
                self._reader.model,
                params.reader.lora,
                task=_TASKS[params.reader.kind],
                name=params.reader.model,
                seed=params.seed,
                also_trained=reader.new_modules,
            )
            self._reader.model = reader_model
        if params.reader.training.gradient_checkpointing:
            self._reader.model.activation_checkpointing_enable()
        self._remember_frozen_layers()

    def _batches_of(self, batch_tokens: int) -> list[list[int]]:
        return question_batches(self._costs, batch_tokens)

    def _remember_frozen_layers(self) -> None:
        """What frozen layers make of a batch is remembered where there is a second epoch.

        Not where weights are sharded: every process has to run every layer equally often.
        """
        lora, training = self._params.lora, self._params.training
        if not isinstance(self._reader, CausalReader):
            return
        self._reader.in_one_pass = training.shard_weights
        if lora is None or not lora.frozen_layers or not self._batches:
            return
        if training.gradient_checkpointing or training.shard_weights:
            return
        limit = training.cache_mb * _MEGABYTE if training.epochs > 1 else 0
        source = self._sources[0][0]
        [row] = pack([self._reader.prompt(source)], [self._answers[0]], ROW_TOKENS)
        if can_split(self._reader, lora.frozen_layers, [row]):
            self._reader.states = FrozenLayers(self._reader, lora.frozen_layers, limit)

    @property
    def reader(self) -> Any:
        """The reader as it stands now, or what `serve` has put in its place."""
        return self._reader

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {name: p for name, p in self._reader.model.named_parameters() if p.requires_grad}

    def rates(self) -> Mapping[str, float]:
        return {}

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        batches = list(self._batches)
        random.Random(seed + epoch).shuffle(batches)
        return batches

    def names(self, batch: Sequence[int]) -> list[str]:
        return [self._examples[i].question.question_id for i in batch]

    def size(self, batch: Sequence[int]) -> int:
        return total_tokens([self._costs[i] for i in batch])

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return halved(batch)

    def models(self) -> list[torch.nn.Module]:
        return [self._reader.model]

    def loss(self, batch: Sequence[int]) -> Loss:
        import torch

        before = self._reader.tokens_read, self._reader.tokens_padded
        sources = [self._sources[i] for i in batch]
        if self._params.training.question_weight:
            return self._loss_with_questions(batch, before)
        if self._params.is_marginal:
            passages = [self._examples[i].passages for i in batch]
            prior = self._reader.log_prior(passages, max(map(len, sources)))
            return self.loss_with_prior(batch, prior)[0]
        tokens, _ = self._token_log_probabilities(batch, sources)
        return self._loss(batch, torch.stack([own.sum() for own in tokens]), before)

    def _loss_with_questions(self, batch: Sequence[int], before: tuple[int, int]) -> Loss:
        """-log p(y|x,z) - share · log p(x|z), of one source a question: one pass has both.

        So the reader learns which passage a question was asked of, and weighs passages by it later.
        A passage that does not answer its question teaches nothing of it.
        """
        import torch

        share = self._params.training.question_weight
        answers = [self._answers[i] for i in batch]
        found = self._reader.question_log_probabilities(
            [self._sources[i][0] for i in batch], answers
        )
        parts = [
            tokens.split([len(tokens) - len(answer), len(answer)])
            for tokens, answer in zip(found, answers, strict=True)
        ]
        loss = self._loss(batch, torch.stack([answer.sum() for _, answer in parts]), before)
        asked = [
            question
            for i, (question, _) in zip(batch, parts, strict=True)
            if self._examples[i].target
        ]
        return replace(
            loss,
            total=loss.total - share * torch.stack([own.sum() for own in asked]).sum()
            if asked
            else loss.total,
            weight=loss.weight + share * sum(map(len, asked)),
        )

    def answered_from(self, position: int) -> Sequence[int]:
        """Places of the passages of an example that its answer can be read from: all of them."""
        return range(len(self._sources[position]))

    def loss_with_prior(
        self,
        batch: Sequence[int],
        prior: torch.Tensor,
        chosen: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Loss, torch.Tensor]:
        """The marginal loss by a prior log p(z|x) (B, K) that is given, and log p(y|x,z) (B, K).

        `chosen` has the places of the passages that are read, among those of each example: all of
        them where it is None. With `training.refusal_weight`, -log p(refusal|x,z) of the passages
        that do not hold the answer is added: the marginal alone teaches them nothing, since they do
        not explain the answer, and a wrong passage goes on answering as surely as the right one.
        """
        before = self._reader.tokens_read, self._reader.tokens_padded
        sources: list[Sequence[Source]] = [self._sources[i] for i in batch]
        if chosen is not None:
            sources = [[own[k] for k in of] for own, of in zip(sources, chosen, strict=True)]
        tokens, refusals = self._token_log_probabilities(batch, sources)
        prior = prior.to(self._reader.device)
        likelihood = padded(tokens, [len(own) for own in sources], prior.shape[1])  # (B, K, T)
        whole = likelihood.sum(-1)
        by_token = self._params.fusion == "rag_token"
        log_p = rag_token(prior, likelihood) if by_token else rag_sequence(prior, whole)
        return self._loss(batch, log_p, before, refusals), whole

    def _token_log_probabilities(
        self, batch: Sequence[int], sources: Sequence[Sequence[Source]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """log p of the answers' tokens, one tensor (T,) for each source of each question.

        Then of the refusal's tokens, for each source that is to learn it.
        """
        answers = [self._answers[i] for i in batch]
        flat = [source for own in sources for source in own]
        refusing = self._refusing(batch, sources) if self._params.training.refusal_weight else []
        found: list[torch.Tensor] = self._reader.token_log_probabilities(
            [*flat, *refusing],
            [answer for own, answer in zip(sources, answers, strict=True) for _ in own]
            + [self._reader.answer_ids("")] * len(refusing),
        )
        return found[: len(flat)], found[len(flat) :]

    def _refusing(self, batch: Sequence[int], sources: Sequence[Sequence[Source]]) -> list[Source]:
        """Sources of answerable questions whose passage holds none of the accepted answers.

        Whatever document it is of: a passage with the same words may well answer.
        """
        return [
            source
            for i, own in zip(batch, sources, strict=True)
            for source in own
            if self._examples[i].target
            and not any(
                contains(text, answer)
                for text in source.passages
                for answer in self._examples[i].question.answers
            )
        ]

    def _loss(
        self,
        batch: Sequence[int],
        log_p: torch.Tensor,
        before: tuple[int, int],
        refusals: Sequence[torch.Tensor] = (),
    ) -> Loss:
        """The loss from log p(y|x) (B,); `before` has the reader's counts of tokens until then."""
        share = self._params.training.refusal_weight
        total = -log_p.sum()
        for tokens in refusals:
            total = total - share * tokens.sum()
        return Loss(
            total=total,
            weight=sum(len(self._answers[i]) for i in batch) + share * sum(map(len, refusals)),
            tokens=self._reader.tokens_read - before[0],
            padded_tokens=self._reader.tokens_padded - before[1],
        )

    def evaluate(self) -> Mapping[str, float]:
        return dev_metrics(self.answer(self._dev), self._dev, self._scores)

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as the reader stands now."""
        found: list[Answer] = self._reader.answer(
            [example.question.text for example in examples],
            [example.passages for example in examples],
        )
        return found

    def train_mode(self, training: bool) -> None:
        self._reader.model.train(training)

    def save(self, folder: Path) -> None:
        """The adapter, or all weights where params ask for them, as safetensors."""
        save_tuned(self._reader.model, folder, self._params, self._reader.tokenizers)

    def serve(self, reader: GenerativeReader) -> None:
        """From here on answers are those of `reader`: what was saved, loaded as it is served."""
        self._reader = reader


def padded(tokens: Sequence[torch.Tensor], counts: Sequence[int], width: int) -> torch.Tensor:
    """log p of tokens (B, K, T) from one tensor a source, `counts[b]` of them for question b.

    What is not there is 0: a token more changes no sum, and a passage more has no prior.
    """
    import torch

    longest = max(len(own) for own in tokens)
    rows = iter(torch.nn.functional.pad(own, (0, longest - len(own))) for own in tokens)
    questions = []
    for count in counts:
        own = [next(rows) for _ in range(count)]
        own += [torch.zeros_like(own[0])] * (width - count)
        questions.append(torch.stack(own))
    return torch.stack(questions)
