"""Why an answer is wrong: each rule by hand, in the order in which they hold."""

from __future__ import annotations

from typing import Any

import pytest

from rag.errors import MetricError
from rag.evaluation.answer_scores import exact_match
from rag.evaluation.attribution import (
    LABELS,
    error_counts,
    error_label,
    gold_first,
    is_attributed,
    label_errors,
    nearly_equal,
    repaired,
)
from rag.records import Passage

GOLD_TEXT = "The Sea Eagle was built in 2019 by the Northern Yard."


def row(
    prediction: str,
    *answers: str,
    read: bool | None = True,
    document: str | None = "d",
    evidence: tuple[str, ...] = ("Some text.",),
    question_id: str = "q1",
) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "prediction": prediction,
        "answers": list(answers),
        "answerable": bool(answers),
        "abstained": not prediction,
        "document_id": document,
        "exact_match": exact_match(prediction, answers),
        "gold_read": read,
        "evidence": [{"text": text} for text in evidence],
        "error": None,
    }


def oracle(prediction: str, *answers: str) -> dict[str, Any]:
    return row(prediction, *answers, evidence=(GOLD_TEXT,))


def test_a_right_answer_has_no_error() -> None:
    assert error_label(row("the Sea Eagle", "Sea Eagle"), None, []) is None
    assert error_label(row(""), None, []) is None, "declined what has no answer"


def test_to_decline_what_has_an_answer_is_abstention_whatever_was_read() -> None:
    right = oracle("Sea Eagle", "Sea Eagle")
    for read in (True, False):
        assert error_label(row("", "Sea Eagle", read=read), right, []) == "abstention"


def test_to_answer_what_has_no_answer_is_abstention() -> None:
    assert error_label(row("the master", read=None, document=None), None, []) == "abstention"


def test_a_wrong_answer_beside_the_gold_passage_is_reading() -> None:
    right = oracle("2019", "2019")
    assert error_label(row("2018", "2019", read=True), right, []) == "reading"


def test_a_wrong_answer_that_the_gold_passage_sets_right_is_retrieval() -> None:
    right = oracle("2019", "2019")
    assert error_label(row("2018", "2019", read=False), right, []) == "retrieval"


def test_an_oracle_that_is_nearly_right_sets_it_right_too() -> None:
    nearly = oracle("in 2019", "2019")
    assert nearly["exact_match"] == 0.0
    assert error_label(row("2018", "2019", read=False), nearly, []) == "retrieval"


def test_a_wrong_answer_that_the_gold_passage_does_not_set_right_is_reading() -> None:
    for said in ("2017", ""):
        wrong = oracle(said, "2019")
        assert error_label(row("2018", "2019", read=False), wrong, []) == "reading"


def test_without_a_document_and_a_passage_that_holds_the_answer_it_is_retrieval() -> None:
    assert error_label(row("2018", "2019", read=False, document=None), None, []) == "retrieval"


def test_an_answer_that_stands_nowhere_in_its_document_is_suspect() -> None:
    assert error_label(row("2018", "MMXIX", read=False), None, []) == "annotation_suspect"


def test_nearly_the_accepted_answer_is_suspect_before_anything_else() -> None:
    for read in (True, False):
        found = row("in the yellow locker aft", "in the yellow locker", read=read)
        assert error_label(found, None, []) == "annotation_suspect"


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("in the yellow locker aft", "in the yellow locker", True),  # F1 6/7
        ("built in 2019", "2019", True),  # holds it, three times as long: F1 1/2
        ("it was built in 2019", "2019", False),  # five times as long
        ("12 May 2019 at noon", "13 May 2019 at noon", False),  # F1 4/5, other numbers
        ("Sea Eagle", "Sea Eagle of the Northern Yard", False),  # a part of it: F1 4/7
        ("Eagle of the Sea", "Sea Eagle", True),  # the same words: F1 2*2/(3+2)
        ("北京市海淀区", "北京市海淀", True),  # F1 10/11, by character
        ("", "2019", False),
    ],
)
def test_nearly_equal(prediction: str, answer: str, *, expected: bool) -> None:
    assert nearly_equal(prediction, [answer]) is expected
    assert nearly_equal(prediction, ["something else", answer]) is expected


