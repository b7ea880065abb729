"""The losses of the extractive reader, against their formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from rag.finetune.examples import ReadingExample
from rag.finetune.extractive import ExtractiveReaderTraining
from rag.reading.windows import token_spans

MakeExample = Callable[..., ReadingExample]
MakeTraining = Callable[..., ExtractiveReaderTraining]
LONG = " ".join(["the red boat sails north"] * 24 + ["captain marlow rests"])
FULL = ("reader.lora=null",)
RAG = ("reader.lora=null", "reader.fusion=rag_sequence")


# examples


def test_an_example_whose_answer_is_not_shown_cannot_be_learnt_from(
    extractive_training: MakeTraining,
) -> None:
    training = extractive_training(*FULL)
    assert training.names(range(len(training.lengths))) == [
        "id of what sails?",
        "id of who sails?",
        "id of who rests?",
    ]


def test_lengths_count_the_tokens_of_all_passages(extractive_training: MakeTraining) -> None:
    # [CLS] what sails ? [SEP] + 9 or 2 + [SEP]; [CLS] who rests ? [SEP] + 4 + [SEP].
    training = extractive_training(*FULL)
    assert training.lengths == [15 + 8, 15 + 10, 10]
    assert training.size([0, 2]) == 33
    assert sorted(map(sorted, training.halves([0, 1, 2]))) == [[0, 1], [2]]


def test_an_answer_beyond_the_first_window_is_learnt_from(
    extractive_training: MakeTraining, example: MakeExample
) -> None:
    shown = [example("who rests?", [LONG], "captain marlow")]
    training = extractive_training(*FULL, "reader.max_prompt_tokens=64", shown=shown)
    # 123 tokens: 58 in each window, of which 9 are shared, beside 6 of the question and marks.
    assert training.lengths == [64 + 64 + 6 + 123 - 2 * 49]
    before = training.loss([0]).total
    before.backward()
    with torch.no_grad():
        for parameter in training.parameters().values():
            parameter.sub_(parameter.grad, alpha=0.01)
        assert training.loss([0]).total < before


# losses


def places(training: ExtractiveReaderTraining, example: ReadingExample) -> list[list[list[float]]]:
    """p(start) p(end) summands: of each passage, [sum over places, all starts, all ends]."""
    reader = training._reader
    found = []
    for passage in example.passages:
        readings = reader.read([example.question.text], [passage.text])
        with torch.inference_mode():
            start, end = (part[0].double().tolist() for part in reader.logits(readings))
        tokens = range(1, len(start))
        spans = [(a, b) for a, b in itertools.product(tokens, tokens) if a <= b]
        wanted = [
            (a, b)
            for a, b in spans
            if b - a < 6 and readings[0].between(a, b) in example.question.answers
        ]
        if not example.target:
            wanted = [(0, 0)]
        assert wanted == token_spans(readings[0], example.question.answers or [""], 6)
        found.append(
            [
                [math.exp(start[a] + end[b]) for a, b in wanted],
                [math.exp(value) for value in start],
                [math.exp(value) for value in end],
            ]
        )
    return found


def test_joint_is_normalised_over_all_passages(
    extractive_training: MakeTraining, boats: list[ReadingExample]
) -> None:
    """-log of the sum over places of p(start) p(end), both over the question's passages."""
    training = extractive_training(*FULL)
    losses = []
    for example in (boats[0], *boats[2:]):
        spans, starts, ends = (
            sum(map(sum, parts)) for parts in zip(*places(training, example), strict=True)
        )
        losses.append(-math.log(spans / (starts * ends)))
    assert training.loss([0]).total.item() == pytest.approx(losses[0], abs=1e-4)
    found = training.loss([2, 1, 0])
    assert found.total.item() == pytest.approx(sum(losses), abs=1e-4)
    assert (found.weight, found.tokens) == (3.0, 23 + 25 + 10)
    # Windows of 15 and 15; 10 and 10; 8: the last are padded to 10.
    assert found.padded_tokens == 23 + 25 + 10 + 2


