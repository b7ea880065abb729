"""How likely spans are: of one passage, and of a text wherever it stands in the passages read.

    p(span | x, z) = p(start | x, z) p(end | x, z)      two softmaxes over the places of passage z
    p(y | x, z)    = sum of p(span | x, z) over the spans of z whose text is y

Both softmaxes count place 0, the null answer, whose span is (0, 0). Pairs that are no span, because
they end before they begin or are too long, keep their share, so that the sum over all answers is
below 1: in training this is what drives them out. Training and answering both use this definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.reading.marginal import log_posterior, rag_sequence
from rag.reading.windows import Reading, text_key

FloatVector = npt.NDArray[np.float64]
FloatMatrix = npt.NDArray[np.float64]

#: Start and end logits of one passage, each of shape (1 + T,).
Logits = tuple[FloatVector, FloatVector]

#: Spans less likely than this share of the likeliest one are not looked at when the spans of a text
#: are added up: each would change the sum by less than a millionth of it.
_NEGLIGIBLE = 1e-6


def likeliest_span(
    readings: Sequence[Reading], logits: Sequence[Logits], max_tokens: int
) -> tuple[str, float]:
    """The text of the likeliest span of all passages and its log p; "" where null is as likely.

    Start and end are each normalised over the places of all passages (Clark and Gardner 2018).
    """
    best = max(float(start[0] + end[0]) for start, end in logits)
    text = ""
    for reading, (start, end) in zip(readings, logits, strict=True):
        table = span_table(start, end, max_tokens)
        first, more = np.unravel_index(int(table.argmax()), table.shape)
        if table[first, more] > best:
            best, text = float(table[first, more]), reading.between(int(first), int(first + more))
    return text, best - log_normaliser(logits)


def likeliest_text(
    readings: Sequence[Reading],
    logits: Sequence[Logits],
    log_prior: FloatVector,
    max_tokens: int,
) -> tuple[str, float, list[float]]:
    """The text y of the highest p(y|x) = sum_z p(z|x) p(y|x,z), its log, and p(z|x,y) of each z.

    `log_prior` has log p(z|x), shape (K,).
    """
    import torch

    tables = [span_table(*own, max_tokens) - log_normaliser([own]) for own in logits]
    found, likelihood = _texts(readings, tables, log_prior)
    table = torch.from_numpy(likelihood)  # (C, K)
    prior = torch.from_numpy(log_prior).expand_as(table)
    totals = rag_sequence(prior, table)
    best = int(totals.argmax())
    return found[best], float(totals[best]), log_posterior(prior, table)[best].exp().tolist()


def log_normaliser(logits: Sequence[Logits]) -> float:
    """What is taken from a start and an end logit for log p(span), over all passages given."""
    starts, ends = map(np.concatenate, zip(*logits, strict=True))
    return float(np.logaddexp.reduce(starts) + np.logaddexp.reduce(ends))


def span_table(start: FloatVector, end: FloatVector, max_tokens: int) -> FloatMatrix:
    """Sums of logits, shape (1 + T, max_tokens): [f, n] is the span from f of n + 1 places.

    Row 0 has the null answer in its first column; what is no span is -inf.
    """
    padded = np.concatenate([end, np.full(max_tokens - 1, -np.inf)])
    table: FloatMatrix = start[:, None] + np.lib.stride_tricks.sliding_window_view(
        padded, max_tokens
    )
    table[0, 1:] = -np.inf
    return table


def _texts(
    readings: Sequence[Reading], tables: Sequence[FloatMatrix], log_prior: FloatVector
) -> tuple[list[str], FloatMatrix]:
    """The C texts that may be the answer, and log p(y | x, z) of each, shape (C, K).

    `tables[k]` has log p(span | x, z) of passage k and `log_prior` log p(z | x), shape (K,). Texts
    that differ in case and spacing alone are one, written as in their likeliest span.
    """
    weighed = [table + own for table, own in zip(tables, log_prior, strict=True)]
    floor = max(float(table.max()) for table in weighed) + np.log(_NEGLIGIBLE)
    chances: dict[str, FloatVector] = {}
    written: dict[str, tuple[float, str]] = {}
    for k, (reading, table) in enumerate(zip(readings, weighed, strict=True)):
        for first, more in np.argwhere(table >= floor):
            text = reading.between(int(first), int(first + more))
            key = text_key(text)
            chances.setdefault(key, np.zeros(len(tables)))[k] += np.exp(tables[k][first, more])
            written[key] = max(written.get(key, (-np.inf, "")), (table[first, more], text))
    with np.errstate(divide="ignore"):
        likelihood = np.log(np.stack(list(chances.values())))
    return [written[key][1] for key in chances], likelihood
