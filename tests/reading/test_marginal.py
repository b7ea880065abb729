"""The mathematics of RAG, by hand: two passages, two tokens, two dimensions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rag.reading.marginal import (
    calibrated_prior,
    calibrated_temperature,
    distillation_loss,
    log_posterior,
    log_prior,
    rag_sequence,
    rag_token,
    weighed_prior,
)

#: p(z|x), and p(y_t|x,z,y_<t) of two tokens given each passage.
PRIOR = torch.tensor([[0.25, 0.75]]).log()
TOKENS = torch.tensor([[[0.5, 0.2], [0.1, 0.4]]]).log()
#: log p(y|x,z): 0.1 and 0.04.
WHOLE = TOKENS.sum(-1)
ABSENT = -torch.inf


def close(found: torch.Tensor, expected: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_the_prior_is_a_softmax_of_scores_over_the_temperature() -> None:
    found = log_prior(torch.tensor([[2.0, 1.0], [3.0, ABSENT]]), 0.5).exp()
    first = math.exp(4) / (math.exp(4) + math.exp(2))
    close(found, [[first, 1 - first], [1.0, 0.0]])


def test_the_query_likelihood_is_weighed_beside_it() -> None:
    """p(z|x) goes with p(z) p(x|z)^w: 1/4 · sqrt(0.09) against 3/4 · sqrt(0.01)."""
    likelihood = torch.tensor([[0.09, 0.01]]).log()
    close(weighed_prior(PRIOR, likelihood, 0.5).exp(), [[0.5, 0.5]])
    alone = torch.tensor([[0.0, ABSENT]])
    close(weighed_prior(alone, torch.tensor([[-3.0, ABSENT]]), 0.5).exp(), [[1.0, 0.0]])


def test_one_passage_wrote_the_whole_answer() -> None:
    close(rag_sequence(PRIOR, WHOLE).exp(), [0.25 * 0.1 + 0.75 * 0.04])


def test_every_token_may_be_of_another_passage() -> None:
    expected = (0.25 * 0.5 + 0.75 * 0.1) * (0.25 * 0.2 + 0.75 * 0.4)
    close(rag_token(PRIOR, TOKENS).exp(), [expected])


def test_the_posterior_is_bayes_rule() -> None:
    close(log_posterior(PRIOR, WHOLE).exp(), [[0.025 / 0.055, 0.030 / 0.055]])


def test_both_are_distributions_over_answers() -> None:
    """Two words, answers of two: p(y|x) sums to one over the four of them."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, generator=generator)  # p(word 1) given each passage
    second = torch.rand((2, 2), generator=generator)  # and after each first word
    totals = {rag_sequence: 0.0, rag_token: 0.0}
    for words in itertools.product((0, 1), repeat=2):
        chosen = torch.stack(
            [
                first if words[0] else 1 - first,
                second[:, words[0]] if words[1] else 1 - second[:, words[0]],
            ],
            dim=-1,
        ).log()[None]  # (1, K, T)
        totals[rag_sequence] += float(rag_sequence(PRIOR, chosen.sum(-1)).exp())
        totals[rag_token] += float(rag_token(PRIOR, chosen).exp())
    assert list(totals.values()) == pytest.approx([1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("padding", [0.0, -7.0, ABSENT])
def test_a_passage_that_is_not_there_changes_nothing(padding: float) -> None:
    """Whatever its likelihood was padded with; no gradient becomes NaN."""
    scores = torch.tensor([[0.0, math.log(3), ABSENT]], requires_grad=True)
    tokens = torch.cat([TOKENS, torch.full((1, 1, 2), padding)], dim=1).requires_grad_()
    prior = log_prior(scores, 1.0)
    found = {
        "sequence": rag_sequence(prior, tokens.sum(-1)),
        "token": rag_token(prior, tokens),
        "posterior": log_posterior(prior, tokens.sum(-1))[:, :2],
        "distilled": distillation_loss(prior, tokens.sum(-1)),
    }
    expected = {
        "sequence": rag_sequence(PRIOR, WHOLE),
        "token": rag_token(PRIOR, TOKENS),
        "posterior": log_posterior(PRIOR, WHOLE),
        "distilled": distillation_loss(PRIOR, WHOLE),
    }
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
        gradients = torch.autograd.grad(
            value.sum(), [scores, tokens], retain_graph=True, allow_unused=True
        )
        for gradient in gradients:
            assert gradient is None or bool(gradient.isfinite().all()), name
    assert log_posterior(prior, tokens.sum(-1)).exp()[0, 2] == 0.0


def test_tokens_behind_a_short_answer_change_nothing() -> None:
    """Answers of a batch are padded with likelihood 0."""
    padded = torch.nn.functional.pad(TOKENS, (0, 3))
    torch.testing.assert_close(rag_token(PRIOR, padded), rag_token(PRIOR, TOKENS))


# gradients

QUERY = [0.5, -1.0]
PASSAGES = [[1.0, 2.0], [-1.0, 0.5]]
TEMPERATURE = 0.7


def query_gradient(loss: str) -> list[float]:
    """d log p(y|x) / d E_q(x) by autograd."""
    query = torch.tensor([QUERY], requires_grad=True)  # (B, D)
    scores = query @ torch.tensor(PASSAGES).T  # (B, K)
    prior = log_prior(scores, TEMPERATURE)
    value = rag_sequence(prior, WHOLE) if loss == "sequence" else rag_token(prior, TOKENS)
    [gradient] = torch.autograd.grad(value.sum(), query)
    return list(gradient[0].tolist())


def prior_by_hand() -> list[float]:
    scores = [sum(q * e for q, e in zip(QUERY, passage, strict=True)) for passage in PASSAGES]
    assert scores == [-1.5, -1.0]
    weights = [math.exp(score / TEMPERATURE) for score in scores]
    return [weight / sum(weights) for weight in weights]


def test_the_query_gradient_of_rag_sequence() -> None:
    """d log p(y|x) / dq = sum_k ( p(z_k|x,y) - p(z_k|x) ) E_p(z_k) / temperature."""
    prior = prior_by_hand()
    joint = [prior[0] * 0.1, prior[1] * 0.04]
    pull = [own / sum(joint) - before for own, before in zip(joint, prior, strict=True)]
    expected = [sum(pull[k] * PASSAGES[k][d] for k in (0, 1)) / TEMPERATURE for d in (0, 1)]
    assert query_gradient("sequence") == pytest.approx(expected, abs=1e-6)
    # The first passage explains the answer better, so the query is drawn to it: to (2, 1.5).
    assert pull[0] > 0
    assert expected == pytest.approx([pull[0] * 2.0 / 0.7, pull[0] * 1.5 / 0.7])


def test_the_query_gradient_of_rag_token() -> None:
    """The same for every token: sum_t sum_k ( p(z_k|x,y_t) - p(z_k|x) ) E_p(z_k) / temperature."""
    prior = prior_by_hand()
    expected = [0.0, 0.0]
    for likelihood in ([0.5, 0.1], [0.2, 0.4]):
        joint = [prior[k] * likelihood[k] for k in (0, 1)]
        for k, d in itertools.product((0, 1), repeat=2):
            pull = joint[k] / sum(joint) - prior[k]
            expected[d] += pull * PASSAGES[k][d] / TEMPERATURE
    assert query_gradient("token") == pytest.approx(expected, abs=1e-6)


def test_the_readers_gradient_is_weighed_by_the_posterior() -> None:
    """A passage that cannot have produced the answer teaches the reader nothing."""
    whole = WHOLE.clone().requires_grad_()
    [gradient] = torch.autograd.grad(rag_sequence(PRIOR, whole).sum(), whole)
    torch.testing.assert_close(gradient, log_posterior(PRIOR, WHOLE).exp())


# distillation


def test_distillation_is_the_divergence_from_what_the_reader_finds_likely() -> None:
    """softmax(log 0.1, log 0.04) = (5/7, 2/7)."""
    target, prior = [5 / 7, 2 / 7], [0.25, 0.75]
    expected = sum(t * math.log(t / p) for t, p in zip(target, prior, strict=True))
    close(distillation_loss(PRIOR, WHOLE), [expected])
    close(distillation_loss(torch.tensor([target]).log(), WHOLE), [0.0])


def test_distillation_teaches_the_retriever_alone() -> None:
    """d KL / d score = p(z|x) - target."""
    scores = torch.tensor([[0.0, math.log(3)]], requires_grad=True)
    whole = WHOLE.clone().requires_grad_()
    distillation_loss(log_prior(scores, 1.0), whole).sum().backward()
    assert scores.grad is not None
    close(scores.grad, [[0.25 - 5 / 7, 0.75 - 2 / 7]])
    assert whole.grad is None


def test_an_impossible_answer_is_no_target() -> None:
    whole = torch.tensor([[0.0, ABSENT]])
    close(distillation_loss(PRIOR, whole), [math.log(1 / 0.25)])


# calibration

FIRST, SECOND = np.array([True, False]), np.array([False, True])


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_the_temperature_says_how_often_the_first_is_right(scale: float) -> None:
    """Right in three of four: sigmoid(1 / temperature) = 3/4, so temperature = 1 / log 3."""
    scores = [np.array([1.0, 0.0]) * scale] * 4
    found = calibrated_temperature(scores, [FIRST, FIRST, FIRST, SECOND])
    assert found == pytest.approx(scale / math.log(3), rel=1e-3)


def test_several_right_passages_count_together() -> None:
    """exp(1/t) / (exp(1/t) + 1) of each of two right: 2a / (2a + 1) = 3/4 at a = 3/2."""
    scores = [np.array([1.0, 1.0, 0.0])] * 4
    right = [np.array([True, True, False])] * 3 + [np.array([False, False, True])]
    found = calibrated_temperature(scores, right)
    assert found == pytest.approx(1 / math.log(1.5), rel=1e-3)


def test_a_retriever_that_is_always_right_has_a_finite_temperature() -> None:
    found = calibrated_temperature([np.array([1.0, 0.0])] * 3, [FIRST] * 3)
    assert 5e-4 <= found < 0.1  # a thousandth of the spread of 0.5, or where p is 1 in floats


def test_a_retriever_that_knows_nothing_has_an_even_prior() -> None:
    found = calibrated_temperature([np.array([1.0, 0.0])] * 2, [FIRST, SECOND])
    prior = log_prior(torch.tensor([[1.0, 0.0]]), found).exp()
    torch.testing.assert_close(prior, torch.tensor([[0.5, 0.5]]), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ([], []),
        ([np.array([1.0, 0.0])], [np.array([True, True])]),
        ([np.array([1.0, 0.0])], [np.array([False, False])]),
        ([np.array([0.3, 0.3])], [FIRST]),
    ],
)
def test_without_anything_to_learn_from_it_stays(
    scores: list[np.ndarray], right: list[np.ndarray]
) -> None:
    assert calibrated_temperature(scores, right, default=2.5) == 2.5


def test_both_weights_are_those_by_which_passages_are_right() -> None:
    """Ten thousand questions whose right passage is drawn by p(z|x) itself, of known weights."""
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(10_000, 4)) * 0.1
    likelihoods = generator.normal(size=(10_000, 4)) * 20.0
    logits = scores / 0.05 + 0.1 * likelihoods
    drawn = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    right = np.eye(4, dtype=bool)[drawn]
    temperature, weight = calibrated_prior(list(scores), list(likelihoods), list(right))
    assert temperature == pytest.approx(0.05, rel=0.05)
    assert weight == pytest.approx(0.1, rel=0.05)
    kept, weight = calibrated_prior(list(scores), list(likelihoods), list(right), temperature=0.05)
    assert kept == 0.05
    assert weight == pytest.approx(0.1, rel=0.05)


def test_a_likelihood_that_misleads_has_no_weight() -> None:
    """What is likelier is wrong each time; weighed below nothing it would be of use."""
    scores = [np.array([1.0, 0.0])] * 4
    likelihoods = [np.array([-9.0, -3.0])] * 3 + [np.array([-3.0, -9.0])]
    temperature, weight = calibrated_prior(scores, likelihoods, [FIRST] * 3 + [SECOND])
    assert weight == 0.0
    assert temperature == pytest.approx(1 / math.log(3), rel=1e-3)
    even = [np.array([-3.0, -3.0])] * 4
    assert calibrated_prior(scores, even, [FIRST] * 3 + [SECOND])[1] == 0.0
    assert calibrated_prior([], [], [], temperature=0.5) == (0.5, 0.0)
