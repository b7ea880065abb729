"""Three questions about two passages, for the training of readers that write text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from rag.finetune.examples import ReadingExample
from rag.reading.causal import CausalReader
from rag.reading.generative import Source

PASSAGES = ("The Seafox sails under Captain Marlow.", "The Tidestar is docked for 9 days.")
ASKED = (
    ("Who commands the Seafox?", "Captain Marlow"),
    ("Is the Seafox red?", ""),
    ("How long is the Tidestar docked?", "9 days"),
)
#: p(z|x) of two passages whose scores differ by 0.4, at temperature 0.5.
PRIOR = (1 / (1 + math.exp(-0.8)), 1 / (1 + math.exp(0.8)))


def scored(made: ReadingExample) -> ReadingExample:
    """Retrieval gives its first passage 0.9 and its second 0.5."""
    scores = (0.9, 0.5)
    passages = tuple(replace(p, score=s) for p, s in zip(made.passages, scores, strict=False))
    return replace(made, passages=passages)


def plain_log_p(reader: CausalReader, question: str, passage: str, answer: str) -> torch.Tensor:
    """log p of each answer token by the model's own forward pass over the whole prompt, (T,)."""
    return tokens_log_p(reader, question, passage, reader.answer_ids(answer))


def tokens_log_p(
    reader: CausalReader, question: str, passage: str, ids: Sequence[int]
) -> torch.Tensor:
    """The same of tokens that are given, (T,)."""
    prompt = reader.prompt(Source(question, (passage,)))
    return _last_tokens(reader, [*prompt.shared, *prompt.own, *ids], len(ids))


def question_log_p(reader: CausalReader, question: str, passage: str) -> torch.Tensor:
    """log p of what stands behind the passage, but for its first token, (T,)."""
    prompt = reader.prompt(Source(question, (passage,)))
    return _last_tokens(reader, [*prompt.shared, *prompt.own], len(prompt.own) - 1)


def _last_tokens(reader: CausalReader, whole: Sequence[int], count: int) -> torch.Tensor:
    with torch.inference_mode():
        logits = reader.model(torch.tensor([list(whole)])).logits[0].float().log_softmax(-1)
    places = torch.arange(len(whole) - count - 1, len(whole) - 1)
    found: torch.Tensor = logits[places, torch.tensor(whole[-count:])]
    return found
