"""The numbers of RAG are those of `transformers` on the same model, passages and scores.

Both sides get the very same token ids: a question's prompt with each passage is the context that
`RagSequenceForGeneration` and `RagTokenForGeneration` would have had from their retriever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rag.reading.beam import beam_search
from rag.reading.encoder_states import padded
from rag.reading.generative import Reading, Source, TokenIds
from rag.reading.marginal import log_posterior, rag_sequence, rag_token
from rag.reading.seq2seq import Seq2SeqReader
from rag.records import Passage
from tests.tiny_bert import write_tiny_bert
from tests.tiny_seq2seq import write_tiny_bart
from tests.toy import toy_params

N_PASSAGES = 3
LENGTH = 7
TEMPERATURE = 0.5
SEEDS = (2, 10, 14, 22)
QUESTIONS = ("Who commands the Seafox?", "What did it cost?")
SCORES = ((0.9, 0.5, 0.1), (0.2, 0.7, 0.65))
TEXTS = (
    ("The Seafox sails from Elgin.", "Captain Marlow sails it every March.", "It is docked."),
    ("It is docked for 9 days.", "Elgin.", "Every March under Captain Marlow, from Elgin."),
)
PASSAGES = [
    [Passage(text, "d", text, score, 1) for text, score in zip(*row, strict=True)]
    for row in zip(TEXTS, SCORES, strict=True)
]
#: So long that every prompt is cut to the same length: `RagSequenceForGeneration.generate` lets the
#: model that writes its candidates attend to the padding of shorter ones.
CUT = [[replace(one, text=f"{one.text} " * 40) for one in found] for found in PASSAGES]
Found = Sequence[Sequence[Passage]]
MakeReader = Callable[..., Seq2SeqReader]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeReader:
    root = tmp_path_factory.mktemp("rag")
    folders = {seed: write_tiny_bart(root / f"bart-{seed}", seed=seed) for seed in SEEDS}

    def reader(seed: int, fusion: str, *overrides: str) -> Seq2SeqReader:
        params = toy_params(
            "reader.kind=seq2seq",
            f"reader.model={folders[seed]}",
            f"reader.fusion={fusion}",
            f"reader.passages={N_PASSAGES}",
            f"reader.max_answer_tokens={LENGTH}",
            "reader.lora=null",
            *overrides,
        ).reader
        return Seq2SeqReader(params, root, None, prior_temperature=TEMPERATURE)

    return reader


@pytest.fixture(scope="module")
def question_encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """RAG wants one, and does not use it where contexts and scores are given."""
    from transformers import BertModel

    folder = write_tiny_bert(tmp_path_factory.mktemp("rag") / "bert")
    return BertModel.from_pretrained(folder)


def transformers_rag(reader: Seq2SeqReader, question_encoder: Any) -> Any:
    """The reader's own model in `transformers`' RAG, without a retriever."""
    from transformers import RagSequenceForGeneration, RagTokenForGeneration

    kinds: dict[str, Any] = {
        "rag_sequence": RagSequenceForGeneration,
        "rag_token": RagTokenForGeneration,
    }
    kind = kinds[reader.params.fusion]
    rag = kind(question_encoder=question_encoder, generator=reader.model, n_docs=N_PASSAGES)
    return rag.eval()


def sources_of(reader: Seq2SeqReader, passages: Found) -> list[list[Source]]:
    """K sources of each question."""
    return [reader.sources(*pair) for pair in zip(QUESTIONS, passages, strict=True)]


def contexts(reader: Seq2SeqReader, passages: Found) -> dict[str, torch.Tensor]:
    """What RAG's retriever would have given: (B · K, S) ids and mask, (B, K) scores."""
    sources = [source for own in sources_of(reader, passages) for source in own]
    assert len(sources) == len(QUESTIONS) * N_PASSAGES
    inputs = [ids for source in sources for ids in reader.inputs(source)]
    ids, mask = padded(inputs, reader.tokenizer.pad_token_id, reader.device)
    assert bool(mask.all()) is (passages is CUT)
    # transformers' prior has no temperature.
    scores = torch.tensor(SCORES) / TEMPERATURE
    return {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}


def labels(reader: Seq2SeqReader, answers: Sequence[TokenIds]) -> torch.Tensor:
    """Answers as RAG takes them: what the decoder reads, so with its start in front."""
    rows = [(reader.start_id, *ids) for ids in answers]
    found, _ = padded(rows, reader.tokenizer.pad_token_id, reader.device)
    return found


def likelihood(
    reader: Seq2SeqReader, answers: Sequence[TokenIds], passages: Found = PASSAGES
) -> torch.Tensor:
    """log p(y_t|x,z,y_<t), shape (B, K, T), 0 behind the end."""
    sources = sources_of(reader, passages)
    tokens = reader.token_log_probabilities(
        [one for own in sources for one in own],
        [ids for ids in answers for _ in range(N_PASSAGES)],
    )
    width = max(map(len, answers))
    rows = [torch.nn.functional.pad(own, (0, width - len(own))) for own in tokens]
    return torch.stack(rows).view(len(answers), N_PASSAGES, width)