def test_one_other_answer_of_all_systems_that_the_gold_passage_holds_is_suspect() -> None:
    given = row("the Northern Yard", "Eastern Yard", read=True)
    agreed = oracle("Northern Yard", "Eastern Yard")
    baseline = row("Northern Yard.", "Eastern Yard")
    assert error_label(given, agreed, [baseline]) == "annotation_suspect"
    # Each part of the rule is needed.
    assert error_label(given, agreed, []) == "reading", "nobody independent says so"
    other = row("Southern Yard", "Eastern Yard")
    assert error_label(given, agreed, [baseline, other]) == "reading", "one says otherwise"
    assert error_label(given, oracle("the yard", "Eastern Yard"), [baseline]) == "reading"
    elsewhere = row("the Western Yard", "Eastern Yard")
    agreed_elsewhere = oracle("Western Yard", "Eastern Yard")
    assert error_label(elsewhere, agreed_elsewhere, [elsewhere]) == "reading", "not in the passage"
    silent = row("", "Eastern Yard")
    closed = row("unknown", "Eastern Yard", evidence=())
    assert error_label(given, agreed, [baseline, silent, closed]) == "annotation_suspect"


def labelled(*labels: str | None) -> list[dict[str, Any]]:
    return [
        {"question_id": f"q{i}", "exact_match": float(label is None), "error": label}
        for i, label in enumerate(labels)
    ]


def test_labels_and_right_answers_sum_to_the_questions() -> None:
    rows = labelled(None, "reading", None, "retrieval", "reading", "abstention")
    counts = error_counts(rows)
    assert counts == {
        "right": 2, "retrieval": 1, "reading": 2, "abstention": 1, "annotation_suspect": 0,
    }  # fmt: skip
    assert tuple(counts) == LABELS
    assert sum(counts.values()) == len(rows)


def test_labels_that_do_not_fit_name_their_questions() -> None:
    rows = labelled(None, "reading", "reading")
    rows[1]["error"] = None
    with pytest.raises(MetricError, match="wrong answers without a label at questions: q1"):
        error_counts(rows)
    rows = labelled(None, "reading")
    rows[0]["error"] = "reading"
    with pytest.raises(MetricError, match="right answers with a label at questions: q0"):
        error_counts(rows)
    with pytest.raises(MetricError, match="unknown labels at questions: q1"):
        error_counts(labelled(None, "bad luck"))


def test_errors_that_nobody_looked_into_are_not_counted() -> None:
    rows = labelled(None, "reading")
    assert is_attributed(rows)
    rows[1]["error"] = None
    assert not is_attributed(rows)
    assert is_attributed(labelled(None, None)), "there is nothing to look into"


def test_every_question_is_labelled_once_in_order() -> None:
    rows = [
        row("Sea Eagle", "Sea Eagle", question_id="q1"),
        row("2018", "2019", read=False, question_id="q2"),
    ]
    found = label_errors(rows, {"q2": oracle("2019", "2019")}, {})
    assert [(item["question_id"], item["error"]) for item in found] == [
        ("q1", None),
        ("q2", "retrieval"),
    ]
    assert rows[1]["error"] is None, "the rows given are left as they are"
    with pytest.raises(MetricError, match="zero_shot: missing for questions: q2"):
        label_errors(rows, {}, {"zero_shot": {"q1": rows[0]}})


def test_a_probe_repairs_what_it_gets_right() -> None:
    rows = labelled(None, "reading", "retrieval")
    right, wrong = {"exact_match": 1.0}, {"exact_match": 0.0}
    assert repaired(rows, {"oracle": {"q1": wrong, "q2": right}, "no_passage": {"q1": wrong}}) == {
        "oracle": 1,
        "no_passage": 0,
    }
    with pytest.raises(MetricError, match="oracle: asked although it was answered rightly: q0"):
        repaired(rows, {"oracle": {"q0": right}})


def test_the_gold_passage_moves_to_the_front_and_places_keep_their_scores() -> None:
    passages = [Passage(f"c{rank}", "d", f"t{rank}", 1.0 / rank, rank) for rank in (1, 2, 3, 4)]
    found = gold_first(passages, 3)
    assert [item.chunk_id for item in found] == ["c3", "c1", "c2", "c4"]
    assert [item.text for item in found] == ["t3", "t1", "t2", "t4"]
    assert [item.rank for item in found] == [1, 2, 3, 4]
    assert [item.score for item in found] == [1.0, 0.5, 1 / 3, 0.25]
    assert gold_first(passages, 1) == passages
    with pytest.raises(MetricError, match="rank must be 1 to 4, got 5"):
        gold_first(passages, 5)
