"""The causal reader against plain transformers, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rag.params import ReaderParams
from rag.reading.abstention import is_supported
from rag.reading.beam import beam_search
from rag.reading.causal import CausalReader
from rag.reading.generative import Reading, Source, TokenIds
from rag.reading.packing import Prompt, pack
from rag.reading.prompts import REFUSAL, Example, conversation
from rag.records import Evidence, Passage

MakePassage = Callable[[str], Passage]
TEXTS = (
    "The Seafox sails from Elgin under Captain Marlow.",
    "Every March the Tidestar is docked for 9 days. It is painted then.",
    "The Galebird sails.",
)
ASKED = ("Who commands the Seafox?", "Under whom does it sail?", "What did the anchor cost?")
#: Three questions on the first passage, two on the second, one without any, one on all.
SOURCES = (
    *(Source(question, TEXTS[:1]) for question in ASKED),
    *(Source(question, TEXTS[1:2]) for question in ASKED[:2]),
    Source(ASKED[0], ()),
    Source(ASKED[2], TEXTS),
)


def alone(prompt: Prompt) -> list[int]:
    return [*prompt.shared, *prompt.own]


def plain_log_probabilities(model: torch.nn.Module, ids: list[int], count: int) -> torch.Tensor:
    """log p of the last `count` tokens by the model's own forward pass, shape (count,)."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    places = torch.arange(len(ids) - count - 1, len(ids) - 1)
    picked: torch.Tensor = logits[places, torch.tensor(ids[-count:])]
    return picked


def test_packed_log_probabilities_are_those_of_each_prompt_alone(causal: CausalReader) -> None:
    prompts = [causal.prompt(source) for source in SOURCES]
    answers = [causal.answer_ids(a) for a in ("Captain Marlow", "Elgin", "", "9 days", "x", "", "")]
    rows = pack(prompts, answers, 1024)
    assert len(rows) > 2
    assert len({row.length for row in rows}) > 2
    assert max(len(row.members) for row in rows) > 1
    with torch.inference_mode():
        found = causal.token_log_probabilities(SOURCES, answers)
    for prompt, answer, tokens in zip(prompts, answers, found, strict=True):
        ids = alone(prompt) + list(answer)
        expected = plain_log_probabilities(causal.model, ids, len(answer))
        torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=0)


@pytest.fixture
def ending(causal: CausalReader) -> CausalReader:
    """A reader some of whose answers end early: the end is likelier than a token of the first."""
    [[first], *_] = beam_search(causal.steps(SOURCES), end_id=causal.end_id, max_new_tokens=12)
    with torch.no_grad():
        head = causal.model.lm_head.weight
        head[causal.end_id] = 1.01 * head[first.ids[2]]
    return causal


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_that_of_each_prompt_alone(ending: CausalReader, beams: int) -> None:
    generated = beam_search(
        ending.steps(SOURCES), end_id=ending.end_id, max_new_tokens=12, beams=beams
    )
    assert len(generated) == len(SOURCES)
    assert min(len(best[0].ids) for best in generated) <= 3
    assert max(len(best[0].ids) for best in generated) == 12
    for source, hypotheses in zip(SOURCES, generated, strict=True):
        ids = alone(ending.prompt(source))
        with torch.inference_mode():
            whole = ending.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                num_beams=beams,
                max_new_tokens=12,
            )[0].tolist()
        best = hypotheses[0]
        assert list(best.ids) == whole[len(ids) :]
        expected = plain_log_probabilities(ending.model, whole, len(best.ids))
        assert best.log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)


def test_log_likelihood_is_by_question_and_passage(
    causal: CausalReader, passage: MakePassage
) -> None:
    passages = [[passage(TEXTS[0]), passage(TEXTS[1])], [passage(TEXTS[2])]]
    answers = ["Captain Marlow", ""]
    table = causal.log_likelihood(ASKED[:2], passages, answers)
    assert table.shape == (2, 2)
    assert table[1, 1] == -np.inf
    for i, k in ((0, 0), (0, 1), (1, 0)):
        wanted = causal.answer_ids(answers[i])
        ids = alone(causal.prompt(Source(ASKED[i], (passages[i][k].text,)))) + list(wanted)
        expected = plain_log_probabilities(causal.model, ids, len(wanted)).sum()
        assert table[i, k] == pytest.approx(float(expected), abs=1e-3)