@pytest.mark.parametrize("fusion", ["rag_sequence", "rag_token"])
@pytest.mark.parametrize("seed", SEEDS)
def test_losses_and_gradients_agree(
    seed: int, fusion: str, make: MakeReader, question_encoder: Any
) -> None:
    reader = make(seed, fusion)
    # Without BART's <s>, whose probability transformers can leave out.
    answers = [reader.answer_ids(text)[1:] for text in ("Captain Marlow", "9 days")]
    assert len(answers[0]) != len(answers[1])
    rag = transformers_rag(reader, question_encoder)
    expected = rag(**contexts(reader, PASSAGES), labels=labels(reader, answers)).loss
    prior, tokens = reader.log_prior(PASSAGES, N_PASSAGES), likelihood(reader, answers)
    whole = fusion == "rag_sequence"
    found = rag_sequence(prior, tokens.sum(-1)) if whole else rag_token(prior, tokens)
    torch.testing.assert_close(-found, expected, atol=1e-4, rtol=0)
    parameters = [p for p in reader.model.parameters() if p.requires_grad]
    own = torch.autograd.grad(-found.sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    assert sum(gradient is not None for gradient in own) > 20
    for mine, other in zip(own, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)


def early_end(reader: Seq2SeqReader, passages: Found = PASSAGES) -> int:
    """A token to take for the end that stands in some answers, and begins none."""
    sources = [source for own in sources_of(reader, passages) for source in own]
    whole = beam_search(reader.steps(sources), end_id=-1, max_new_tokens=LENGTH)
    begins = {one.ids[0] for [one] in whole}
    counts = {
        token: sum(token in one.ids for [one] in whole)
        for [answer] in whole
        for token in answer.ids
        if token not in begins
    }
    return max(sorted(counts), key=lambda token: (counts[token] < len(whole), counts[token]))


def written(reader: Seq2SeqReader, rag: Any, end: int, passages: Found) -> list[TokenIds]:
    """What transformers writes with as many beams as the reader."""
    whole = rag.generate(
        **contexts(reader, passages),
        num_beams=reader.params.beams,
        do_sample=False,
        max_length=LENGTH + 1,
        decoder_start_token_id=reader.start_id,
        eos_token_id=end,
        pad_token_id=reader.tokenizer.pad_token_id,
    )
    own = [tuple(row[1:]) for row in whole.tolist()]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in own]


def read(reader: Seq2SeqReader, end: int, passages: Found = PASSAGES) -> list[Reading]:
    """The reader's answers of all questions, as token ids."""
    reader._end_id = end
    return reader._read(sources_of(reader, passages), passages)


@pytest.mark.parametrize("beams", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_rag_token_writes_the_same(
    seed: int, beams: int, make: MakeReader, question_encoder: Any
) -> None:
    reader = make(seed, "rag_token", f"reader.beams={beams}")
    end = early_end(reader)
    rag = transformers_rag(reader, question_encoder)
    found = read(reader, end)
    assert [one.ids for one in found] == written(reader, rag, end, PASSAGES)
    with torch.inference_mode():
        tokens = likelihood(reader, [one.ids for one in found])
    prior = reader.log_prior(PASSAGES, N_PASSAGES)
    for one, total in zip(found, rag_token(prior, tokens).tolist(), strict=True):
        assert one.mean_log_probability * len(one.ids) == pytest.approx(total, abs=1e-4)
    weights = torch.tensor([one.posterior for one in found])
    torch.testing.assert_close(
        weights, log_posterior(prior, tokens.sum(-1)).exp(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_thorough_rag_sequence_writes_the_same(
    seed: int, beams: int, make: MakeReader, question_encoder: Any
) -> None:
    reader = make(seed, "rag_sequence", f"reader.beams={beams}")
    end = early_end(reader, CUT)
    rag = transformers_rag(reader, question_encoder)
    found = read(reader, end, CUT)
    # transformers loses p(z|x) of answers of one token: it adds it at the second.
    assert min(len(one.ids) for one in found) > 1
    assert [one.ids for one in found] == written(reader, rag, end, CUT)
    with torch.inference_mode():
        tokens = likelihood(reader, [one.ids for one in found], CUT).sum(-1)
    prior = reader.log_prior(PASSAGES, N_PASSAGES)
    for one, total in zip(found, rag_sequence(prior, tokens).tolist(), strict=True):
        assert one.mean_log_probability * len(one.ids) == pytest.approx(total, abs=1e-4)


def test_fast_decoding_knows_only_what_each_passage_found(make: MakeReader) -> None:
    """An answer that a passage's own beams did not find has no probability given that passage."""
    fast = make(14, "rag_sequence", "reader.beams=2", "reader.decoding=fast")
    end = early_end(fast)
    readings = read(fast, end)
    prior = fast.log_prior(PASSAGES, N_PASSAGES)
    for i, (question, found) in enumerate(zip(QUESTIONS, PASSAGES, strict=True)):
        beams = beam_search(
            fast.steps(fast.sources(question, found)), end_id=end, max_new_tokens=LENGTH, beams=2
        )
        own = [{one.ids: sum(one.log_probabilities) for one in some} for some in beams]
        totals = {
            ids: sum(
                float(prior[i, k].exp()) * float(torch.tensor(table[ids]).exp())
                for k, table in enumerate(own)
                if ids in table
            )
            for table in own
            for ids in table
        }
        assert readings[i].ids == max(totals, key=lambda ids: totals[ids])
        assert readings[i].mean_log_probability * len(readings[i].ids) == pytest.approx(
            float(torch.tensor(totals[readings[i].ids]).log()), abs=1e-4
        )
