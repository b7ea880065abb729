"""The prompts of the causal reader: every wording in one place.

The same wording serves training, the tuned system and its zero-shot baseline, so a difference
between them is the training's. A prompt has two parts: the instruction with the passages, which is
the same for every question about them and is computed once for all, and the question.
`PROMPT_VERSION` is the hash of all wordings and is logged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

#: What the reader says where the passages do not hold the answer.
REFUSAL = "unanswerable"

_PASSAGES = f"Answer in a few words copied from the text, or say {REFUSAL}.\n\n{{passages}}\n\n"
_NO_PASSAGES = f"Answer in a few words, or say {REFUSAL}.\n\n"
_QUESTION = "Question: {question}"

PROMPT_VERSION = hashlib.sha256((_PASSAGES + _NO_PASSAGES + _QUESTION).encode()).hexdigest()[:12]


def passages_part(passages: Sequence[str]) -> str:
    """The instruction and the passages; for a closed book the instruction alone."""
    return _PASSAGES.format(passages="\n\n".join(passages)) if passages else _NO_PASSAGES


def question_part(question: str) -> str:
    """What comes after the passages."""
    return _QUESTION.format(question=question)


def is_refusal(text: str) -> bool:
    """Whether the model declined: the agreed word, with any case or closing full stop."""
    return text.strip().strip(".").casefold() == REFUSAL


def clean_answer(text: str) -> str:
    """The first line of what was generated, without quotes around it or a closing full stop."""
    line = text.strip().split("\n", 1)[0].strip()
    if line.endswith(".") and not line.endswith(".."):
        line = line[:-1]
    return line.strip('"')
