"""The seq2seq reader against plain transformers, one source at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from rag.reading.beam import beam_search
from rag.reading.generative import Source, TokenIds
from rag.reading.seq2seq import Seq2SeqReader
from rag.records import Passage

MakeReader = Callable[..., Seq2SeqReader]
MakePassage = Callable[[str], Passage]
KINDS = ("bart", "t5", "pair", "narrow")
PASSAGES = (
    "The Seafox sails from Elgin under Captain Marlow.",
    "Every March the Seafox is docked for 9 days.",
    "It is painted then.",
)
LENGTH = 8
ASKED = ("Who commands the Seafox?", "What did it cost?")
SOURCES = (
    Source(ASKED[0], PASSAGES[:1]),
    Source(ASKED[0], PASSAGES),
    Source(ASKED[1], ()),
    Source(ASKED[1], PASSAGES[1:]),
)


def plain_states(reader: Seq2SeqReader, inputs: TokenIds) -> torch.Tensor:
    """The encoder's own output for one input, shape (1, S, H)."""
    ids = torch.tensor([inputs])
    states: torch.Tensor = reader.model.get_encoder()(
        input_ids=ids, attention_mask=torch.ones_like(ids)
    ).last_hidden_state
    return states


def plain_log_probabilities(
    reader: Seq2SeqReader, source: Source, answer: TokenIds
) -> torch.Tensor:
    """log p of an answer by the model's own forward pass, shape (T,)."""
    states = torch.cat([plain_states(reader, ids) for ids in reader.inputs(source)], dim=1)
    with torch.inference_mode():
        logits = reader.model(
            encoder_outputs=BaseModelOutput(states),
            attention_mask=torch.ones(states.shape[:2]),
            decoder_input_ids=torch.tensor([[reader.start_id, *answer[:-1]]]),
        ).logits[0]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


# likelihood


