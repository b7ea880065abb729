"""What the reader is shown, and what it is to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rag.errors import TrainingError
from rag.finetune.examples import (
    ReadingExample,
    choose_examples,
    dev_metrics,
    evenly,
    gold_passages,
    reading_examples,
)
from rag.records import Answer, Chunk, Passage, Question

MakeExample = Callable[..., ReadingExample]


def question(name: str, document: str | None, *answers: str) -> Question:
    return Question(name, f"{name}?", answers, document, bool(answers), "train", "en")


def chunk(name: str, document: str, text: str) -> Chunk:
    return Chunk(name, document, 0, text, len(text.split()))


def retrieved(*names: str) -> list[Passage]:
    return [Passage(name, "d", f"text of {name}", 0.5, i) for i, name in enumerate(names, 1)]


GOLD = Passage("gold", "d1", "Captain Marlow", 1.0, 1)


@pytest.mark.parametrize(
    ("found", "count", "shown"),
    [
        (["a", "b", "gold"], 3, ["a", "b", "gold"]),
        (["a", "gold", "b"], 2, ["a", "gold"]),
        (["a", "b", "gold"], 2, ["a", "gold"]),  # not among the first two: it takes the last place
        (["a", "b"], 1, ["gold"]),
        ([], 2, ["gold"]),
    ],
)
def test_the_gold_passage_is_always_shown(found: list[str], count: int, shown: list[str]) -> None:
    asked = question("q", "d1", "Captain Marlow", "Marlow")
    [made] = reading_examples([asked], {"q": retrieved(*found)}, {"q": GOLD}, count)
    assert [passage.chunk_id for passage in made.passages] == shown
    assert made.target == "Captain Marlow"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_questions_is_shown_no_passage_that_answers(share: float) -> None:
    """What is withheld is every passage that answers, and then to decline is right."""
    other = Passage("more", "d1", "it is Marlow again", 0.4, 3)
    shown = [*retrieved("a"), replace(GOLD, rank=2), other, *retrieved("b")]
    asked = [question(f"q{i}", "d1", "Marlow") for i in range(200)]
    made = reading_examples(
        asked,
        {one.question_id: shown for one in asked},
        {one.question_id: GOLD for one in asked},
        3,
        withheld_share=share,
        seed=5,
    )
    withheld = [one for one in made if not one.target]
    assert len(withheld) == pytest.approx(200 * share, abs=20)
    for one in made:
        names = [passage.chunk_id for passage in one.passages]
        assert names == (["a", "b"] if not one.target else ["a", "gold", "more"])


def test_a_question_whose_every_passage_answers_keeps_its_answer() -> None:
    asked = question("q", "d1", "Captain Marlow")
    [made] = reading_examples([asked], {"q": [GOLD]}, {"q": GOLD}, 1, withheld_share=0.99, seed=1)
    assert (made.target, [one.chunk_id for one in made.passages]) == ("Captain Marlow", ["gold"])


def test_unanswerable_questions_keep_their_distractors_and_have_nothing_to_say() -> None:
    asked = question("q", "d1")
    [made] = reading_examples([asked], {"q": retrieved("a", "b")}, {}, 2)
    assert [passage.chunk_id for passage in made.passages] == ["a", "b"]
    assert made.target == ""


def test_gold_is_the_first_chunk_of_the_document_that_holds_an_answer() -> None:
    chunks = [
        chunk("c0", "d0", "Captain Marlow"),
        chunk("c1", "d1", "no captain here"),
        chunk("c2", "d1", "under CAPTAIN Marlow"),
        chunk("c3", "d1", "Captain Marlow again"),
        chunk("c4", "d2", "built in 2019"),
    ]
    questions = [
        question("right", "d1", "Captain Marlow"),
        question("inside a number", "d2", "1"),
        question("no document", None, "Captain Marlow"),
        question("unanswerable", "d1"),
    ]
    found = gold_passages(questions, chunks)
    assert {name: passage.chunk_id for name, passage in found.items()} == {"right": "c2"}


def of_lengths(*lengths: int) -> tuple[list[Question], dict[str, Passage]]:
    """Two questions about each document, whose gold passage is as long as given."""
    questions, gold = [], {}
    for i, length in enumerate(lengths):
        for j in range(2):
            asked = question(f"q{i}{j}", f"d{i}", "nowhere", "Marlow")
            questions.append(asked)
            gold[asked.question_id] = Passage(f"c{i}", f"d{i}", f"{'Marlow':.<{length}}", 1.0, 1)
    return questions, gold


def test_examples_are_short_of_different_documents_and_say_what_stands_there() -> None:
    questions, gold = of_lengths(90, 10, 80, 20, 70, 30, 60, 40)
    chosen = choose_examples(questions, gold, 4, seed=1)
    # The shorter half has lengths 10, 20, 30 and 40, of documents 1, 3, 5 and 7.
    assert sorted(example.question[1] for example in chosen) == ["1", "3", "5", "7"]
    assert {len(passage) for example in chosen for passage in example.passages} == {10, 20, 30, 40}
    assert {example.answer for example in chosen} == {"Marlow"}, "not an answer that is elsewhere"


def test_the_seed_alone_decides_about_examples() -> None:
    questions, gold = of_lengths(*range(10, 90))
    first = choose_examples(questions, gold, 3, seed=1)
    assert first == choose_examples(questions, gold, 3, seed=1)
    assert first != choose_examples(questions, gold, 3, seed=2)
    assert len({example.question for example in first}) == 3


def test_there_are_no_more_examples_than_documents_with_a_gold_passage() -> None:
    questions, gold = of_lengths(10, 90)
    assert len(choose_examples(questions, gold, 5, seed=1)) == 2
    assert choose_examples([question("q", "d1")], {}, 5, seed=1) == []


def test_dev_metrics_are_means_in_percent(example: MakeExample) -> None:
    examples = [
        example("a?", [], "a"),
        example("b?", [], "b"),
        example("c?", []),
        example("d?", []),
    ]
    answers = [Answer(text, 0.0, not text) for text in ("a", "x", "", "x")]
    scores = {
        "right": lambda text, gold: float(text in gold if gold else not text),
        "length": lambda text, gold: float(len(text)),
    }
    assert dev_metrics(answers, examples, scores) == {"dev_right": 50.0, "dev_length": 75.0}


def test_dev_metrics_without_questions_are_an_error() -> None:
    with pytest.raises(TrainingError, match=r"prepare\.dev_share"):
        dev_metrics([], [], {})


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, "0"), (4, "0257"), (9, "012345678"), (99, "0123456789")]
)
def test_a_few_are_taken_from_all_over(count: int, chosen: str) -> None:
    assert "".join(evenly("0123456789", count)) == chosen
