"""End-to-end training: what the reader makes of a passage teaches the query encoder to find it.

    score(x, z) = w E_q(x)·E_p(z) + (1 - w) bm25(x, z) / bm25_scale    as `rag.retrieval.fusion`
    log p(z|x)  = log_softmax_k( score(x, z) / temperature )

has gradient in E_q(x), and so has -log p(y|x), the sum over the passages read (`marginal`: Lewis et
al. 2020, RAG). Or the prior learns to be what the reader's likelihoods say (`distillation`: Izacard
et al. 2022, Atlas), and the reader is trained by the same sum with a prior without gradient.

Passages stay as they are, and with them the index. Each step scores the `retrieve.top_k` candidates
of its questions with the encoder as it stands and reads the best `reader.passages` (Atlas' scoring
of more passages than are read). Where none of these answers a train question, the best candidate
that does takes the last place, as in `rag.finetune.examples`. A question that is to be refused
teaches the reader alone: no passage is better for not holding an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rag.artifacts import QUERY_ENCODER, Artifacts
from rag.errors import TrainingError
from rag.finetune.bi_encoder import BiEncoder, movement
from rag.finetune.candidates import (
    CandidateScorer,
    best_first,
    gold_posterior,
    ranking_metrics,
    read_places,
)
from rag.finetune.examples import ReadingExample, dev_metrics
from rag.finetune.trainable import Loss, Trainable
from rag.params import Params, RetrieverParams
from rag.reading.abstention import AnswerScore
from rag.reading.answerer import load_encoder
from rag.reading.marginal import distillation_loss, log_prior
from rag.records import Answer
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.encoder import write_manifest
from rag.retrieval.fusion import Fusion
from rag.weights import Weights

if TYPE_CHECKING:
    import torch

    from rag.finetune.reader import ReadingData

PREFIX = "query_encoder."
"""Before the encoder's names among all that is trained."""
#: Dev questions that are scored at a time.
_WINDOW = 256


