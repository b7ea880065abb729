"""Retrieval-augmented generation as a latent-variable model: sums over the passages read.

    log p(z|x) = log_softmax_k( score(x, z) / temperature )                   prior
    RAG-Sequence:  log p(y|x) = logsumexp_k[ log p(z|x) + sum_t log p(y_t|x,z,y_<t) ]
    RAG-Token:     log p(y|x) = sum_t logsumexp_k[ log p(z|x) + log p(y_t|x,z,y_<t) ]
    log p(z|x,y) = log_softmax_k( log p(z|x) + log p(y|x,z) )                 posterior

from Lewis et al. 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks". B
questions, K passages each, T answer tokens. A passage that is not there has score -inf and so no
weight; every function is differentiable in every argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag.records import Passage

if TYPE_CHECKING:
    import torch

FloatVector = npt.NDArray[np.float64]


def log_prior(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """log p(z|x) from retrieval scores, both (B, K); -inf where there is no passage."""
    return (scores / temperature).log_softmax(-1)


def passage_prior(
    passages: Sequence[Sequence[Passage]], width: int, temperature: float
) -> torch.Tensor:
    """log p(z|x) of the passages' retrieval scores, shape (B, width); -inf where none is.

    A question without passages is answered from memory: its one source has all the weight.
    """
    import torch

    scores = torch.full((len(passages), width), -torch.inf)
    for i, found in enumerate(passages):
        own = [passage.score for passage in found] or [0.0]
        scores[i, : len(own)] = torch.tensor(own)
    return log_prior(scores, temperature)


def rag_sequence(prior: torch.Tensor, likelihood: torch.Tensor) -> torch.Tensor:
    """log p(y|x), shape (B,), from log p(z|x) and log p(y|x,z), both (B, K).

    One passage is taken to have produced the whole answer.
    """
    return _joint(prior, likelihood).logsumexp(-1)


def rag_token(prior: torch.Tensor, likelihood: torch.Tensor) -> torch.Tensor:
    """log p(y|x), shape (B,), from log p(z|x) (B, K) and log p(y_t|x,z,y_<t) (B, K, T).

    Every token may come from another passage. Where an answer is shorter than T its likelihood is 0
    for every passage, so that it adds log of sum p(z|x) = 0.
    """
    return _joint(prior.unsqueeze(-1), likelihood).logsumexp(1).sum(-1)


def log_posterior(prior: torch.Tensor, likelihood: torch.Tensor) -> torch.Tensor:
    """log p(z|x,y) (B, K): which passage the answer came from."""
    return _joint(prior, likelihood).log_softmax(-1)


def distillation_loss(prior: torch.Tensor, likelihood: torch.Tensor) -> torch.Tensor:
    """KL( softmax_k log p(y|x,z) || p(z|x) ), shape (B,): the reader teaches the retriever.

    The target has no gradient (perplexity distillation; Izacard et al. 2022, Atlas).
    """
    import torch

    absent = prior == -torch.inf
    target = likelihood.detach().masked_fill(absent, -torch.inf).log_softmax(-1)
    difference = (target - prior).masked_fill(absent | (target == -torch.inf), 0.0)
    return (target.exp() * difference).sum(-1)


def _joint(prior: torch.Tensor, likelihood: torch.Tensor) -> torch.Tensor:
    """The sum of both; an absent passage stays absent, whatever its likelihood was padded with."""
    import torch

    absent = (prior == -torch.inf).expand_as(likelihood)
    return (prior + likelihood.masked_fill(absent, 0.0)).masked_fill(absent, -torch.inf)


def calibrated_temperature(
    scores: Sequence[FloatVector], right: Sequence[npt.NDArray[np.bool_]], *, default: float = 1.0
) -> float:
    """The temperature that makes p(z|x) likeliest to name a right passage.

    `scores[i]` and `right[i]` have shape (K_i,). Maximises mean log sum_{z right} p(z|x) over the
    questions that have both right and wrong passages; `default` where there are none. Between a
    thousandth and a thousand times the scores' own spread, so that it stays finite where every
    right passage is first.
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
    from scipy.special import logsumexp  # type: ignore[import-untyped]

    mixed = [(s, r) for s, r in zip(scores, right, strict=True) if r.any() and not r.all()]
    spread = float(np.mean([s.std() for s, _ in mixed])) if mixed else 0.0
    if spread == 0.0:
        return default

    def loss(log_temperature: float) -> float:
        scaled = [(s / np.exp(log_temperature), r) for s, r in mixed]
        return -float(np.mean([logsumexp(s[r]) - logsumexp(s) for s, r in scaled]))

    center = np.log(spread)
    found = minimize_scalar(loss, bounds=(center - np.log(1e3), center + np.log(1e3)))
    return float(np.exp(found.x))
