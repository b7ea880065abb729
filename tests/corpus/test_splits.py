"""Splits: shares of documents, nothing alike on both sides, the same whatever the order."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.corpus.near_duplicates import near_duplicates
from rag.corpus.questions import RawQuestion
from rag.corpus.splits import SplitQuestions, split_questions
from rag.params import PrepareParams
from rag.records import SPLITS, Document

#: The counts below are worked out for a quarter of the documents in the test split.
PARAMS = PrepareParams(test_share=0.25)
NAMES = [f"d{number:02}.md" for number in range(20)]


def documents(names: Iterable[str] = NAMES, group: dict[str, str] | None = None) -> list[Document]:
    return [
        Document(
            name, name, f"{name} says {name}", name, "en", {"group": group[name]} if group else {}
        )
        for name in names
    ]


def question(name: str, document: str | None, text: str = "") -> RawQuestion:
    answers = () if document is None else ("a",)
    return RawQuestion(
        name, text or f"Question {name}?", answers, document, bool(answers), "q.jsonl", 1
    )


def questions(names: Iterable[str] = NAMES, each: int = 3) -> list[RawQuestion]:
    return [question(f"{name}-{n}", name) for name in names for n in range(each)]


def where(split: SplitQuestions) -> dict[str, str]:
    return {item.question_id: name for name in SPLITS for item in split.questions[name]}


def test_shares_count_documents_that_have_questions() -> None:
    asked = questions(NAMES[:16])
    split = split_questions(documents(), asked, PARAMS, 13)
    assert split.groups == {"train": 10, "dev": 2, "test": 4}  # .25 and .1 of 16
    assert {name: len(items) for name, items in split.questions.items()} == {
        "train": 30,
        "dev": 6,
        "test": 12,
    }
    for name in NAMES[:16]:
        assert len({where(split)[f"{name}-{n}"] for n in range(3)}) == 1


@pytest.mark.parametrize(
    ("count", "groups"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1))],
)
def test_few_documents_give_each_split_one_if_they_can(
    count: int, groups: tuple[int, int, int]
) -> None:
    split = split_questions(documents(NAMES[:count]), questions(NAMES[:count]), PARAMS, 13)
    assert tuple(split.groups[name] for name in SPLITS) == groups


def test_a_share_of_zero_takes_nothing() -> None:
    params = PrepareParams(test_share=0.25, dev_share=0.0)
    assert split_questions(documents(), questions(), params, 13).groups["dev"] == 0


def test_order_does_not_matter_and_the_seed_does() -> None:
    texts, asked = documents(), [*questions(), *(question(f"u{n}", None) for n in range(40))]
    expected = where(split_questions(texts, asked, PARAMS, 13))
    shuffle = random.Random(5)
    for _ in range(3):
        shuffle.shuffle(texts)
        shuffle.shuffle(asked)
        assert where(split_questions(texts, asked, PARAMS, 13)) == expected
    assert where(split_questions(texts, asked, PARAMS, 14)) != expected


def test_articles_stay_whole() -> None:
    group = {name: f"article {number // 4}" for number, name in enumerate(NAMES)}
    split = split_questions(documents(group=group), questions(), PARAMS, 13)
    assert split.groups == {"train": 3, "dev": 1, "test": 1}
    for number in range(5):
        ids = [f"{name}-{n}" for name in NAMES[4 * number : 4 * number + 4] for n in range(3)]
        assert len({where(split)[item] for item in ids}) == 1


def test_near_duplicates_land_in_one_split() -> None:
    text = " ".join(f"w{n}" for n in range(100))
    copies = [Document(name, name, f"{text} {name}", name, "en") for name in NAMES[:10]]
    split = split_questions([*copies, *documents(NAMES[10:])], questions(), PARAMS, 13)
    assert len({where(split)[f"{name}-0"] for name in NAMES[:10]}) == 1
    assert split.near_duplicates == 10
    assert sum(split.groups.values()) == 11


def test_documents_that_ask_the_same_stay_together() -> None:
    asked = questions()
    asked += [question("twin-a", NAMES[0], "Who is it?"), question("twin-b", NAMES[7], "who is it")]
    for seed in range(20):
        split = split_questions(documents(), asked, PARAMS, seed)
        places = where(split)
        assert places["twin-a"] == places["twin-b"] == places["d00.md-0"] == places["d07.md-0"]
        assert (split.repeated, len(split.withdrawn)) == (2, 0)


def test_a_question_asked_of_everything_is_withdrawn_from_training() -> None:
    asked = [question(f"cost {name}", name, "What does it cost?") for name in NAMES]
    split = split_questions(documents(), [*questions(), *asked], PARAMS, 13)
    assert split.groups == {"train": 13, "dev": 2, "test": 5}
    assert (len(split.withdrawn), split.repeated) == (15, 5)
    places = where(split)
    assert {places[item.question_id] for item in asked if item.question_id in places} == {"test"}


def test_unanswerable_questions_are_placed_by_their_own_id() -> None:
    loose = [question(f"u{number}", None) for number in range(2000)]
    split = split_questions(documents(), [*questions(), *loose], PARAMS, 13)
    counts = {name: len(items) for name, items in split.questions.items()}
    assert 440 < counts["test"] - 15 < 560  # 500 expected
    assert 150 < counts["dev"] - 6 < 250  # 200 expected
    alone = split_questions(documents(), [*questions(), *loose[:50]], PARAMS, 13)
    assert all(where(split)[f"u{number}"] == where(alone)[f"u{number}"] for number in range(50))


def test_unanswerable_twins_go_where_the_question_is_tested() -> None:
    asked = [*questions(), question("t", NAMES[3], "Who?")]
    loose = [question(f"u{number}", None, "WHO") for number in range(9)]
    places = where(split_questions(documents(), [*asked, *loose], PARAMS, 13))
    assert {places[item.question_id] for item in loose} == {places["t"]}
    alone = where(split_questions(documents(), [*questions(), *loose], PARAMS, 13))
    assert len({alone[item.question_id] for item in loose}) == 1


def test_caps_take_a_seeded_sample() -> None:
    whole = where(split_questions(documents(), questions(), PARAMS, 13))
    params = PrepareParams(test_share=0.25, max_train_questions=10, max_test_questions=4)
    split = split_questions(documents(), questions(), params, 13)
    assert [len(split.questions[name]) for name in SPLITS] == [10, 6, 4]
    assert split.left_out == {"train": 29, "dev": 0, "test": 11}
    assert where(split).items() <= whole.items()
    larger = PrepareParams(test_share=0.25, max_train_questions=11)
    more = split_questions(documents(), questions(), larger, 13).questions["train"]
    assert {item.question_id for item in more} > {
        item.question_id for item in split.questions["train"]
    }


def jaccard(left: str, right: str) -> float:
    """By hand: sets of five words in a row."""
    grams = []
    for text in (left, right):
        own = text.lower().split()
        size = min(5, len(own))
        grams.append({tuple(own[n : n + size]) for n in range(len(own) - size + 1)})
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def test_near_duplicates_by_hand() -> None:
    base = "a b c d e f g h i j"  # six 5-grams
    longer = "A b c d e f g h i j k"  # the same six and one more: 6/7 = .857
    assert near_duplicates([base, longer, "x y"], 0.85) == [(0, 1)]
    assert near_duplicates([base, longer], 0.86) == []
    assert near_duplicates(["x y", "X, y!", base], 1.0) == [(0, 1)]
    assert near_duplicates(["", ""], 0.5) == []
    assert near_duplicates(["北京是中国的首都城市", "北京是中国的首都城市。"], 0.9) == [(0, 1)]


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=14).map(" ".join), max_size=9),
    st.sampled_from([0.1, 0.3, 0.5, 0.75, 0.9]),
)
def test_near_duplicates_link_what_brute_force_links(texts: list[str], threshold: float) -> None:
    def sets(pairs: Iterable[tuple[int, int]]) -> set[frozenset[int]]:
        group = {number: {number} for number in range(len(texts))}
        for left, right in pairs:
            group[left] |= group[right]
            for member in group[left]:
                group[member] = group[left]
        return {frozenset(members) for members in group.values()}

    expected = [
        (left, right)
        for left, right in combinations(range(len(texts)), 2)
        if jaccard(texts[left], texts[right]) > threshold or jaccard(texts[left], texts[right]) == 1
    ]
    assert sets(near_duplicates(texts, threshold)) == sets(expected)


def test_five_thousand_documents_take_seconds() -> None:
    source = random.Random(3)
    vocabulary = [f"word{number}" for number in range(3000)]
    boilerplate = " ".join(source.choices(vocabulary, k=40))
    texts = [f"{boilerplate} {' '.join(source.choices(vocabulary, k=80))}" for _ in range(4999)]
    started = time.perf_counter()
    assert near_duplicates([*texts, texts[17] + " more"], 0.9) == [(17, 4999)]
    assert time.perf_counter() - started < 10