class MarginalTraining(Trainable, Protocol):
    """The training of a reader that weighs passages by a prior."""

    def loss_with_prior(
        self,
        batch: Sequence[int],
        prior: torch.Tensor,
        chosen: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Loss, torch.Tensor]:
        """The marginal loss by log p(z|x) (B, K), and log p(y|x,z) (B, K).

        `chosen` has the places of the passages that are read, among those of each example.
        """

    def answered_from(self, position: int) -> Sequence[int]:
        """Places of the passages of an example that its answer can be read from."""

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as the reader stands now."""

    def save(self, folder: Path) -> None:
        """Writes the tuned weights, as safetensors, below `folder`."""

    def serve(self, reader: Any) -> None:
        """Answers with `reader` from here on."""


class EndToEndTraining:
    """A `ReaderTraining` around another one, which it gives its passages and their prior.

    Examples hold all candidates, best first by the encoder as it was. `base` is the model that
    params name, from which it came.
    """

    def __init__(
        self,
        reader: MarginalTraining,
        encoder: BiEncoder,
        scorer: CandidateScorer,
        *,
        params: Params,
        data: ReadingData,
        scores: Mapping[str, AnswerScore],
        base: Weights,
    ) -> None:
        if params.reader.end_to_end is None:
            raise ValueError("reader.end_to_end is not set")
        self._reader = reader
        self._encoder = encoder
        self._scorer = scorer
        self._params = params.reader
        self._retriever = params.retriever
        self._base = base
        self._settings = params.reader.end_to_end
        self._temperature = data.prior_temperature
        self._scores = scores
        self._dev = data.dev
        self._train = {example.question.question_id: example for example in data.train}
        self._terms = {
            example.question.question_id: scorer.terms(example)
            for example in (*data.train, *data.dev)
        }
        if not any(self._teaches(example) for example in data.train):
            raise TrainingError(
                "reader.end_to_end: no train question has a passage that answers it and a language "
                "whose fusion rule counts dense similarity (dense_weight above 0 in fusion.json), "
                "so nothing would reach the query encoder; set retrieve.dense_weights without 0, "
                "or reader.end_to_end: null"
            )
        self._before = self._ranking_facts()

    def _teaches(self, example: ReadingExample) -> bool:
        terms = self._terms[example.question.question_id]
        return bool(example.target) and terms.weight > 0.0 and bool(terms.relevant.any())

    # the loop's side: both models as one

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        own = {f"{PREFIX}{name}": p for name, p in self._encoder.parameters().items()}
        return {**self._reader.parameters(), **own}

    def rates(self) -> Mapping[str, float]:
        rate = self._settings.learning_rate / self._params.training.learning_rate
        own = {f"{PREFIX}{name}": rate for name in self._encoder.parameters()}
        return {**self._reader.rates(), **own}

    def models(self) -> Sequence[torch.nn.Module]:
        return [*self._reader.models(), self._encoder.model]

    def epoch_batches(self, epoch: int, seed: int) -> Sequence[Sequence[int]]:
        return self._reader.epoch_batches(epoch, seed)

    def names(self, batch: Sequence[int]) -> Sequence[str]:
        return self._reader.names(batch)

    def size(self, batch: Sequence[int]) -> int:
        return self._reader.size(batch)

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return self._reader.halves(batch)

    def train_mode(self, training: bool) -> None:
        self._reader.train_mode(training)
        self._encoder.train_mode(training)

    # learning

    def loss(self, batch: Sequence[int]) -> Loss:
        import torch

        examples = [self._train[name] for name in self._reader.names(batch)]
        queries = self._encoder.embed([example.question.text for example in examples], "query")
        prior, chosen = self._prior(queries, batch, examples)
        teaching = torch.tensor([bool(example.target) for example in examples])
        teaching = teaching.to(prior.device)
        if self._settings.objective == "marginal":
            # Without its gradient the prior of a refused question still weighs its passages.
            prior = torch.where(teaching[:, None], prior, prior.detach())
            return self._reader.loss_with_prior(batch, prior, chosen)[0]
        loss, likelihood = self._reader.loss_with_prior(batch, prior.detach(), chosen)
        taught = distillation_loss(prior, likelihood.to(prior.device))
        taught = torch.where(teaching, taught, 0.0).sum()
        return replace(loss, total=loss.total + taught.to(loss.total.device))

    def _prior(
        self, queries: torch.Tensor, batch: Sequence[int], examples: Sequence[ReadingExample]
    ) -> tuple[torch.Tensor, list[list[int]]]:
        """log p(z|x) (B, K) of the passages to read, and their places among the candidates.

        `queries` are the questions' vectors (B, D). No question is left without a passage that it
        can be answered from.
        """
        import torch

        terms = [self._terms[example.question.question_id] for example in examples]
        scores = self._scorer.scores(queries, terms)
        chosen = [
            read_places(own, self._params.passages, of.relevant, self._reader.answered_from(i))
            for own, of, i in zip(scores.tolist(), terms, batch, strict=True)
        ]
        width = max(map(len, chosen))
        # An absent passage is found one column after the last.
        padded = torch.nn.functional.pad(scores, (0, 1), value=-torch.inf)
        absent = scores.shape[1]
        places = [[*own, *[absent] * (width - len(own))] for own in chosen]
        gathered = padded.gather(1, torch.tensor(places, device=scores.device))
        return log_prior(gathered, self._temperature), chosen

    # watching

    def evaluate(self) -> Mapping[str, float]:
        """The reader's dev metrics over passages of the encoder as it stands; then the encoder's.

        Of the answerable dev questions, in percent: `dev_recall@1` and `dev_mrr` over the
        candidates, `dev_gold_prior`, the mean of p(z|x) of the passages that answer, and
        `dev_gold_posterior`, of their p(z|x,y) for the answer that was given.
        """
        shown = self.rescored(self._dev)
        answers = self._reader.answer(shown)
        found = {**self._ranking(shown), **gold_posterior(answers, shown)}
        return {
            **dev_metrics(answers, shown, self._scores),
            **{f"dev_{name}": value for name, value in found.items()},
        }

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as reader and encoder stand now."""
        return self._reader.answer(self.rescored(examples))

    def rescored(self, examples: Sequence[ReadingExample]) -> list[ReadingExample]:
        """The examples with their candidates as the encoder ranks them now; no gradient."""
        import torch

        found: list[ReadingExample] = []
        for start in range(0, len(examples), _WINDOW):
            window = examples[start : start + _WINDOW]
            terms = [self._terms[example.question.question_id] for example in window]
            queries = self._encoder.encode([example.question.text for example in window], "query")
            scores = self._scorer.scores(torch.from_numpy(queries), terms).tolist()
            for example, own in zip(window, scores, strict=True):
                passages = tuple(
                    replace(example.passages[place], score=own[place], rank=rank)
                    for rank, place in enumerate(best_first(own[: len(example.passages)]), start=1)
                )
                found.append(replace(example, passages=passages))
        return found

    def _ranking(self, shown: Sequence[ReadingExample]) -> dict[str, float]:
        return ranking_metrics(shown, self._params.passages, self._temperature)

    def _ranking_facts(self) -> dict[str, float]:
        found = self._ranking(self.rescored(self._dev))
        return {name: round(value, 4) for name, value in found.items()}

    def facts(self) -> dict[str, Any]:
        """What came of it: how far the encoder moved, and how it ranks dev's candidates now."""
        return {
            "objective": self._settings.objective,
            "learning_rate": self._settings.learning_rate,
            "movement": movement(self._encoder.base, self._encoder.state()),
            "dev": {"before": self._before, "after": self._ranking_facts()},
        }

    def save(self, folder: Path) -> None:
        """The reader's weights, and in `query_encoder/` a sentence-transformers folder."""
        self._reader.save(folder)
        self._encoder.save(folder / QUERY_ENCODER)
        write_manifest(folder / QUERY_ENCODER, self._retriever, self._base, "tuned")

    def serve(self, reader: Any) -> None:
        """From here on answers are those of `reader`, from passages that the encoder ranks."""
        self._reader.serve(reader)


def end_to_end_training(
    params: Params,
    artifacts: Artifacts,
    reader: MarginalTraining,
    data: ReadingData,
    scores: Mapping[str, AnswerScore],
) -> EndToEndTraining:
    """`reader` together with the query encoder as train_retriever left it."""
    serving = load_encoder(artifacts, params)
    embeddings = read_embeddings(artifacts.embeddings)
    if embeddings.facts.encoder != serving.passage_fingerprint:
        raise TrainingError(
            f"{artifacts.embeddings} is of another passage encoder than {artifacts.retriever}; "
            "run: dvc repro train_reader"
        )
    encoder = BiEncoder(_as_trained_here(params), serving.weights_of("query"), params.seed)
    scorer = CandidateScorer(embeddings, Fusion.read(artifacts.fusion))
    return EndToEndTraining(
        reader, encoder, scorer, params=params, data=data, scores=scores, base=serving.weights
    )


def _as_trained_here(params: Params) -> RetrieverParams:
    """The retriever's params: all weights trained, in the precision of the reader's training."""
    training = params.retriever.training.model_copy(
        update={"lora": None, "precision": params.reader.training.precision}
    )
    return params.retriever.model_copy(update={"training": training})