def test_the_query_likelihood_is_that_of_each_prompt_alone(
    causal: CausalReader, passage: MakePassage
) -> None:
    """All tokens from the question on but the first, whether read to answer or to calibrate."""
    expected = []
    for source in SOURCES:
        prompt = causal.prompt(source)
        tokens = plain_log_probabilities(causal.model, alone(prompt), len(prompt.own) - 1)
        expected.append(float(tokens.sum()))
    steps = causal.steps(SOURCES)
    assert steps.query_likelihood().tolist() == pytest.approx(expected, abs=1e-3)
    torch.testing.assert_close(steps.first(), causal.steps(SOURCES).first())
    passages = [[passage(TEXTS[0])], [passage(TEXTS[0]), passage(TEXTS[1])]]
    table = causal.query_log_likelihood(ASKED[:2], passages)
    assert table[[0, 1, 1], [0, 0, 1]] == pytest.approx([expected[i] for i in (0, 1, 4)], abs=1e-3)
    assert table[0, 1] == -np.inf


@pytest.mark.parametrize("fusion", ["rag_sequence", "rag_token"])
def test_passages_are_weighed_by_how_likely_they_make_the_question(
    causal_params: ReaderParams, tmp_path: Path, passage: MakePassage, fusion: str
) -> None:
    """With a weight that drowns the retrieval score, the answer is that of the likelier passage."""
    params = causal_params.model_copy(update={"fusion": fusion, "verbatim": False})
    plain = CausalReader(params, tmp_path, None)
    sure = CausalReader(params, tmp_path, None, query_likelihood=100.0)
    found = [[passage(TEXTS[0]), passage(TEXTS[1])] for _ in ASKED]
    table = plain.query_log_likelihood(ASKED, found)
    assert np.abs(table[:, 0] - table[:, 1]).min() > 0.5, "one passage is clearly likelier"
    chosen = [own[k] for own, k in zip(found, table.argmax(axis=1), strict=True)]
    expected = plain.answer(ASKED, [[one] for one in chosen])
    answers = sure.answer(ASKED, found)
    for answer, one, alone_found in zip(answers, chosen, expected, strict=True):
        posterior = {item.chunk_id: item.posterior for item in answer.evidence}
        assert posterior[one.chunk_id] == pytest.approx(1.0)
        if fusion == "rag_token":
            assert answer.text == alone_found.text


def test_answers_come_in_order_with_the_passages_that_were_read(
    causal: CausalReader, passage: MakePassage
) -> None:
    found = [[passage(text) for text in TEXTS], [], [passage(TEXTS[1])]]
    told: list[int] = []
    answers = causal.answer(ASKED, found, progress=told.append)
    assert [len(answer.evidence) for answer in answers] == [2, 0, 1]
    assert answers[2].evidence == (Evidence(f"chunk of {TEXTS[1]}", "d", TEXTS[1], 0.5, 1),)
    assert sum(told) == 3
    again = [
        causal.answer([question], [passages])[0]
        for question, passages in zip(ASKED, found, strict=True)
    ]
    assert [answer.text for answer in answers] == [answer.text for answer in again]
    assert [a.score for a in answers] == pytest.approx([a.score for a in again], abs=1e-4)


