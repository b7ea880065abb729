"""Beam search against all answers there are, and against `generate` of transformers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from rag.reading.beam import Hypothesis, Mixture, beam_search
from tests.tiny_seq2seq import write_tiny_gpt2
from tests.toy import write_toy_model

WORDS, END, LENGTH = 3, 2, 3


class Tables:
    """`Steps` of N sources: log p of the next of three words after every beginning."""

    def __init__(self, sources: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        beginnings = [
            ids for n in range(LENGTH) for ids in itertools.product(range(WORDS), repeat=n)
        ]
        self.log_p = [
            {ids: torch.randn(WORDS, generator=generator).log_softmax(-1) for ids in beginnings}
            for _ in range(sources)
        ]
        self._beams: list[list[tuple[int, ...]]] = [[()]] * sources

    def first(self) -> torch.Tensor:
        return torch.stack([table[()] for table in self.log_p])

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        self._beams = [
            [(*own[parent], token) for token, parent in zip(*row, strict=True)]
            for own, row in zip(
                self._beams, zip(tokens.tolist(), parents.tolist(), strict=True), strict=True
            )
        ]
        return torch.stack(
            [
                torch.stack([table[ids] for ids in own])
                for table, own in zip(self.log_p, self._beams, strict=True)
            ]
        )

    def answers(self, source: int) -> list[Hypothesis]:
        """Every answer of at most three words, likeliest by its mean first."""
        found = []
        for n in range(1, LENGTH + 1):
            for ids in itertools.product(range(WORDS), repeat=n):
                if END in ids[:-1] or (n < LENGTH and ids[-1] != END):
                    continue
                table = self.log_p[source]
                own = tuple(float(table[ids[:t]][ids[t]]) for t in range(n))
                found.append(Hypothesis(ids, own))
        return sorted(found, key=lambda one: -one.mean_log_probability)


@pytest.mark.parametrize("seed", range(5))
def test_with_beams_enough_every_answer_is_found_in_order(seed: int) -> None:
    steps = Tables(2, seed)
    found = beam_search(steps, end_id=END, max_new_tokens=LENGTH, beams=15)
    for source, hypotheses in enumerate(found):
        expected = steps.answers(source)
        assert len(expected) == 15
        assert [one.ids for one in hypotheses] == [one.ids for one in expected]
        for one, own in zip(hypotheses, expected, strict=True):
            assert one.log_probabilities == pytest.approx(own.log_probabilities, abs=1e-6)
            assert one.mean_log_probability == pytest.approx(own.mean_log_probability)


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_takes_the_likeliest_word_each_time(seed: int) -> None:
    steps = Tables(3, seed)
    for source, [one] in enumerate(beam_search(steps, end_id=END, max_new_tokens=LENGTH)):
        ids: tuple[int, ...] = ()
        while len(ids) < LENGTH and ids[-1:] != (END,):
            ids = (*ids, int(steps.log_p[source][ids].argmax()))
        assert one.ids == ids


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_a_source_is_searched_as_if_alone(beams: int) -> None:
    """Sources finish at different times; those that are done keep their place."""
    steps = Tables(6, 0)
    together = beam_search(steps, end_id=END, max_new_tokens=LENGTH, beams=beams)
    for source, hypotheses in enumerate(together):
        alone = Tables(1, 0)
        alone.log_p = [steps.log_p[source]]
        assert beam_search(alone, end_id=END, max_new_tokens=LENGTH, beams=beams) == [hypotheses]
    assert len({len(one[0].ids) for one in together}) > 1


# RAG-Token


def test_a_mixture_weighs_every_token_by_the_prior() -> None:
    """Two questions of two passages; the second question has only one."""
    prior = torch.tensor([[0.25, 0.75], [1.0, 0.0]]).log()
    mixed = Mixture(Tables(4, 1), prior)
    tables = Tables(4, 1).log_p
    first = mixed.first()
    second = mixed.next(torch.tensor([[0, 1], [1, 0]]), torch.zeros((2, 2), dtype=torch.long))
    assert (first.shape, second.shape) == ((2, WORDS), (2, 2, WORDS))
    for found, ids in ((first[0], ()), (second[0, 0], (0,)), (second[0, 1], (1,))):
        expected = 0.25 * tables[0][ids].exp() + 0.75 * tables[1][ids].exp()
        torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(second[1, 0], tables[2][(1,)])


def test_beams_of_a_mixture_go_on_from_their_parents() -> None:
    mixed = Mixture(Tables(2, 2), torch.tensor([[0.5, 0.5]]).log())
    tables = Tables(2, 2).log_p
    mixed.first()
    mixed.next(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    found = mixed.next(torch.tensor([[1, 0]]), torch.tensor([[1, 1]]))
    for beam, ids in enumerate(((1, 1), (1, 0))):
        expected = (tables[0][ids].exp() + tables[1][ids].exp()) / 2
        torch.testing.assert_close(found[0, beam].exp(), expected)


# transformers


class Forward:
    """`Steps` by the whole forward pass of a causal model, for prompts of one length."""

    def __init__(self, model: Any, prompts: torch.Tensor) -> None:
        self._model = model
        self._ids = prompts.unsqueeze(1)  # (N, 1, L)

    def first(self) -> torch.Tensor:
        return self._log_p()[:, 0]

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        past = self._ids.gather(1, parents.unsqueeze(-1).expand(-1, -1, self._ids.shape[-1]))
        self._ids = torch.cat([past, tokens.unsqueeze(-1)], dim=-1)
        return self._log_p()

    def _log_p(self) -> torch.Tensor:
        logits = self._model(self._ids.flatten(0, 1)).logits[:, -1]
        log_p: torch.Tensor = logits.log_softmax(-1).view(*self._ids.shape[:2], -1)
        return log_p


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("beam")
    folders = {"gpt2": write_tiny_gpt2(root / "gpt2"), "llama": write_toy_model(root / "llama")}
    return {name: AutoModelForCausalLM.from_pretrained(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("beams", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_finds_what_generate_finds(name: str, beams: int, models: dict[str, Any]) -> None:
    """All beams in order, with tokens for the end that come early, late and never."""
    model, length = models[name], 7
    prompts = torch.randint(5, 200, (8, 4), generator=torch.Generator().manual_seed(1))
    greedy = beam_search(Forward(model, prompts), end_id=-1, max_new_tokens=length)
    ends = sorted({token for [one] in greedy for token in one.ids})[::4]
    lengths = set()
    for end in ends:
        found = beam_search(Forward(model, prompts), end_id=end, max_new_tokens=length, beams=beams)
        expected = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=length,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
            output_scores=True,
            return_dict_in_generate=True,
        )
        rows = [cut(ids, end) for ids in expected.sequences[:, prompts.shape[1] :].tolist()]
        flat = [one for hypotheses in found for one in hypotheses]
        assert [list(one.ids) for one in flat] == rows
        if beams > 1:
            means = [one.mean_log_probability for one in flat]
            assert means == pytest.approx(expected.sequences_scores.tolist(), abs=1e-5)
        lengths |= {len(one.ids) for one in flat}
    assert len(lengths) > 2


def cut(ids: list[int], end: int) -> list[int]:
    """Up to the first end; what comes after it is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def test_a_mean_is_of_all_tokens_with_the_end() -> None:
    one = Hypothesis((0, END), (math.log(0.5), math.log(0.125)))
    assert one.mean_log_probability == pytest.approx(math.log(0.25))
