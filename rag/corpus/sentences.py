"""Sentence boundaries for Latin, Cyrillic, Arabic, Devanagari, Chinese and Japanese punctuation.

A small splitter of our own: the kept libraries need a download, are no longer released, or
(sentencex 1.0.32) abort on an ideographic space before a full stop. It would rather join two
sentences than cut one: a join costs a few tokens of a chunk, a cut can lose an answer.
"""

from __future__ import annotations

import re

from rag.corpus.text import CJK

Span = tuple[int, int]

_BOUNDARY = re.compile(
    rf"""
      (?P<line>  [^\S\n]*\n\s* )
    | (?P<wide>  (?:[。！？｡]|(?<=[{CJK}])[!?])[。！？｡!?]*[」』”’）】》〉"')\]]*\s* )
    | (?P<latin> (?P<mark>[.!?…؟।]+)["'”’»)\]]*[^\S\n]+(?=\S) )
    """,
    re.VERBOSE,
)
_OPENING = "([\"'“‘«"

# fmt: off
#: Followed by a name, a number or anything else: never the end of a sentence.
_NEVER_LAST = frozenset([
    "mr", "mrs", "ms", "mx", "dr", "prof", "st", "capt", "cpt", "lt", "col", "gen", "sgt", "maj",
    "adm", "rev", "fr", "hon", "messrs", "mt", "sra", "vs", "cf", "viz", "e.g", "i.e", "a.m", "p.m",
    "u.s", "u.k", "u.n", "ph.d", "etc", "al", "inc", "ltd", "co", "corp", "jr", "sr", "dept", "est",
])
#: The end of a sentence unless a number follows.
_BEFORE_NUMBER = frozenset([
    "no", "nos", "nr", "fig", "figs", "vol", "vols", "p", "pp", "art", "sec", "ch", "approx", "ca",
    "para", "tel", "ext", "abt", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept",
    "oct", "nov", "dec",
])
# fmt: on


def sentence_spans(text: str) -> list[Span]:
    """Cuts `text` into sentences: adjoining (start, end) spans that cover it, spaces last.

    A line break always ends a sentence, as `rag.corpus.text.plain_text` leaves none inside one.
    """
    spans: list[Span] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        if match["latin"] and not _ends_sentence(text, start, match):
            continue
        if text[start:end].strip():
            spans.append((start, end))
            start = end
    if start < len(text):
        if text[start:].strip() or not spans:
            spans.append((start, len(text)))
        else:  # only spaces are left
            spans[-1] = (spans[-1][0], len(text))
    return spans


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 1]
    tokens = text[start : match.start()].split()
    if following.islower() or match["mark"] != "." or not tokens:
        return not following.islower()
    token = tokens[-1].lstrip(_OPENING)
    word = token.lower()
    initial = len(word) == 1 and token.isupper()  # as in "J. R. Pell"
    list_number = len(tokens) == 1 and word.isdigit()  # "1." opens a line
    before_number = word in _BEFORE_NUMBER and following.isdigit()
    return not (word in _NEVER_LAST or initial or list_number or before_number)
