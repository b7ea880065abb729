"""Train, dev and test: whole groups of documents, by a seeded hash, so that the test set is unseen.

A group is an article, or a document, together with everything that must not be parted from it: its
near-duplicates, and the documents whose questions repeat one of its own word for word.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rag.corpus.near_duplicates import DisjointSets, near_duplicates
from rag.corpus.questions import RawQuestion
from rag.corpus.text import normalized_question
from rag.params import PrepareParams
from rag.records import SPLITS, Document, Split


@dataclass(frozen=True)
class SplitQuestions:
    """Questions of each split, and what had to be kept together or apart for it.

    `near_duplicates` counts the documents joined to another for their likeness, `repeated` the
    questions whose text occurs more than once and which were kept in one split, `withdrawn` those
    taken out of train or dev because a later split asks the same and their documents were too many
    to join. `left_out` counts, by split, what `max_train_questions` and `max_test_questions` cut
    off.
    """

    questions: Mapping[Split, tuple[RawQuestion, ...]]
    groups: Mapping[Split, int]
    near_duplicates: int
    repeated: int
    withdrawn: tuple[RawQuestion, ...]
    left_out: Mapping[Split, int]


def split_questions(
    documents: Sequence[Document],
    questions: Sequence[RawQuestion],
    params: PrepareParams,
    seed: int,
) -> SplitQuestions:
    """Splits questions by the group of their document; the order of the input does not matter.

    Shares count groups that have questions, and test, then dev, gets at least one group as long as
    one is left to train on. A question without a document is placed by a hash of its id in the
    same shares, or with the question that it repeats.
    """
    questions = sorted(questions, key=lambda item: item.question_id)
    group_of, alike = _group_documents(documents, params.near_duplicate)
    repeats = _repeated(questions, group_of)
    group_of = _join_repeats(repeats, questions, group_of, params.test_share)
    asked = {group_of[item.document_id] for item in questions if item.document_id is not None}
    split_of_group = _split_groups(asked, params, seed)
    split_of = {
        item.question_id: _split_by_hash(item.question_id, params, seed)
        if item.document_id is None
        else split_of_group[group_of[item.document_id]]
        for item in questions
    }
    withdrawn = _resolve_repeats(repeats, split_of)
    out = {item.question_id for item in withdrawn}
    caps = {"train": params.max_train_questions, "test": params.max_test_questions}
    kept: dict[Split, tuple[RawQuestion, ...]] = {}
    left_out: dict[Split, int] = {}
    for split in SPLITS:
        members = [
            item
            for item in questions
            if split_of[item.question_id] == split and item.question_id not in out
        ]
        kept[split] = _sample(members, caps.get(split), seed)
        left_out[split] = len(members) - len(kept[split])
    return SplitQuestions(
        questions=kept,
        groups={split: list(split_of_group.values()).count(split) for split in SPLITS},
        near_duplicates=alike,
        repeated=sum(len(copies) for copies in repeats) - len(withdrawn),
        withdrawn=tuple(withdrawn),
        left_out=left_out,
    )


def _group_documents(
    documents: Sequence[Document], near_duplicate: float
) -> tuple[dict[str, str], int]:
    """The group of each document id, and how many documents are like another one."""
    own = {document.document_id: _group_key(document) for document in documents}
    sets = DisjointSets(own.values())
    ordered = sorted(documents, key=lambda document: document.document_id)
    alike: set[str] = set()
    for pair in near_duplicates([item.text for item in ordered], near_duplicate):
        left, right = (ordered[index].document_id for index in pair)
        sets.join(own[left], own[right])
        alike |= {left, right}
    return {document_id: sets.find(group) for document_id, group in own.items()}, len(alike)


def _group_key(document: Document) -> str:
    group = document.metadata.get("group")
    return f"document {document.document_id}" if group is None else f"group {group}"


def _repeated(
    questions: Iterable[RawQuestion], group_of: Mapping[str, str]
) -> list[list[RawQuestion]]:
    """Questions of one normalised text that could part: asked of several groups, or of none."""
    by_text: dict[str, list[RawQuestion]] = defaultdict(list)
    for question in questions:
        by_text[normalized_question(question.text)].append(question)
    repeats = []
    for _, copies in sorted(by_text.items()):
        places = {group_of.get(str(item.document_id), item.question_id) for item in copies}
        if len(places) > 1:
            repeats.append(copies)
    return repeats


def _join_repeats(
    repeats: Iterable[Sequence[RawQuestion]],
    questions: Sequence[RawQuestion],
    group_of: Mapping[str, str],
    test_share: float,
) -> dict[str, str]:
    """Joins groups that ask the same question, as long as they still fit into the test split.

    A question asked of everything ("What does it cost?") would join the whole corpus; its groups
    stay apart, and copies outside the test split are withdrawn instead.
    """
    groups = {group_of[item.document_id] for item in questions if item.document_id is not None}
    sets = DisjointSets(group_of.values())
    asked_in = dict.fromkeys(groups, 1)
    largest = max(1, round(test_share * len(groups)))
    for copies in repeats:
        roots = {
            sets.find(group_of[item.document_id]) for item in copies if item.document_id is not None
        }
        together = sum(asked_in[root] for root in roots)
        if roots and together <= largest:
            for root in roots:
                sets.join(min(roots), root)
            asked_in[min(roots)] = together
    return {document_id: sets.find(group) for document_id, group in group_of.items()}


def _split_groups(groups: Iterable[str], params: PrepareParams, seed: int) -> dict[str, Split]:
    ranked = sorted(groups, key=lambda group: (_hash(seed, "group", group), group))
    count = len(ranked)

    def share(value: float, room: int) -> int:
        return min(max(1, round(value * count)), max(0, room)) if value else 0

    test = share(params.test_share, count - 1)
    dev = share(params.dev_share, count - 1 - test)
    counts: dict[Split, int] = {"test": test, "dev": dev, "train": count - test - dev}
    names = [split for split, number in counts.items() for _ in range(number)]
    return dict(zip(ranked, names, strict=True))


def _split_by_hash(question_id: str, params: PrepareParams, seed: int) -> Split:
    place = _hash(seed, "question", question_id) / 2**64
    if place < params.test_share:
        return "test"
    return "dev" if place < params.test_share + params.dev_share else "train"


def _resolve_repeats(
    repeats: Iterable[Sequence[RawQuestion]], split_of: dict[str, Split]
) -> list[RawQuestion]:
    """Moves copies without a document to their twins; returns those that must be taken out."""
    withdrawn = []
    for copies in repeats:
        anchored = [item for item in copies if item.document_id is not None] or copies[:1]
        target = max((split_of[item.question_id] for item in anchored), key=SPLITS.index)
        for item in copies:
            if item.document_id is None:
                split_of[item.question_id] = target
            elif split_of[item.question_id] != target:
                withdrawn.append(item)
    return withdrawn


def _sample(
    questions: Sequence[RawQuestion], limit: int | None, seed: int
) -> tuple[RawQuestion, ...]:
    """At most `limit` questions by a seeded hash: a larger limit takes the same ones and more."""
    if limit is None or len(questions) <= limit:
        return tuple(questions)
    ranked = sorted(questions, key=lambda item: _hash(seed, "sample", item.question_id))
    return tuple(sorted(ranked[:limit], key=lambda item: item.question_id))


def _hash(seed: int, purpose: str, name: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
