"""Beam search over anything that gives the next token's distribution; with one beam it is greedy.

`Steps` hides how a model keeps its past (packed rows, an encoder's states, or passages that are
mixed at every token), so that every reader and every fusion is decoded by the one search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Steps(Protocol):
    """A decoder at work on N sources, one token at a time."""

    def first(self) -> torch.Tensor:
        """log p of every first token, shape (N, V)."""

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """log p of every next token, shape (N, B, V).

        `tokens` (N, B) were chosen for B beams of each source; beam b goes on from what was beam
        `parents[n, b]` (N, B) before. After `first` every source has the one beam 0.
        """


@dataclass(frozen=True)
class Hypothesis:
    """An answer that was found: its tokens up to the end of the turn, and log p of each."""

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    @property
    def mean_log_probability(self) -> float:
        return sum(self.log_probabilities) / len(self.log_probabilities)


class Barred:
    """Steps whose answers do not begin with one token."""

    def __init__(self, steps: Steps, token: int) -> None:
        self._steps = steps
        self._token = token

    def first(self) -> torch.Tensor:
        import torch

        log_p = self._steps.first().clone()
        log_p[:, self._token] = -torch.inf
        return log_p

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        return self._steps.next(tokens, parents)


class Mixture:
    """The steps of RAG-Token: K passages of a question agree on every token, weighed by p(z|x)."""

    def __init__(self, steps: Steps, prior: torch.Tensor) -> None:
        """`steps` go over B · K sources, passages of a question together; `prior` is (B, K)."""
        self._steps = steps
        self._prior = prior

    def first(self) -> torch.Tensor:
        return self._mixed(self._steps.first().unsqueeze(1)).squeeze(1)

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        passages = self._prior.shape[1]
        return self._mixed(
            self._steps.next(
                tokens.repeat_interleave(passages, 0), parents.repeat_interleave(passages, 0)
            )
        )

    def _mixed(self, log_probabilities: torch.Tensor) -> torch.Tensor:
        """(B · K, beams, V) -> (B, beams, V)."""
        questions, passages = self._prior.shape
        apart = log_probabilities.view(questions, passages, *log_probabilities.shape[1:])
        return (apart + self._prior[:, :, None, None]).logsumexp(1)


def beam_search(
    steps: Steps, *, end_id: int, max_new_tokens: int, beams: int = 1
) -> list[list[Hypothesis]]:
    """At most `beams` answers a source, best first by mean log p of their tokens.

    A hypothesis is finished when its end token is among the best `beams` continuations; a source is
    finished when no unfinished hypothesis has a better mean than the worst of `beams` finished ones
    (as `transformers` does with `early_stopping=False`). What does not end within `max_new_tokens`
    counts as it is.
    """
    import torch

    with torch.inference_mode():
        log_p = steps.first().unsqueeze(1)  # (N, 1, V)
        sources = log_p.shape[0]
        search = [_Search(beams, end_id) for _ in range(sources)]
        for length in range(1, max_new_tokens + 1):
            tokens, parents = _advance(search, log_p, length == max_new_tokens)
            if all(one.done for one in search):
                break
            log_p = steps.next(tokens.to(log_p.device), parents.to(log_p.device))
    return [one.found() for one in search]


def _advance(
    search: list[_Search], log_p: torch.Tensor, is_last: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes one token in every search; the tokens and parents of their beams, both (N, B)."""
    import torch

    beams, width = search[0].beams, log_p.shape[1]
    totals = torch.tensor([one.totals(width) for one in search], device=log_p.device)  # (N, W)
    scores = (totals.unsqueeze(-1) + log_p).flatten(1)
    count = min(2 * beams, scores.shape[1])
    best, places = scores.topk(count)
    parents, tokens = places // log_p.shape[-1], places % log_p.shape[-1]
    own = log_p.flatten(1).gather(1, places)
    columns = (found.tolist() for found in (best, parents, tokens, own))
    for one, *row in zip(search, *columns, strict=True):
        one.take(list(zip(*row, strict=True)), is_last)
    running = [one.running_beams() for one in search]
    return (
        torch.tensor([[token for token, _ in beam] for beam in running]),
        torch.tensor([[parent for _, parent in beam] for beam in running]),
    )


class _Search:
    """The beams of one source."""

    def __init__(self, beams: int, end_id: int) -> None:
        self.beams = beams
        self.done = False
        self._end_id = end_id
        self._running: list[tuple[float, Hypothesis, int]] = [(0.0, Hypothesis((), ()), 0)]
        self._finished: list[Hypothesis] = []

    def totals(self, width: int) -> list[float]:
        """log p of each running beam, -inf for beams that are not there."""
        found = [total for total, _, _ in self._running]
        return found + [-float("inf")] * (width - len(found))

    def running_beams(self) -> list[tuple[int, int]]:
        """(last token, parent) of each beam; a search that is done only keeps its place."""
        found = [(one.ids[-1], parent) for _, one, parent in self._running]
        return found + [(self._end_id, 0)] * (self.beams - len(found))

    def take(self, candidates: list[tuple[float, int, int, float]], is_last: bool) -> None:
        """Goes on with the best (total, parent, token, log p) of this step."""
        if self.done:
            return
        running: list[tuple[float, Hypothesis, int]] = []
        for rank, (total, parent, token, own) in enumerate(candidates):
            if total == -float("inf"):
                break
            past = self._running[parent][1]
            grown = Hypothesis((*past.ids, token), (*past.log_probabilities, own))
            if token != self._end_id:
                if len(running) < self.beams:
                    running.append((total, grown, parent))
            elif rank < self.beams:
                self._finish(grown)
        self._running = running
        if is_last:
            for _, one, _ in running:
                self._finish(one)
        full = len(self._finished) == self.beams
        worst = self._finished[-1].mean_log_probability if self._finished else -float("inf")
        hope = max((one.mean_log_probability for _, one, _ in running), default=-float("inf"))
        self.done = is_last or not running or (full and hope <= worst)

    def _finish(self, hypothesis: Hypothesis) -> None:
        self._finished.append(hypothesis)
        self._finished.sort(key=lambda one: -one.mean_log_probability)
        del self._finished[self.beams :]

    def found(self) -> list[Hypothesis]:
        return self._finished
