"""Whether a passage is the one a question asks for: what recall and MRR rest on."""

from __future__ import annotations

import re
import unicodedata

from rag.corpus.text import folded
from rag.records import Question

_WORD = re.compile(r"\w+")
_SEPARATORS = r"[.,'’٫٬]"
#: Groups of thousands (Indian ones too), then decimals, or decimals alone. Dates and versions,
#: which go on with another separator, are no numbers, nor are two years with a comma between.
_NUMBER = re.compile(
    rf"(?<!\d)(?<!\d{_SEPARATORS})(?!\d{{4}},\d{{4}}(?!\d))"
    r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d{1,3}(?:[.'’٬]\d{3})+(?:[,.٫]\d+)?|\d+[.,٫]\d+)"
    rf"(?!{_SEPARATORS}?\d)"
)
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")


def is_relevant(passage_text: str, passage_document_id: str, question: Question) -> bool:
    """True where the passage holds a gold answer and is of the gold document, if that is known.

    Text is compared case-folded after Unicode NFKC, and an answer must stand at word boundaries, so
    "1" is not found in "2019", nor "240" in "1,240" or "5" in "2.5". Scripts without spaces have no
    boundaries to keep, nor has Korean, where a particle is written onto its noun.
    """
    if question.document_id is not None and passage_document_id != question.document_id:
        return False
    return any(contains(passage_text, answer) for answer in question.answers)


def has_gold(question: Question) -> bool:
    """Whether retrieval can be scored on this question."""
    return question.answerable and bool(question.answers)


def contains(text: str, answer: str) -> bool:
    """Whether an answer stands in a text at word boundaries, whatever its case and spacing."""
    original, text, answer = text, folded(text), folded(answer)
    start = text.find(answer) if answer else -1
    numbers: list[tuple[int, int]] | None = None
    while start != -1:
        end = start + len(answer)
        if not (_joined(text, start) or _joined(text, end)):
            if numbers is None:
                numbers = _numbers(original)
            if not any(first < place < last for first, last in numbers for place in (start, end)):
                return True
        start = text.find(answer, start + 1)
    return False


def _numbers(text: str) -> list[tuple[int, int]]:
    """Where numbers with groups or decimals stand in the folded text: (start, end)."""
    # A full-width comma parts numbers and never digits; folding makes it an ordinary one. Its
    # stand-in is folded to one character as well, so that places stay the same.
    return [match.span() for match in _NUMBER.finditer(folded(text.replace("，", "、")))]


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
