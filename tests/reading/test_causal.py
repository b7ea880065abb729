"""The causal reader against plain transformers, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from rag.reading.causal import CausalReader
from rag.reading.generation import generate
from rag.reading.packing import Prompt, pack
from rag.reading.prompts import REFUSAL, passages_part
from rag.records import Evidence, Passage

MakePassage = Callable[[str], Passage]
TEXTS = (
    "The Seafox sails from Elgin under Captain Marlow.",
    "Every March the Tidestar is docked for 9 days. It is painted then.",
    "The Galebird sails.",
)
ASKED = ("Who commands the Seafox?", "Under whom does it sail?", "What did the anchor cost?")


def prompts_of_three_lengths(reader: CausalReader) -> list[Prompt]:
    """Three questions on the first passage, two on the second, one without any, one on all."""
    prompts = [reader.prompt(question, [TEXTS[0]]) for question in ASKED]
    prompts += [reader.prompt(question, [TEXTS[1]]) for question in ASKED[:2]]
    return [*prompts, reader.prompt(ASKED[0], []), reader.prompt(ASKED[2], TEXTS)]


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
    prompts = prompts_of_three_lengths(causal)
    answers = [causal.answer_ids(a) for a in ("Captain Marlow", "Elgin", "", "9 days", "x", "", "")]
    rows = pack(prompts, answers, 150)
    assert len(rows) > 2
    assert len({row.length for row in rows}) > 2
    assert max(len(row.members) for row in rows) > 1
    lengths = [[len(answers[member]) for member in row.members] for row in rows]
    with torch.inference_mode():
        packed = causal.answer_log_probabilities(rows, lengths)
    members = [member for row in rows for member in row.members]
    expected = [
        plain_log_probabilities(causal.model, alone(prompts[i]) + answers[i], len(answers[i]))
        for i in members
    ]
    torch.testing.assert_close(packed, torch.cat(expected), atol=1e-4, rtol=0)


def test_generation_is_that_of_each_prompt_alone(causal: CausalReader) -> None:
    prompts = prompts_of_three_lengths(causal)
    rows = pack(prompts, [()] * len(prompts), 150)
    # The end takes the place of a token that the first answer has and others have not.
    token = generate(causal, rows, 12)[0][0][2]
    with torch.no_grad():
        head = causal.model.lm_head.weight
        head[causal.tokenizer.eos_token_id] = 1.01 * head[token]
    generated = generate(causal, rows, 12)
    assert sorted(generated) == list(range(len(prompts)))
    assert len(generated[0][0]) <= 3
    assert max(len(ids) for ids, _ in generated.values()) == 12
    for i, prompt in enumerate(prompts):
        ids = alone(prompt)
        with torch.inference_mode():
            whole = causal.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=12,
            )[0].tolist()
        tokens, score = generated[i]
        assert tokens == whole[len(ids) :]
        mean = plain_log_probabilities(causal.model, whole, len(tokens)).mean()
        assert score == pytest.approx(float(mean), abs=1e-4)


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
        ids = alone(causal.prompt(ASKED[i], [passages[i][k].text])) + wanted
        expected = plain_log_probabilities(causal.model, ids, len(wanted)).sum()
        assert table[i, k] == pytest.approx(float(expected), abs=1e-3)


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


def test_a_refusal_is_an_abstention(causal: CausalReader, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {0: causal.answer_ids(f" {REFUSAL.title()}."), 1: causal.answer_ids("Elgin.\nYes")}
    monkeypatch.setattr("rag.reading.causal.generate", lambda *_: {i: (ids[i], -0.5) for i in ids})
    refused, given = causal.answer(ASKED[:2], [[], []])
    assert (refused.text, refused.abstained, refused.score) == ("", True, -0.5)
    assert (given.text, given.abstained) == ("Elgin", False)


# prompts


def text(reader: CausalReader, ids: Sequence[int]) -> str:
    decoded: str = reader.tokenizer.decode(list(ids))
    return decoded


def test_prompt_without_a_chat_template(causal: CausalReader) -> None:
    prompt = causal.prompt("Who?", ["One.", "Two."])
    assert text(causal, prompt.shared) == passages_part(["One.", "Two."])
    assert text(causal, prompt.own) == "Question: Who?\nAnswer:"


def test_closed_book_prompt_has_no_passages(causal: CausalReader) -> None:
    prompt = causal.prompt("Who?", [])
    assert text(causal, prompt.shared) == passages_part([])


def test_prompt_with_a_chat_template(causal: CausalReader) -> None:
    causal.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"
    )
    prompt = causal.prompt("Who?", ["One."])
    assert text(causal, prompt.shared) == f"<system></><user>{passages_part(['One.'])}"
    assert text(causal, prompt.own) == "Question: Who?</><assistant>"
    assert text(causal, causal.prompt("Who?", []).shared).startswith("<system></><user>Answer")


def test_passages_are_cut_to_fit_and_the_question_is_kept(causal: CausalReader) -> None:
    limit = causal.params.max_prompt_tokens
    whole = causal.prompt(ASKED[0], TEXTS[:1])
    cut = causal.prompt(ASKED[0], TEXTS * 9)
    assert cut.own == whole.own
    assert len(cut.shared) + len(cut.own) == limit
    assert text(causal, cut.shared).startswith(passages_part(TEXTS[:1]))


def test_a_question_longer_than_the_prompt_leaves_no_room_for_passages(
    causal: CausalReader,
) -> None:
    assert causal.prompt("Who " * 200, TEXTS * 9).shared == ()


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
