"""Documents cut into chunks: whole sentences, packed up to a token budget, each under its title.

Every chunk starts with its document's title on a line of its own, because a later chunk rarely
names what it is about and would not be found without. What follows is a slice of the document,
character for character, so whatever answer lies in one sentence lies in one chunk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rag.corpus.sentences import Span, sentence_spans
from rag.corpus.text import CJK
from rag.errors import DataError
from rag.params import ChunkParams
from rag.records import Chunk, Document, sorted_json

CountTokens = Callable[[Sequence[str]], list[int]]

_BATCH_TEXTS = 4096
_WORD = re.compile(rf"\s*(?:[{CJK}]|[^\s{CJK}]+)")
#: Of a sentence that has to be cut, each piece repeats up to a quarter of the one before.
_REPEATED_PARTS = 4


def chunk_documents(
    documents: Sequence[Document], count_tokens: CountTokens, params: ChunkParams
) -> list[Chunk]:
    """Cuts each document into chunks of at most `params.max_chunk_tokens`, the title included.

    `count_tokens` gives the tokens of each text of a batch, with or without special tokens. The
    last `overlap_sentences` sentences of a chunk open the next one as far as they fit. A sentence
    too long for a chunk is cut between words (a word too long, between characters) into pieces of
    which each repeats the end of the one before. A title longer than half a chunk is shortened in
    the prefix, and then stays in the text as well. Raises DataError where not even one character
    fits.
    """
    tokens = _Tokens(count_tokens)
    budget = params.max_chunk_tokens
    plans = _plans(documents, tokens, budget)
    drafts: dict[int, list[tuple[str, int]]] = {}
    while plans:
        texts = [
            _draft_texts(plan, tokens, params.overlap_sentences)
            for plan in _measured(plans, tokens)
        ]
        counts = iter(tokens.count([text for own in texts for text in own]))
        too_long = []
        for plan, own in zip(plans, texts, strict=True):
            draft = [(text, next(counts)) for text in own]
            excess = max(count for _, count in draft) - budget
            if excess <= 0:
                drafts[plan.position] = draft
            elif plan.room > 1:
                # Parts can count for less than their whole: this document is packed again in less
                # room.
                plan.room = max(1, plan.room - excess)
                too_long.append(plan)
            else:
                raise DataError(
                    f"{plan.document_id}: cannot be cut into chunks of {budget} tokens",
                    hint="raise chunk.max_chunk_tokens",
                )
        plans = too_long
    return [
        Chunk(
            chunk_id(document, ordinal, text),
            document.document_id,
            ordinal,
            text,
            n,
            title=document.title,
            source=document.source,
            language=document.language,
            metadata=document.metadata,
        )
        for position, document in enumerate(documents)
        for ordinal, (text, n) in enumerate(drafts[position])
    ]


def chunk_id(document: Document, ordinal: int, text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of all that a chunk carries.

    An index is named after these ids, so one that shows or filters by an old title is another one.
    """
    carried = [
        document.document_id,
        ordinal,
        text,
        document.title,
        document.source,
        document.language,
        dict(document.metadata),
    ]
    return hashlib.sha256(sorted_json(carried).encode()).hexdigest()[:16]


class _Tokens:
    """Counts in batches; remembers what a text costs inside a longer one (no special tokens)."""

    def __init__(self, count_tokens: CountTokens) -> None:
        self._count_tokens = count_tokens
        self._costs: dict[str, int] = {}
        self.overhead = self.count([""])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH_TEXTS):
            counts += self._count_tokens(texts[start : start + _BATCH_TEXTS])
        return counts

    def learn(self, texts: Iterable[str]) -> None:
        new = list(dict.fromkeys(text for text in texts if text not in self._costs))
        for text, count in zip(new, self.count(new), strict=True):
            self._costs[text] = max(1, count - self.overhead)

    def cost(self, text: str) -> int:
        return self._costs[text]


@dataclass
class _Plan:
    """A document on its way; `room` is what the units of a chunk may cost together."""

    position: int
    document_id: str
    prefix: str
    body: str
    sentences: list[Span]
    room: int

    def text(self, span: Span) -> str:
        return self.body[span[0] : span[1]].strip()


