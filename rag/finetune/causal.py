"""Fine-tuning of the causal reader: LoRA on the upper layers, loss on the answer alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import ParamsError
from rag.finetune.examples import ReadingExample, dev_metrics
from rag.finetune.loop import length_buckets
from rag.params import LoraParams, Params
from rag.reading.abstention import AnswerScore
from rag.reading.causal import ADAPTER, CausalReader
from rag.reading.packing import pack
from rag.records import Answer

if TYPE_CHECKING:
    import torch


class CausalReaderTraining:
    """A `ReaderTraining` over packed rows; the loss is the mean of -log p over answer tokens."""

    def __init__(
        self,
        reader: CausalReader,
        params: Params,
        examples: Sequence[ReadingExample],
        dev: Sequence[ReadingExample],
        scores: Mapping[str, AnswerScore],
    ) -> None:
        self._reader = reader
        self._model = add_lora(reader, params.reader.lora, params.seed)
        self._dev = dev
        self._scores = scores
        self._batch_tokens = params.reader.training.batch_tokens
        prompts = [
            reader.prompt(example.question.text, [passage.text for passage in example.passages])
            for example in examples
        ]
        answers = [reader.answer_ids(example.target) for example in examples]
        self._rows = pack(prompts, answers, params.reader.training.batch_tokens)
        self._answer_lengths = [[len(answers[i]) for i in row.members] for row in self._rows]
        self.lengths = [row.length for row in self._rows]
        self._question_ids = [example.question.question_id for example in examples]

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, self._batch_tokens, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [self._question_ids[member] for i in batch for member in self._rows[i].members]

    def loss(self, batch: Sequence[int]) -> torch.Tensor:
        tokens = self._reader.answer_log_probabilities(
            [self._rows[i] for i in batch], [self._answer_lengths[i] for i in batch]
        )
        return -tokens.mean()

    def evaluate(self) -> Mapping[str, float]:
        return dev_metrics(self.answer(self._dev), self._dev, self._scores)

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        return self._reader.answer(
            [example.question.text for example in examples],
            [example.passages for example in examples],
        )

    def train_mode(self, training: bool) -> None:
        self._model.train(training)

    def save(self, folder: Path) -> None:
        """The adapter as safetensors; the base model is named, not copied."""
        adapter = folder / ADAPTER
        # peft would record where the base model lies on this machine.
        self._model.peft_config["default"].base_model_name_or_path = self._reader.params.model
        self._model.save_pretrained(str(adapter), save_embedding_layers=False)
        (adapter / "README.md").unlink(missing_ok=True)
        config = adapter / "adapter_config.json"
        tree = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def add_lora(reader: CausalReader, lora: LoraParams, seed: int) -> Any:
    """Wraps the reader's model with an adapter on every linear layer from `frozen_layers` up."""
    import torch
    from peft import LoraConfig, get_peft_model

    layers = reader.model.config.num_hidden_layers
    if lora.frozen_layers >= layers:
        raise ParamsError(
            f"reader.lora.frozen_layers: must be < {layers}, the layers of "
            f"{reader.params.model}, got {lora.frozen_layers}"
        )
    torch.manual_seed(seed)
    reader.model = get_peft_model(
        reader.model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_linear_layers(reader.model, lora.frozen_layers),
            task_type="CAUSAL_LM",
        ),
    )
    return reader.model


def _linear_layers(model: Any, first: int) -> str:
    """A regular expression over the linear modules of layer `first` and above.

    A pattern rather than a list: peft keeps a list as a set, which is written in another order by
    each process.
    """
    import torch

    places = set()
    for name, module in model.named_modules():
        numbered = re.fullmatch(r".*?\.(\d+)\.(.+)", name)
        if numbered and isinstance(module, torch.nn.Linear) and int(numbered[1]) >= first:
            places.add((int(numbered[1]), numbered[2]))
    layers = "|".join(str(layer) for layer in sorted({layer for layer, _ in places}))
    modules = "|".join(re.escape(module) for module in sorted({module for _, module in places}))
    return rf".*\.({layers})\.({modules})"