def rag_losses(training: ExtractiveReaderTraining, shown: Sequence[ReadingExample]) -> list[float]:
    """-log sum_z p(z|x) p(y|x,z), each passage on its own; the prior's temperature is 1/2."""
    losses = []
    for example in shown:
        weights = [math.exp(passage.score / 0.5) for passage in example.passages]
        chance = sum(
            weight / sum(weights) * sum(spans) / (sum(starts) * sum(ends))
            for weight, (spans, starts, ends) in zip(
                weights, places(training, example), strict=True
            )
        )
        losses.append(-math.log(chance))
    return losses


@pytest.mark.parametrize("sharded", [False, True])
def test_rag_sequence_weighs_passages_that_are_normalised_alone(
    extractive_training: MakeTraining, boats: list[ReadingExample], sharded: bool
) -> None:
    extra = ("reader.training={processes: 2, batches_per_step: 2, shard_weights: true}",)
    training = extractive_training(*RAG, *(extra if sharded else ()))
    losses = rag_losses(training, [boats[0], *boats[2:]])
    assert training.loss([1]).total.item() == pytest.approx(losses[1], abs=1e-4)
    found = training.loss([2, 1, 0])
    assert found.total.item() == pytest.approx(sum(losses), abs=1e-4)
    # All at once where layers are sharded: five windows as long as the longest.
    assert found.padded_tokens == (5 * 15 if sharded else 60)


def test_the_prior_that_is_given_has_the_posterior_as_its_gradient(
    extractive_training: MakeTraining,
) -> None:
    """d(-log sum_z exp(log p(z|x)) p(y|x,z)) / d log p(z|x) = -p(z|x,y)."""
    training = extractive_training(*RAG)
    prior = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1], [1.0, 0.0]])).requires_grad_()
    loss, likelihood = training.loss_with_prior([0, 1, 2], prior)
    loss.total.backward()
    joint = (prior + likelihood).detach().exp()
    assert prior.grad is not None
    torch.testing.assert_close(prior.grad, -joint / joint.sum(1, keepdim=True))
    # "captain" stands in the second passage alone, and the third question has one passage.
    assert prior.grad[1:].tolist() == [[0.0, pytest.approx(-1.0)], [pytest.approx(-1.0), 0.0]]
    weight = training._reader.model.qa_outputs.weight
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())


def test_the_prior_is_a_constant_of_the_loss(extractive_training: MakeTraining) -> None:
    training = extractive_training(*RAG)
    passages = [training._passages[0]]
    prior = training._reader.log_prior(passages, 2)
    assert not prior.requires_grad
    given, _ = training.loss_with_prior([0], prior)
    assert training.loss([0]).total.item() == given.total.item()


def test_passages_that_are_chosen_are_read_alone(
    extractive_training: MakeTraining, boats: list[ReadingExample]
) -> None:
    """The first question reads its second passage, the next one both in the other order."""
    training = extractive_training(*RAG)
    _, everything = training.loss_with_prior([0, 1], torch.zeros(2, 2))
    prior = torch.log(torch.tensor([[1.0, 0.0], [0.3, 0.7]]))
    loss, likelihood = training.loss_with_prior([0, 1], prior, [[1], [1, 0]])
    expected = torch.stack([everything[0, [1, 0]], everything[1, [1, 0]]])
    expected[0, 1] = -torch.inf
    torch.testing.assert_close(likelihood, expected, atol=1e-5, rtol=0)
    total = -(expected[0, 0] + math.log(0.3) + expected[1, 0])
    assert loss.total.item() == pytest.approx(total.item(), abs=1e-4)
    # [CLS] what sails ? [SEP] the boat [SEP], and 15 and 10 of the second question.
    assert loss.tokens == 8 + 25
