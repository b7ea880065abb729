"""The retriever in the loop: batches of a step, and less memory without another gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rag.finetune.bi_encoder import BiEncoder
from rag.finetune.sharding import transformer_layers
from rag.finetune.step import StepGradient
from tests.finetune.test_contrastive import (
    PASSAGES,
    QUESTIONS,
    bi_encoder,
    gradients,
    made,
    mean_loss,
    params,
)


def test_batches_of_a_step_add_up_and_keep_their_own_negatives(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    """The gradient of a step is the mean over questions: 2 of one batch, 1 of the other."""
    plain, cached = params(tiny_encoder), params(tiny_encoder, mini_batch=1)
    training = made(plain, bi_encoder(plain, tmp_path))
    first, second = gradients(training, [0, 1]), gradients(training, [2])
    expected = {name: (2 * first[name] + second[name]) / 3 for name in first}
    for settings in (plain, cached):
        own = made(settings, bi_encoder(settings, tmp_path))
        step = StepGradient(own, own.parameters(), say=print, section="retriever.training")
        tally = step.add([0, 1]) + step.add([2])
        assert (tally.weight, tally.samples) == (3, 3)
        assert tally.loss == pytest.approx(
            2 * mean_loss(training, [0, 1]).item() + mean_loss(training, [2]).item(), abs=1e-4
        )
        for name, parameter in own.parameters().items():
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad / 3, expected[name], atol=1e-5, rtol=1e-5)


def test_without_memory_the_batch_stays_whole_and_its_pieces_are_halved(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = params(tiny_encoder)
    expected = gradients(made(settings, bi_encoder(settings, tmp_path)), [0, 1, 2])
    plain = BiEncoder.embed

    def embed(self: BiEncoder, texts: Sequence[str], side: Any) -> torch.Tensor:
        if len(texts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, texts, side)

    training = made(settings, bi_encoder(settings, tmp_path))
    monkeypatch.setattr(BiEncoder, "embed", embed)
    said: list[str] = []
    step = StepGradient(
        training, training.parameters(), say=said.append, section="retriever.training"
    )
    step.add([0, 1, 2])
    assert [line.split("size ")[1].split(";")[0] for line in said] == ["3", "2"]
    found = {name: p.grad for name, p in training.parameters().items() if p.grad is not None}
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name] / 3, gradient, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(tiny_encoder: Path, tmp_path: Path) -> None:
    settings = params(tiny_encoder)
    expected = gradients(made(settings, bi_encoder(settings, tmp_path)), [0, 1, 2])
    settings = params(tiny_encoder, gradient_checkpointing=True)
    training = made(settings, bi_encoder(settings, tmp_path))
    training.train_mode(True)
    layers = transformer_layers(training.models())
    assert len(layers) == 2
    forwards: list[int] = []
    # Hooks of the layer itself stand outside of what is computed again.
    next(layers[0].children()).register_forward_pre_hook(lambda *_: forwards.append(1))
    found = gradients(training, [0, 1, 2])
    assert len(forwards) == 4  # both sides, and both again on the way back
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)
    training.train_mode(False)
    assert set(training.evaluate()) >= {"dev_mrr"}


def test_tokens_are_counted_with_and_without_padding(tiny_encoder: Path, tmp_path: Path) -> None:
    """Questions are padded to the longest of them, and passages to theirs."""
    settings = params(tiny_encoder)
    encoder = bi_encoder(settings, tmp_path)
    loss = made(settings, encoder).loss([0, 1, 2])
    lengths = [
        [len(encoder.model.tokenizer(text)["input_ids"]) for text in texts]
        for texts in (QUESTIONS, PASSAGES)
    ]
    assert loss.tokens == sum(map(sum, lengths))
    assert loss.padded_tokens == sum(len(own) * max(own) for own in lengths)
