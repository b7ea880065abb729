"""Answers that are copied: what decoding may write, and what it may not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from rag.errors import ModelError
from rag.reading.beam import beam_search
from rag.reading.causal import CausalReader
from rag.reading.copying import Copied, Vocabulary, vocabulary_of, whole_words
from rag.reading.prompts import REFUSAL
from rag.retrieval.relevance import contains

#: A token a letter, the space, one for "un", one for the whole refusal, and the end.
LETTERS = "abcdefghijklmnopqrstuvwxyz ."
TOKENS = [*LETTERS, "un", REFUSAL, "北", "京"]
END = len(TOKENS)
VOCABULARY = Vocabulary(
    {token.encode(): number for number, token in enumerate(TOKENS)}, 16, space_first=False
)


class Wished:
    """Steps of a model that wants to say `text` and then to stop, whatever it said before."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self._length = 0

    def first(self) -> torch.Tensor:
        return self._log_p()[:, 0]

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        self._length += 1
        return self._log_p().expand(-1, tokens.shape[1], -1)

    def _log_p(self) -> torch.Tensor:
        scores = torch.zeros(len(self._texts), 1, END + 1)
        for n, text in enumerate(self._texts):
            wished = text[self._length] if self._length < len(text) else None
            scores[n, 0, END if wished is None else TOKENS.index(wished)] = 5.0
        return scores.log_softmax(-1)


def written(wished: str, texts: Sequence[str], *, beams: int = 1, may_refuse: bool = True) -> str:
    steps = Copied(Wished(wished), [texts], VOCABULARY, end_id=END, may_refuse=may_refuse)
    [found] = beam_search(steps, end_id=END, max_new_tokens=30, beams=beams)
    return "".join(TOKENS[i] for i in found[0].ids if i != END)


TEXT = "the seafox sails under captain marlow."


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("wished", ["captain marlow", "sails", "seafox sails under", "marlow."])
def test_what_stands_in_a_text_can_be_said(wished: str, beams: int) -> None:
    assert written(wished, [TEXT], beams=beams) == wished


@pytest.mark.parametrize(
    ("wished", "said"),
    [
        ("captain morlow", "captain marlow"),  # it goes on where the text does
        ("sail", "sails"),  # and ends where a word does
    ],
)
def test_what_does_not_is_led_back_to_the_text(wished: str, said: str) -> None:
    assert written(wished, [TEXT]) == said


def test_no_answer_begins_within_a_word() -> None:
    """ "fox" stands in "seafox", but is no word of the text."""
    assert not written("fox", [TEXT]).startswith("fox")
    assert contains(TEXT, written("fox", [TEXT]))


def test_the_refusal_can_always_be_said_unless_it_is_barred() -> None:
    assert written(REFUSAL, [TEXT]) == REFUSAL
    barred = written(REFUSAL, [TEXT], may_refuse=False)
    assert contains(TEXT, barred)


def test_without_texts_everything_can_be_said() -> None:
    assert written("quite free", []) == "quite free"


def test_an_answer_comes_from_any_of_the_texts_but_from_one() -> None:
    texts = ["the seafox sails.", "the tidestar rests."]
    assert written("tidestar rests", texts) == "tidestar rests"
    crossed = written("seafox rests", texts)
    assert any(contains(text, crossed) for text in texts)


def test_every_character_of_an_unspaced_script_is_a_word() -> None:
    assert written("京", ["北京"]) == "京"


def test_probabilities_stay_the_model_s_own() -> None:
    free = Wished("sails")
    expected = free.first()[0, TOKENS.index("s")]
    steps = Copied(Wished("sails"), [[TEXT]], VOCABULARY, end_id=END)
    kept = steps.first()
    assert kept[0, TOKENS.index("s")] == expected
    assert kept[0, TOKENS.index("z")] == -torch.inf
    assert kept[0, END] == -torch.inf, "an answer is never empty"


def test_tokens_that_every_answer_begins_with_come_first() -> None:
    steps = Copied(Wished("z"), [[TEXT]], VOCABULARY, end_id=END, first_ids=[TOKENS.index("z")])
    first = steps.first()
    assert (first > -torch.inf).nonzero().tolist() == [[0, TOKENS.index("z")]]
    following = steps.next(torch.tensor([[TOKENS.index("z")]]), torch.tensor([[0]]))
    assert following[0, 0, TOKENS.index("c")] > -torch.inf
    assert following[0, 0, TOKENS.index("z")] == -torch.inf


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("docked for 9 da", "docked for 9"),
        ("Marlow", ""),
        ("in 1998, Kof", "in 1998,"),
        ("位于北京", "位于北京"),
        ("北京 Uni", "北京"),
    ],
)
def test_an_answer_that_was_cut_ends_with_a_whole_word(cut: str, whole: str) -> None:
    assert whole_words(cut) == whole


# vocabularies


def test_a_vocabulary_of_bytes_writes_every_text(causal: CausalReader) -> None:
    vocabulary = vocabulary_of(causal.tokenizer)
    text = "Café 北京 — 9 €"
    ids = causal.tokenizer(text, add_special_tokens=False).input_ids
    of = {token: written for written, token in vocabulary.ids.items()}
    assert b"".join(of[i] for i in ids).decode() == text
    assert causal.end_id not in of


def test_a_vocabulary_of_sentencepiece_begins_words_with_a_space() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("▁sea", -1.0), ("fox", -1.0), ("▁sails", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    vocabulary = vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert vocabulary.space_first
    assert vocabulary.ids[b" sea"] == 1
    steps = Copied(_Flat(), [["seafox sails"]], vocabulary, end_id=4)
    assert (steps.first() > -torch.inf).nonzero()[:, 1].tolist() == [1, 3]


class _Flat:
    """Steps of a model without wishes, over five tokens."""

    def first(self) -> torch.Tensor:
        return torch.zeros(1, 5).log_softmax(-1)

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, tokens.shape[1], 5).log_softmax(-1)


def test_a_vocabulary_that_does_not_say_where_words_begin_is_refused(tiny_bert: object) -> None:
    from transformers import AutoTokenizer

    with pytest.raises(ModelError, match=r"reader\.verbatim: false"):
        vocabulary_of(AutoTokenizer.from_pretrained(str(tiny_bert)))
