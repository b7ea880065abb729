"""Whether a passage is the one a question asks for: what recall and MRR rest on."""

from __future__ import annotations

import re
import unicodedata

from rag.corpus.text import folded
from rag.records import Question

_WORD = re.compile(r"\w+")
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")


def is_relevant(passage_text: str, passage_document_id: str, question: Question) -> bool:
    """True where the passage holds a gold answer and is of the gold document, if that is known.

    Text is compared case-folded after Unicode NFKC, and an answer must stand at word boundaries, so
    "1" is not found in "2019". Scripts without spaces have no boundaries to keep, nor has
    Korean, where a particle is written onto its noun.
    """
    if question.document_id is not None and passage_document_id != question.document_id:
        return False
    return any(contains(passage_text, answer) for answer in question.answers)


def has_gold(question: Question) -> bool:
    """Whether retrieval can be scored on this question."""
    return question.answerable and bool(question.answers)


def contains(text: str, answer: str) -> bool:
    """Whether an answer stands in a text at word boundaries, whatever its case and spacing."""
    text, answer = folded(text), folded(answer)
    start = text.find(answer) if answer else -1
    while start != -1:
        end = start + len(answer)
        if not (_joined(text, start) or _joined(text, end)):
            return True
        start = text.find(answer, start + 1)
    return False


def _joined(text: str, position: int) -> bool:
    """Whether a word of a script with spaces runs across `position`."""
    if position <= 0 or position >= len(text):
        return False
    pair = text[position - 1], text[position]
    return all(_WORD.match(character) and not _spaceless(character) for character in pair)


def _spaceless(character: str) -> bool:
    """Whether words of the character's script stand next to each other without a space."""
    name = unicodedata.name(character, "")
    return name.startswith(_SPACELESS)
