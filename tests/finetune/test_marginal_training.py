"""Readers that weigh passages: losses and decoding against the formulas written out slowly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rag.finetune.generative import GenerativeReaderTraining
from rag.reading.beam import Hypothesis
from rag.reading.generative import Source
from rag.reading.prompts import REFUSAL
from tests.finetune.generative_toy import (
    ASKED,
    PASSAGES,
    PRIOR,
    plain_log_p,
    question_log_p,
    tokens_log_p,
)

ANSWERED, REFUSED = Hypothesis((5, 1), (-0.6, -0.4)), Hypothesis((6, 1), (-0.05, -0.05))


@pytest.mark.parametrize("fusion", ["rag_sequence", "rag_token"])
def test_a_marginal_loss_is_the_formula_written_out(
    make: Callable[..., GenerativeReaderTraining], fusion: str
) -> None:
    training = make("reader.passages=2", f"reader.fusion={fusion}")
    expected = 0.0
    for (question, answer), first in zip(ASKED, (0, 0, 1), strict=True):
        apart = [
            plain_log_p(training._reader, question, PASSAGES[k], answer).exp()
            for k in (first, 1 - first)
        ]
        if fusion == "rag_sequence":
            p = sum(w * float(one.prod()) for w, one in zip(PRIOR, apart, strict=True))
        else:
            mixed = sum(w * one for w, one in zip(PRIOR, apart, strict=True))
            p = float(torch.as_tensor(mixed).prod())
        expected -= math.log(p)
    assert training.loss([0, 1, 2]).total.item() == pytest.approx(expected, abs=1e-3)


def test_a_passage_without_the_answer_learns_to_decline(
    make: Callable[..., GenerativeReaderTraining],
) -> None:
    """Each of the two answerable questions has one; the unanswerable one is the marginal's own."""
    plain = make("reader.passages=2", "reader.fusion=rag_sequence").loss([0, 1, 2])
    training = make(
        "reader.passages=2", "reader.fusion=rag_sequence", "reader.training.refusal_weight=0.5"
    )
    reader = training._reader
    refusals = [
        plain_log_p(reader, ASKED[0][0], PASSAGES[1], ""),
        plain_log_p(reader, ASKED[2][0], PASSAGES[0], ""),
    ]
    loss = training.loss([0, 1, 2])
    added = -0.5 * sum(float(tokens.sum()) for tokens in refusals)
    assert loss.total.item() == pytest.approx(plain.total.item() + added, abs=1e-3)
    assert loss.weight == plain.weight + 0.5 * sum(map(len, refusals))


@pytest.mark.parametrize("fusion", ["concat", "rag_sequence"])
def test_a_question_is_learnt_from_the_passage_that_answers_it(
    make: Callable[..., GenerativeReaderTraining], fusion: str
) -> None:
    """Beside the answers, of one passage each; not one that its passage does not answer."""
    plain = make("reader.passages=1").loss([0, 1, 2])
    training = make(
        "reader.passages=1", f"reader.fusion={fusion}", "reader.training.question_weight=0.25"
    )
    reader = training.reader
    asked = [question_log_p(reader, ASKED[i][0], PASSAGES[k]) for i, k in ((0, 0), (2, 1))]
    loss = training.loss([0, 1, 2])
    added = -0.25 * sum(float(tokens.sum()) for tokens in asked)
    assert loss.total.item() == pytest.approx(plain.total.item() + added, abs=1e-3)
    assert loss.weight == plain.weight + 0.25 * sum(map(len, asked))


def test_one_passage_that_declines_does_not_outvote_another(
    make: Callable[..., GenerativeReaderTraining],
) -> None:
    """The refusal is the likelier string; it is given only where both passages decline."""
    reader = make("reader.passages=2", "reader.fusion=rag_sequence", "reader.decoding=fast")._reader
    reader.tokenizer.decode = lambda ids, **_: REFUSAL if ids == REFUSED.ids else "Elgin"
    prior = torch.tensor([[0.3, 0.7]]).log()
    sources = [Source("Where?", (text,)) for text in PASSAGES]
    [mixed] = reader._best_of(sources, [[[ANSWERED], [REFUSED]]], prior)
    assert mixed.ids == ANSWERED.ids
    assert mixed.mean_log_probability == pytest.approx((math.log(0.3) - 1.0) / 2)
    [declined] = reader._best_of(sources, [[[REFUSED], [REFUSED]]], prior)
    assert declined.ids == REFUSED.ids


@pytest.mark.parametrize("fusion", ["rag_sequence", "rag_token"])
def test_marginal_decoding_weighs_every_passage(
    make: Callable[..., GenerativeReaderTraining], fusion: str
) -> None:
    """The confidence is that of the formula, and so is the posterior of each passage."""
    training = make("reader.passages=2", f"reader.fusion={fusion}")
    reader = training._reader
    [answer, *_] = reader.answer([ASKED[0][0]], [training._examples[0].passages])
    readings = reader._read(
        [reader.sources(ASKED[0][0], training._examples[0].passages)],
        [training._examples[0].passages],
    )
    ids = readings[0].ids
    apart = [tokens_log_p(reader, ASKED[0][0], passage, ids).exp() for passage in PASSAGES]
    joint = [w * float(one.prod()) for w, one in zip(PRIOR, apart, strict=True)]
    total = (
        sum(joint)
        if fusion == "rag_sequence"
        else float((PRIOR[0] * apart[0] + PRIOR[1] * apart[1]).prod())
    )
    assert answer.score == pytest.approx(math.log(total) / len(ids), abs=1e-3)
    shares = [evidence.posterior for evidence in answer.evidence]
    assert shares == pytest.approx([one / sum(joint) for one in joint], abs=1e-3)


def test_fast_decoding_takes_only_what_a_passage_itself_found(
    make: Callable[..., GenerativeReaderTraining],
) -> None:
    """With one beam each passage finds one answer; thorough also asks the other passage for it."""
    scores = {}
    for decoding in ("fast", "thorough"):
        training = make(
            "reader.passages=2", "reader.fusion=rag_sequence", f"reader.decoding={decoding}"
        )
        [answer] = training._reader.answer([ASKED[0][0]], [training._examples[0].passages])
        scores[decoding] = answer
    assert {evidence.posterior for evidence in scores["fast"].evidence} == {0.0, 1.0}
    assert min(float(e.posterior or 0.0) for e in scores["thorough"].evidence) > 0.0
    assert scores["thorough"].score > scores["fast"].score
