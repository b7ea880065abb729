"""Retrieval-augmented generation as a latent-variable model: sums over the passages read.

    log p(z|x) = log_softmax_k( score(x, z) / temperature + w log p(x|z) )    prior
    RAG-Sequence:  log p(y|x) = logsumexp_k[ log p(z|x) + sum_t log p(y_t|x,z,y_<t) ]
    RAG-Token:     log p(y|x) = sum_t logsumexp_k[ log p(z|x) + log p(y_t|x,z,y_<t) ]
    log p(z|x,y) = log_softmax_k( log p(z|x) + log p(y|x,z) )                 posterior

from Lewis et al. 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks". The
query likelihood p(x|z), how likely a passage makes the question (Ponte and Croft 1998; by a
language model: Sachan et al. 2022), counts with weight w where the reader knows it, once it is
trained. B questions, K passages each, T answer tokens. A passage that is not there has score -inf
and so no weight; every function is differentiable in every argument.
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
#: A calibrated weight is at most this many times the one that levels its scores' spread.
_WIDEST = 1e3


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


def weighed_prior(
    prior: torch.Tensor, query_likelihood: torch.Tensor, weight: float
) -> torch.Tensor:
    """log p(z|x) (B, K) from that of the retrieval scores, and log p(x|z) (B, K) beside it."""
    return _joint(prior, weight * query_likelihood).log_softmax(-1)


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
    none = [np.zeros_like(own) for own in scores]
    return calibrated_prior(scores, none, right, default=default)[0]


def calibrated_prior(
    scores: Sequence[FloatVector],
    query_likelihoods: Sequence[FloatVector],
    right: Sequence[npt.NDArray[np.bool_]],
    *,
    default: float = 1.0,
    temperature: float | None = None,
) -> tuple[float, float]:
    """Temperature, and weight of log p(x|z), that make p(z|x) likeliest to name a right passage.

    As `calibrated_temperature`, with `query_likelihoods[i]` of shape (K_i,); the weight is within
    the same bounds of their spread, or 0. A `temperature` that is given stays.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]
    from scipy.special import logsumexp  # type: ignore[import-untyped]

    rows = zip(scores, query_likelihoods, right, strict=True)
    mixed = [(np.stack([s, q]), r) for s, q, r in rows if r.any() and not r.all()]
    if not mixed:
        return temperature or default, 0.0
    spread = np.mean([features.std(axis=1) for features, _ in mixed], axis=0)
    usable = spread > 0.0
    scale = np.where(usable, spread, 1.0)
    scaled = [(features / scale[:, None], r) for features, r in mixed]

    def loss(weights: FloatVector) -> tuple[float, FloatVector]:
        total, gradient = 0.0, np.zeros(2)
        for features, r in scaled:
            own = weights @ features
            among, all_of = logsumexp(own[r]), logsumexp(own)
            total += all_of - among
            gradient += features @ np.exp(own - all_of) - features[:, r] @ np.exp(own[r] - among)
        return total / len(scaled), gradient / len(scaled)

    fixed = None if temperature is None else float(scale[0] / temperature)
    first = (_WIDEST**-1, _WIDEST) if fixed is None else (fixed, fixed)
    bounds = [first if usable[0] else (1.0, 1.0), (0.0, _WIDEST) if usable[1] else (0.0, 0.0)]
    start = [low if low == high else 1.0 for low, high in bounds]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    by_score = float(scale[0] / found[0]) if usable[0] else default
    return temperature or by_score, float(found[1] / scale[1])