@pytest.mark.parametrize("fusion", ["concat", "fid"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_each_source_alone(
    kind: str, fusion: str, make_seq2seq: MakeReader
) -> None:
    reader = make_seq2seq(kind, f"reader.fusion={fusion}", "reader.batch_tokens=200")
    # A source that comes twice, answers of different lengths, and more than one batch.
    sources = [*SOURCES, SOURCES[1]]
    answers = [reader.answer_ids(a) for a in ("Elgin", "Captain Marlow", "", "9 days", "9")]
    assert len({len(own) for own in answers}) > 2
    with torch.inference_mode():
        found = reader.token_log_probabilities(sources, answers)
    for source, answer, own in zip(sources, answers, found, strict=True):
        expected = plain_log_probabilities(reader, source, answer)
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_matrix_is_applied_to_answer_tokens_alone(
    kind: str, make_seq2seq: MakeReader
) -> None:
    reader = make_seq2seq(kind)
    answers = [reader.answer_ids("Captain Marlow"), reader.answer_ids("9")]
    seen: list[int] = []
    output = reader.model.get_output_embeddings()
    output.register_forward_hook(lambda *event: seen.append(event[2].shape[:-1].numel()))
    with torch.inference_mode():
        reader.token_log_probabilities(SOURCES[:2], answers)
    assert seen == [len(answers[0]) + len(answers[1])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_reads_every_input_once(kind: str, make_seq2seq: MakeReader) -> None:
    reader = make_seq2seq(kind, "reader.fusion=fid")
    rows: list[int] = []
    reader.model.get_encoder().register_forward_pre_hook(
        lambda _module, _inputs, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    answers = [reader.answer_ids(a) for a in ("Elgin", "9", "", "9 days")]
    with torch.inference_mode():
        # The first passage of the second source is the whole of the first source.
        reader.token_log_probabilities([SOURCES[0], SOURCES[1], SOURCES[1], SOURCES[0]], answers)
    assert sum(rows) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_encoder_and_decoder(kind: str, make_seq2seq: MakeReader) -> None:
    """The loss of several answers of one source is differentiable through the shared states."""
    reader = make_seq2seq(kind, "reader.fusion=fid")
    answers = [reader.answer_ids("Elgin"), reader.answer_ids("9 days")]
    found = reader.token_log_probabilities([SOURCES[1]] * 2, answers)
    torch.cat(found).sum().backward()
    together = {n: p.grad.clone() for n, p in reader.model.named_parameters() if p.grad is not None}
    assert any("encoder" in name for name in together)
    reader.model.zero_grad()
    for answer in answers:
        reader.token_log_probabilities([SOURCES[1]], [answer])[0].sum().backward()
    for name, parameter in reader.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, together[name], atol=1e-3, rtol=1e-3)


def test_log_likelihood_is_by_question_and_passage(
    make_seq2seq: MakeReader, passage: MakePassage
) -> None:
    reader = make_seq2seq("bart", "reader.fusion=fid")
    passages = [[passage(PASSAGES[0]), passage(PASSAGES[1])], [passage(PASSAGES[2])]]
    answers = ["Captain Marlow", ""]
    table = reader.log_likelihood(ASKED, passages, answers)
    assert table.shape == (2, 2)
    assert table[1, 1] == -np.inf
    for i, k in ((0, 0), (0, 1), (1, 0)):
        source = Source(ASKED[i], (passages[i][k].text,))
        expected = plain_log_probabilities(reader, source, reader.answer_ids(answers[i])).sum()
        assert table[i, k] == pytest.approx(float(expected), abs=1e-3)


# answering


def generated(reader: Seq2SeqReader, source: Source, beams: int, end: int) -> list[list[int]]:
    """All beams by the model's own `generate`, without the start token and padding."""
    states = torch.cat([plain_states(reader, ids) for ids in reader.inputs(source)], dim=1)
    whole = reader.model.generate(
        encoder_outputs=BaseModelOutput(states),
        attention_mask=torch.ones(states.shape[:2]),
        decoder_input_ids=torch.tensor([[reader.start_id]]),
        max_new_tokens=reader.params.max_answer_tokens,
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
    )[:, 1:].tolist()
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in whole]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("fusion", ["concat", "fid"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_decode_as_the_model_alone(
    kind: str, fusion: str, beams: int, make_seq2seq: MakeReader
) -> None:
    reader = make_seq2seq(kind, f"reader.fusion={fusion}", f"reader.max_answer_tokens={LENGTH}")
    end = early_end(reader)
    found = beam_search(reader.steps(SOURCES), end_id=end, max_new_tokens=LENGTH, beams=beams)
    lengths = set()
    for source, hypotheses in zip(SOURCES, found, strict=True):
        assert [list(one.ids) for one in hypotheses] == generated(reader, source, beams, end)
        for one in hypotheses:
            lengths.add(len(one.ids))
            expected = plain_log_probabilities(reader, source, one.ids)
            assert one.log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)
    assert len(lengths) > 1


def early_end(reader: Seq2SeqReader) -> int:
    """A token to take for the end, with which answers become most different in length."""
    whole = beam_search(reader.steps(SOURCES), end_id=-1, max_new_tokens=LENGTH)
    answers = [one.ids for [one] in whole]

    def lengths(token: int) -> int:
        return len({ids.index(token) if token in ids else LENGTH for ids in answers})

    return max(sorted({token for ids in answers for token in ids}), key=lengths)


@pytest.mark.parametrize("fusion", ["concat", "fid", "rag_sequence", "rag_token"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_do_not_depend_on_who_is_asked_beside(
    kind: str, fusion: str, make_seq2seq: MakeReader, passage: MakePassage
) -> None:
    """Also a question without passages among others that have some."""
    reader = make_seq2seq(kind, f"reader.fusion={fusion}", "reader.beams=2")
    questions = [ASKED[0], ASKED[1], ASKED[1], ASKED[0]]
    found = [[passage(t) for t in texts] for texts in (PASSAGES, PASSAGES[:1], (), PASSAGES[1:])]
    answers = reader.answer(questions, found)
    assert [len(answer.evidence) for answer in answers] == [3, 1, 0, 2]
    for question, passages, answer in zip(questions, found, answers, strict=True):
        [alone] = reader.answer([question], [passages])
        assert answer.text == alone.text
        assert answer.score == pytest.approx(alone.score, abs=1e-4)
        weights = [one.posterior for one in answer.evidence]
        if not reader.params.is_marginal:
            assert weights == [None] * len(passages)
        elif passages:
            assert sum(w for w in weights if w is not None) == pytest.approx(1.0, abs=1e-5)


def test_the_order_of_passages_is_nothing_to_fid(make_seq2seq: MakeReader) -> None:
    """The decoder sees a set: this is what sets it apart from one long prompt."""
    turned = Source(ASKED[0], PASSAGES[::-1])
    for fusion, same in (("fid", True), ("concat", False)):
        reader = make_seq2seq("t5", f"reader.fusion={fusion}")
        answer = reader.answer_ids("Captain Marlow")
        with torch.inference_mode():
            first, second = reader.token_log_probabilities([SOURCES[1], turned], [answer] * 2)
        assert torch.allclose(first, second, atol=1e-4) is same