def _plans(documents: Sequence[Document], tokens: _Tokens, budget: int) -> list[_Plan]:
    half = max(1, (budget - tokens.overhead) // 2)
    tokens.learn(document.title for document in documents)
    titles = [
        document.title
        if tokens.cost(document.title) <= half
        else _shortened(document.title, tokens, half)
        for document in documents
    ]
    prefixes = [f"{title}\n" if title else "" for title in titles]
    plans = []
    rows = zip(documents, prefixes, tokens.count(prefixes), strict=True)
    for position, (document, prefix, count) in enumerate(rows):
        first, _, rest = document.text.partition("\n")
        body = (rest if prefix and f"{first}\n" == prefix else document.text).strip()
        room = max(1, budget - count)
        spans = sentence_spans(body)
        plans.append(_Plan(position, document.document_id, prefix, body, spans, room))
    return plans


def _shortened(title: str, tokens: _Tokens, room: int) -> str:
    """The longest run of words from the start of a title that fits."""
    starts = [title[: match.end()] for match in _WORD.finditer(title)]
    tokens.learn(starts)
    return max((start for start in starts if tokens.cost(start) <= room), key=len, default="")


def _measured(plans: Sequence[_Plan], tokens: _Tokens) -> Sequence[_Plan]:
    """The same plans, once every sentence, and what too long ones are cut into, has its cost."""
    tokens.learn(plan.text(span) for plan in plans for span in plan.sentences)
    words = [
        (plan, word)
        for plan in plans
        for span in plan.sentences
        if tokens.cost(plan.text(span)) > plan.room
        for word in _word_spans(plan.body, span)
    ]
    tokens.learn(plan.text(word) for plan, word in words)
    tokens.learn(
        character
        for plan, word in words
        if tokens.cost(plan.text(word)) > plan.room
        for character in dict.fromkeys(plan.text(word))
    )
    return plans


def _draft_texts(plan: _Plan, tokens: _Tokens, overlap_sentences: int) -> list[str]:
    """The chunks of one document, by the sum of costs; the caller counts what they really have."""
    units: list[tuple[Span, int]] = []
    for span in plan.sentences:
        cost = tokens.cost(plan.text(span))
        units += [(span, cost)] if cost <= plan.room else _pieces(plan, span, tokens)
    if not units:
        return [plan.prefix.strip()]
    packed = pack(
        [cost for _, cost in units], plan.room, lambda start, end: end - overlap_sentences
    )
    return [
        plan.prefix + plan.body[units[start][0][0] : units[end - 1][0][1]].strip()
        for start, end in packed
    ]


def _pieces(plan: _Plan, sentence: Span, tokens: _Tokens) -> list[tuple[Span, int]]:
    """A sentence that is too long as overlapping runs of words, each with its cost."""
    parts: list[tuple[Span, int]] = []
    for word in _word_spans(plan.body, sentence):
        cost = tokens.cost(plan.text(word))
        if cost <= plan.room:
            parts.append((word, cost))
        else:
            parts += [
                ((at, at + 1), tokens.cost(plan.body[at]))
                for at in range(*word)
                if not plan.body[at].isspace()
            ]
    costs = [cost for _, cost in parts]

    def repeat_from(start: int, end: int) -> int:
        first = end
        while first > start + 1 and sum(costs[first - 1 : end]) * _REPEATED_PARTS <= plan.room:
            first -= 1
        return first

    return [
        ((parts[start][0][0], parts[end - 1][0][1]), sum(costs[start:end]))
        for start, end in pack(costs, plan.room, repeat_from)
    ]


def pack(
    costs: Sequence[int], room: int, repeat_from: Callable[[int, int], int]
) -> list[tuple[int, int]]:
    """Fills chunks greedily: (start, end) ranges of all units, each within `room` if it can.

    `repeat_from(start, end)` says with which unit the chunk after (start, end) should begin; it
    begins later where the repeated units would leave no room for a new one. A unit above `room`
    stays alone.

    >>> pack([3, 3, 3, 3], 7, lambda start, end: end - 1)
    [(0, 2), (1, 3), (2, 4)]
    """
    ranges: list[tuple[int, int]] = []
    start = 0
    while start < len(costs):
        end, used = start + 1, costs[start]
        while end < len(costs) and used + costs[end] <= room:
            used += costs[end]
            end += 1
        ranges.append((start, end))
        if end == len(costs):
            break
        following = max(repeat_from(start, end), start + 1)
        while following < end and sum(costs[following : end + 1]) > room:
            following += 1
        start = following
    return ranges


def _word_spans(text: str, span: Span) -> list[Span]:
    return [match.span() for match in _WORD.finditer(text, *span)]