@pytest.mark.parametrize("fusion", ["concat", "rag_sequence", "rag_token"])
def test_answers_are_copied_where_params_say_so(
    causal_params: ReaderParams, tmp_path: Path, passage: MakePassage, fusion: str
) -> None:
    """A random model says what stands in no text; where it copies, it cannot."""
    found = [[passage(text) for text in TEXTS[:2]] for _ in ASKED]
    supported = {}
    for verbatim in (False, True):
        params = causal_params.model_copy(update={"verbatim": verbatim, "fusion": fusion})
        reader = CausalReader(params, tmp_path, None)
        answers = reader.answer(ASKED, found)
        # A single long word that was cut at the limit leaves nothing to say.
        supported[verbatim] = [
            is_supported(answer) or answer.abstained or not answer.text for answer in answers
        ]
    assert supported == {False: [False] * 3, True: [True] * 3}


def test_a_refusal_is_an_abstention(causal: CausalReader) -> None:
    def read(answer: str) -> TokenIds:
        return causal.answer_ids(answer)

    refused = causal._as_answer(Reading(read(f" {REFUSAL.title()}."), -0.5), ())
    given = causal._as_answer(Reading(read("Elgin.\nYes"), -0.5), ())
    assert (refused.text, refused.abstained, refused.score) == ("", True, -0.5)
    assert (given.text, given.abstained) == ("Elgin", False)


# prompts


def text(reader: CausalReader, ids: Sequence[int]) -> str:
    decoded: str = reader.tokenizer.decode(list(ids))
    return decoded


def shared(*passages: str) -> str:
    return conversation("Who?", passages).shared


def test_prompt_without_a_chat_template(causal: CausalReader) -> None:
    prompt = causal.prompt(Source("Who?", ("One.", "Two.")))
    assert text(causal, prompt.shared) == shared("One.", "Two.")
    assert text(causal, prompt.own) == "Question: Who?\nAnswer:"


def test_closed_book_prompt_has_no_passages(causal: CausalReader) -> None:
    assert text(causal, causal.prompt(Source("Who?", ())).shared) == shared()


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"


def test_prompt_with_a_chat_template(causal: CausalReader) -> None:
    causal.tokenizer.chat_template = CHAT
    prompt = causal.prompt(Source("Who?", ("One.",)))
    assert text(causal, prompt.shared) == f"<system></><user>{shared('One.')}"
    assert text(causal, prompt.own) == "Question: Who?</><assistant>"
    closed = causal.prompt(Source("Who?", ()))
    assert text(causal, closed.shared).startswith("<system></><user>Answer")


def test_worked_examples_are_earlier_turns_of_the_chat(
    causal_params: ReaderParams, tmp_path: Path
) -> None:
    example = Example("Where?", ("Elgin.",), "Elgin")
    reader = CausalReader(causal_params, tmp_path, None, examples=[example])
    reader.tokenizer.chat_template = CHAT
    prompt = reader.prompt(Source("Who?", ("One.",)))
    turn = f"<user>{shared('Elgin.')}Question: Where?</><assistant>Elgin</>"
    assert text(reader, prompt.shared) == f"<system></>{turn}<user>{shared('One.')}"


def test_passages_are_cut_to_fit_and_the_question_is_kept(causal: CausalReader) -> None:
    limit = causal.params.max_prompt_tokens
    whole = causal.prompt(Source(ASKED[0], TEXTS[:1]))
    cut = causal.prompt(Source(ASKED[0], TEXTS * 9))
    assert cut.own == whole.own
    assert len(cut.shared) + len(cut.own) == limit
    assert text(causal, cut.shared).startswith(shared(TEXTS[0]))


def test_a_question_longer_than_the_prompt_leaves_no_room_for_passages(
    causal: CausalReader,
) -> None:
    assert causal.prompt(Source("Who " * 200, TEXTS * 9)).shared == ()


def test_answer_ids_end_the_turn(causal: CausalReader) -> None:
    end = causal.tokenizer.eos_token_id
    ids = causal.answer_ids("Captain Marlow")
    assert text(causal, ids[:-1]) == "Captain Marlow"
    assert ids[-1] == end
    refusal = text(causal, causal.answer_ids("")[:-1])
    assert refusal
    assert REFUSAL.startswith(refusal)
    long = causal.answer_ids("Captain Marlow " * 20)
    assert len(long) == causal.params.max_answer_tokens
    assert long[-1] == end
