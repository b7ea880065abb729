"""What readers that write text have in common: prompts, fusions, decoding and likelihoods.

A *source* is what one decoder reads: a question with the passages in its prompt. `concat` and `fid`
make one source of a question and all its passages, `rag_sequence` and `rag_token` one of each
passage. A subclass says how likely answers are given sources, and decodes them step by step; this
class puts passages together as `rag.reading.marginal` writes it down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.params import ReaderParams
from rag.reading.beam import Barred, Hypothesis, Mixture, Steps, beam_search
from rag.reading.copying import Copied, Vocabulary, vocabulary_of, whole_words
from rag.reading.marginal import log_posterior, passage_prior, rag_sequence
from rag.reading.memory import give_back
from rag.reading.packing import Cost, question_batches
from rag.reading.prompts import REFUSAL, clean_answer, is_refusal
from rag.reading.reader import Array, Progress, as_evidence
from rag.records import Answer, Passage

if TYPE_CHECKING:
    import torch

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """What one decoder reads; no passages for a closed book."""

    question: str
    passages: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """An answer of one question, and p(z|x,y) of each passage where passages are weighed."""

    ids: TokenIds
    mean_log_probability: float
    posterior: tuple[float, ...] | None = None


class GenerativeReader(ABC):
    """Answers with a model that writes text; `prior_temperature` is that of p(z|x)."""

    params: ReaderParams
    model: Any
    tokenizer: Any
    device: torch.device
    prior_temperature: float
    #: False bars the refusal's first token: what the reader would say if it had to answer.
    may_refuse: bool = True
    _known_vocabulary: Vocabulary | None = None
    #: Tokens that went through `token_log_probabilities`, without and with padding: for speed.
    tokens_read: int = 0
    tokens_padded: int = 0

    @abstractmethod
    def token_log_probabilities(
        self, sources: Sequence[Source], answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        """log p of every token of an answer given its source, shapes (T_i,), with gradient."""

    @abstractmethod
    def steps(self, sources: Sequence[Source]) -> Steps:
        """A decoder that has read these sources."""

    @abstractmethod
    def cost(self, source: Source, answer: TokenIds = ()) -> Cost:
        """Tokens that go through the model; what is shared with other sources is named."""

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The token that ends an answer."""

    @property
    def first_ids(self) -> TokenIds:
        """Special tokens that every answer begins with, as BART's `<s>`."""
        return ()

    @property
    def new_modules(self) -> tuple[str, ...]:
        """Names of modules whose weights are new: an adapter has to come with them, trained."""
        return ()

    def answer_ids(self, answer: str) -> TokenIds:
        """Token ids of an answer and the end of the turn; an empty answer is the refusal."""
        ids = self.tokenizer(answer or REFUSAL, add_special_tokens=False).input_ids
        return (*ids[: self.params.max_answer_tokens - 1], self.end_id)

    def sources(self, question: str, passages: Sequence[Passage]) -> list[Source]:
        """One source for each decoder: of every passage where passages are weighed."""
        texts = [passage.text for passage in passages]
        if self.params.is_marginal and texts:
            return [Source(question, (text,)) for text in texts]
        return [Source(question, tuple(texts))]

    def answer(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        *,
        progress: Progress | None = None,
    ) -> list[Answer]:
        used = [tuple(found[: self.params.passages]) for found in passages]
        sources = [self.sources(q, found) for q, found in zip(questions, used, strict=True)]
        costs = [[self.cost(source) for source in own] for own in sources]
        answers: dict[int, Answer] = {}
        for batch in question_batches(costs, self.params.batch_tokens):
            readings = self._read([sources[i] for i in batch], [used[i] for i in batch])
            for i, reading in zip(batch, readings, strict=True):
                answers[i] = self._as_answer(reading, used[i])
            give_back()
            if progress is not None:
                progress(len(batch))
        return [answers[i] for i in range(len(used))]

    def _declines(self, ids: TokenIds) -> bool:
        return is_refusal(self.tokenizer.decode(ids, skip_special_tokens=True).strip())

    def _as_answer(self, reading: Reading, passages: Sequence[Passage]) -> Answer:
        text = self.tokenizer.decode(reading.ids, skip_special_tokens=True).strip()
        refused = is_refusal(text)
        if self.params.verbatim and self.end_id not in reading.ids:
            text = whole_words(text)
        return Answer(
            text="" if refused else clean_answer(text),
            score=reading.mean_log_probability,
            abstained=refused,
            evidence=as_evidence(passages, reading.posterior),
        )

    def _read(
        self, sources: Sequence[Sequence[Source]], passages: Sequence[Sequence[Passage]]
    ) -> list[Reading]:
        """One reading a question, by the fusion that params name."""
        if not self.params.is_marginal or not any(passages):
            first = [own[0] for own in sources]
            found = self._search(self.steps(first), [source.passages for source in first])
            return [Reading(best[0].ids, best[0].mean_log_probability) for best in found]
        import torch

        width = max(map(len, sources))
        # Every question gets as many sources as the widest: the added ones have no weight.
        flat = [own[min(k, len(own) - 1)] for own in sources for k in range(width)]
        steps = self.steps(flat)
        prior = self.weighed(self.log_prior(passages, width), steps)
        if self.params.fusion == "rag_token":
            texts = [[text for source in own for text in source.passages] for own in sources]
            mixed = self._search(Mixture(steps, prior), texts)
            answers = [best[0] for best in mixed]
            likelihood = self._likelihood(flat, [one.ids for one in answers], width)
            weights = log_posterior(prior, likelihood).exp().tolist()
            return [
                Reading(one.ids, one.mean_log_probability, tuple(own))
                for one, own in zip(answers, weights, strict=True)
            ]
        apart = self._search(steps, [source.passages for source in flat])
        rows = [apart[i * width : (i + 1) * width] for i in range(len(sources))]
        with torch.inference_mode():
            return self._best_of(flat, rows, prior)

    def _search(self, steps: Steps, texts: Sequence[Sequence[str]]) -> list[list[Hypothesis]]:
        """Answers by beam search; `texts` are what those of each source may be copied from."""
        if self.params.verbatim:
            steps = Copied(
                steps,
                texts,
                self._vocabulary(),
                end_id=self.end_id,
                first_ids=self.first_ids,
                may_refuse=self.may_refuse,
            )
        elif not self.may_refuse:
            steps = Barred(steps, self.answer_ids("")[len(self.first_ids)])
        return beam_search(
            steps,
            end_id=self.end_id,
            max_new_tokens=self.params.max_answer_tokens,
            beams=self.params.beams,
        )

    def _vocabulary(self) -> Vocabulary:
        if self._known_vocabulary is None:
            self._known_vocabulary = vocabulary_of(self.tokenizer)
        return self._known_vocabulary

    def _best_of(
        self,
        sources: Sequence[Source],
        found: Sequence[Sequence[Sequence[Hypothesis]]],
        prior: torch.Tensor,
    ) -> list[Reading]:
        """RAG-Sequence: the candidate of the highest p(y|x) of each question.

        `thorough` asks every passage how likely every candidate is; `fast` takes a candidate that a
        passage's own beams did not find as impossible given that passage (Lewis et al. 2020, 2.5).
        A passage that declines says that the answer is not in it, not that there is none: only
        where every passage declines does the question go without an answer.
        """
        import torch

        width = prior.shape[1]
        known = [
            {
                (k, one.ids): sum(one.log_probabilities)
                for k, beams in enumerate(row)
                for one in beams
            }
            for row in found
        ]
        pairs = [
            (i, k, ids)
            for i, scores in enumerate(known)
            for ids in dict.fromkeys(ids for _, ids in scores)
            for k in range(width)
            if (k, ids) not in scores
        ]
        if self.params.decoding == "thorough" and pairs:
            asked = self.token_log_probabilities(
                [sources[i * width + k] for i, k, _ in pairs], [ids for _, _, ids in pairs]
            )
            for (i, k, ids), tokens in zip(pairs, asked, strict=True):
                known[i][k, ids] = float(tokens.sum())
        readings = []
        for i, scores in enumerate(known):
            candidates = list(dict.fromkeys(ids for _, ids in scores))
            candidates = [ids for ids in candidates if not self._declines(ids)] or candidates
            table = torch.tensor(
                [[scores.get((k, ids), -torch.inf) for k in range(width)] for ids in candidates]
            )
            weights = prior[i].cpu().expand_as(table)
            totals = rag_sequence(weights, table)
            best = int(totals.argmax())
            posterior = log_posterior(weights, table)[best].exp().tolist()
            ids = candidates[best]
            readings.append(Reading(ids, float(totals[best]) / len(ids), tuple(posterior)))
        return readings

    def log_prior(self, passages: Sequence[Sequence[Passage]], width: int) -> torch.Tensor:
        """log p(z|x) by retrieval alone, shape (B, width); -inf where there is no passage."""
        return passage_prior(passages, width, self.prior_temperature).to(self.device)

    def weighed(self, prior: torch.Tensor, steps: Steps) -> torch.Tensor:
        """That prior (B, K) with what the reader, at its steps over B · K sources, knows itself."""
        return prior

    def _likelihood(
        self, sources: Sequence[Source], answers: Sequence[TokenIds], width: int
    ) -> torch.Tensor:
        """log p(y|x,z), shape (B, width): one answer a question, given each of its sources."""
        import torch

        with torch.inference_mode():
            tokens = self.token_log_probabilities(
                sources, [answers[i // width] for i in range(len(sources))]
            )
            return torch.stack([one.sum() for one in tokens]).view(-1, width)

    def log_likelihood(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[str],
    ) -> Array:
        wanted = [self.answer_ids(answer) for answer in answers]
        return self._by_passage(questions, passages, wanted, self.token_log_probabilities)

    def _by_passage(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[TokenIds],
        ask: Callable[[Sequence[Source], Sequence[TokenIds]], list[torch.Tensor]],
    ) -> Array:
        """The sum of what `ask` says of a question's tokens given each passage, (B, K)."""
        import torch

        table = np.full((len(questions), max(map(len, passages))), -np.inf, dtype=np.float32)
        cells = [(i, k) for i, found in enumerate(passages) for k in range(len(found))]
        sources = [Source(questions[i], (passages[i][k].text,)) for i, k in cells]
        wanted = [answers[i] for i, _ in cells]
        costs = [[self.cost(*pair)] for pair in zip(sources, wanted, strict=True)]
        with torch.inference_mode():
            for batch in question_batches(costs, self.params.batch_tokens):
                found = ask([sources[j] for j in batch], [wanted[j] for j in batch])
                for j, tokens in zip(batch, found, strict=True):
                    table[cells[j]] = float(tokens.sum())
        return table
