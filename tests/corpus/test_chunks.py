"""Chunks: no text lost, the budget kept, every sentence whole, answers found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.corpus.chunks import chunk_documents, chunk_id, pack
from rag.corpus.sentences import sentence_spans
from rag.corpus.text import plain_text
from rag.errors import DataError
from rag.params import ChunkParams
from rag.records import Chunk, Document


def word_tokens(texts: Sequence[str]) -> list[int]:
    """A word is a token for each four letters begun; two special tokens, as BERT adds."""
    return [2 + sum(-(-len(word) // 4) for word in re.findall(r"\w+|[^\w\s]", t)) for t in texts]


def byte_tokens(texts: Sequence[str]) -> list[int]:
    return [len(text.encode()) for text in texts]


def document(text: str, title: str = "Petrel") -> Document:
    return Document("petrel.md", title, text, "petrel.md", "en")


def chunk(text: str, tokens: int = 16, overlap: int = 0, title: str = "Petrel") -> list[Chunk]:
    params = ChunkParams(max_chunk_tokens=tokens, overlap_sentences=overlap)
    return chunk_documents([document(text, title)], word_tokens, params)


FOUR = "Aa bb cc dd. Ee ff gg hh. Ii jj kk ll. Mm nn oo pp."  # 5 tokens a sentence


def test_sentences_are_packed_under_the_title_up_to_the_budget() -> None:
    # title 2 + special tokens 2 leave 12: two sentences of 5
    assert [item.text for item in chunk(f"Petrel\n\n{FOUR}")] == [
        "Petrel\nAa bb cc dd. Ee ff gg hh.",
        "Petrel\nIi jj kk ll. Mm nn oo pp.",
    ]
    assert [item.token_count for item in chunk(FOUR)] == [14, 14]


def test_the_last_sentences_of_a_chunk_open_the_next() -> None:
    bodies = [item.text.removeprefix("Petrel\n") for item in chunk(FOUR, overlap=1)]
    assert bodies == [
        "Aa bb cc dd. Ee ff gg hh.",
        "Ee ff gg hh. Ii jj kk ll.",
        "Ii jj kk ll. Mm nn oo pp.",
    ]


def test_an_overlap_that_leaves_no_room_is_given_up() -> None:
    long = "Ii jj kk ll mm nn oo pp qq rr ss."  # 12 tokens fill a chunk
    bodies = [item.text.removeprefix("Petrel\n") for item in chunk(f"Aa bb. {long} Tt uu.", 16, 2)]
    assert bodies == ["Aa bb.", long, "Tt uu."]


def test_a_sentence_too_long_is_cut_between_words_and_pieces_overlap() -> None:
    bodies = [
        item.text.removeprefix("Petrel\n")
        for item in chunk("aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr")
    ]
    # 12 words fill a chunk; a quarter of the room, 3 words, is said again
    assert bodies == ["aa bb cc dd ee ff gg hh ii jj kk ll", "jj kk ll mm nn oo pp qq rr"]


def test_a_word_too_long_is_cut_between_characters() -> None:
    chunks = chunk("x" * 200)
    assert all(item.token_count <= 16 for item in chunks)
    assert {item.text.removeprefix("Petrel\n").strip("x") for item in chunks} == {""}


def test_a_chinese_sentence_too_long_is_cut_between_characters() -> None:
    text = "北京是中华人民共和国的首都也是全国的政治中心" * 3
    params = ChunkParams(max_chunk_tokens=40, overlap_sentences=0)
    chunks = chunk_documents([document(text, "北京")], byte_tokens, params)
    assert all(item.text.startswith("北京\n") and item.token_count <= 40 for item in chunks)
    bodies = [item.text.removeprefix("北京\n") for item in chunks]
    assert [len(body) for body in bodies[:2]] == [11, 11]  # 40 - 7 bytes of title, 3 a character
    assert bodies[1].startswith(bodies[0][-2:])


def test_a_title_too_long_is_shortened_and_stays_in_the_text() -> None:
    title = "Rules for the safe handling of ropes and chains on all decks"
    chunks = chunk(f"{title}\n\n{FOUR}", title=title)
    assert {item.text.split("\n")[0] for item in chunks} == {"Rules for the safe handling"}
    assert "all decks" in " ".join(item.text for item in chunks)
    assert max(item.token_count for item in chunks) <= 16


def test_an_id_is_the_hash_of_all_that_a_chunk_carries() -> None:
    known = Document("p.md", "Petrel", FOUR, "vessels/p.md", "sv", {"year": 1961})
    content = b'["p.md",1,"Text.","Petrel","vessels/p.md","sv",{"year":1961}]'
    assert chunk_id(known, 1, "Text.") == hashlib.sha256(content).hexdigest()[:16]
    changes: list[dict[str, Any]] = [
        {"document_id": "q.md"},
        {"title": "Fulmar"},
        {"source": "p.md"},
        {"language": "da"},
        {"metadata": {"year": 1962}},
    ]
    others = {chunk_id(replace(known, **change), 1, "Text.") for change in changes}
    others |= {chunk_id(known, 2, "Text."), chunk_id(known, 1, "Text!")}
    assert len(others - {chunk_id(known, 1, "Text.")}) == 7
    first, second = chunk(FOUR)
    assert (first.ordinal, second.ordinal) == (0, 1)
    assert first.chunk_id != second.chunk_id


def test_a_chunk_carries_what_its_document_is_known_by() -> None:
    known = Document("d", "Petrel", FOUR, "vessels/p.md", "sv", {"year": 1961})
    params = ChunkParams(max_chunk_tokens=16, overlap_sentences=0)
    found = chunk_documents([known], word_tokens, params)
    assert len(found) == 2
    assert {(c.title, c.source, c.language, c.metadata["year"]) for c in found} == {
        ("Petrel", "vessels/p.md", "sv", 1961)
    }


def test_tokens_are_counted_in_batches() -> None:
    calls = []

    def counted(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return word_tokens(texts)

    documents = [
        Document(f"{n}.md", f"T{n}", f"{FOUR} {'word ' * 40}.", "", "en") for n in range(50)
    ]
    chunk_documents(documents, counted, ChunkParams(max_chunk_tokens=16))
    assert len(calls) < 10
    assert sum(calls) > 400


def test_a_tokenizer_that_counts_a_whole_for_more_than_its_parts_is_packed_again() -> None:
    def joined(texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 3 * text.count(". ") for text in texts]

    params = ChunkParams(max_chunk_tokens=16, overlap_sentences=0)
    chunks = chunk_documents([document(FOUR)], joined, params)
    assert max(item.token_count for item in chunks) <= 16
    assert [item.token_count for item in chunks] == joined([item.text for item in chunks])


def test_a_budget_that_holds_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"petrel\.md: cannot be cut into chunks of 16 tokens"):
        chunk_documents([document(FOUR)], lambda t: [99] * len(t), ChunkParams(max_chunk_tokens=16))


def test_no_documents_give_no_chunks() -> None:
    assert chunk_documents([], word_tokens, ChunkParams()) == []


def test_pack_repeats_but_always_goes_on() -> None:
    assert pack([1, 1, 1, 1, 1], 3, lambda start, end: end - 2) == [(0, 3), (1, 4), (2, 5)]
    assert pack([9, 9], 3, lambda start, end: end - 1) == [(0, 1), (1, 2)]
    assert pack([], 3, lambda start, end: end) == []


WORDS = st.text(alphabet="abcdefgXYZ中文.!?,", min_size=1, max_size=14)


@given(
    st.lists(WORDS, min_size=1, max_size=80),
    st.integers(16, 40),
    st.integers(0, 3),
    st.sampled_from([word_tokens, byte_tokens]),
)
def test_no_text_is_lost_and_the_budget_is_kept(
    parts: list[str], tokens: int, overlap: int, count: object
) -> None:
    assert callable(count)
    body = plain_text(" ".join(parts))
    params = ChunkParams(max_chunk_tokens=tokens, overlap_sentences=overlap)
    chunks = chunk_documents([document(body)], count, params)
    for item in chunks:
        assert item.token_count == count([item.text])[0] <= tokens
    pieces = [item.text.removeprefix("Petrel\n") for item in chunks]
    assert any(not body[covered:].strip() for _, covered in placings(body, pieces))


def placings(body: str, pieces: list[str]) -> set[tuple[int, int]]:
    """(start of the last piece, end of what is covered) for every way in which the pieces can lie
    in the body in their order and leave out nothing; a repeated text can lie in several places."""
    places = {(0, 0)}
    for piece in pieces:
        places = {
            (at, max(covered, at + len(piece)))
            for begin, covered in places
            for at in range(begin, covered + 2)
            if body.startswith(piece, at) and not body[covered:at].strip()
        }
    return places


@given(st.lists(WORDS, min_size=1, max_size=80), st.integers(0, 3))
def test_a_sentence_that_fits_is_never_cut(parts: list[str], overlap: int) -> None:
    body = plain_text(" ".join(parts))
    params = ChunkParams(max_chunk_tokens=40, overlap_sentences=overlap)
    texts = [item.text for item in chunk_documents([document(body)], word_tokens, params)]
    for start, end in sentence_spans(body):
        sentence = body[start:end].strip()
        if word_tokens([f"Petrel\n{sentence}"])[0] <= 40:
            assert any(sentence in text for text in texts)
