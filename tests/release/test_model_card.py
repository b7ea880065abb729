"""The card of a release: what it says of scores, slices, errors and limits, and where it is cut."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.params import Params
from rag.records import DOCUMENTS, QUESTIONS, Document, Question, write_table
from rag.release.card_facts import CardFacts, data_counts
from rag.release.model_card import DESCRIPTION_LENGTH, description, model_card


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 5.0, "high": value + 5.0}


def slice_of(n: int, f1: float) -> dict[str, Any]:
    return {"n": n, "small": n < 30, "systems": {"tuned": {"f1": interval(f1)}}, "differences": {}}


METRICS: dict[str, Any] = {
    "n_questions": 200,
    "systems": {
        "tuned": {"f1": interval(60.0), "abstention_rate": interval(15.0)},
        "zero_shot": {"f1": interval(12.0)},
        "oracle": {"f1": interval(70.0)},
        "champion": {"f1": interval(55.0)},
    },
    "differences": {"champion": {"f1": interval(5.0)}, "oracle": {"f1": interval(-10.0)}},
    "minimum_detectable_effect": {"f1": 4.2},
    "errors": {"tuned": {"right": 150, "retrieval": 10, "reading": 40}},
    "abstention": {"tuned": {"aurc": 21.5, "curve": []}},
    "slices": {
        "language": {"en": slice_of(200, 60.0)},
        "source": {f"s{i}": slice_of(20 + 10 * i, 10.0 * i + 10.0) for i in range(9)},
    },
}
DECISION: dict[str, Any] = {
    "outcome": "INCONCLUSIVE",
    "reasons": ["f1 +5.0 is not beyond doubt", "one more"],
    "compared_with": "champion",
    "n_questions": 200,
    "checks": [
        {"name": "primary", "metric": "f1", "value": 5.0, "low": 0.0, "high": 10.0}
        | {"threshold": 0.0, "passed": False, "conclusive": False, "decides": True}
    ],
}
FACTS = CardFacts(
    params=Params(),
    metrics=METRICS,
    decision=DECISION,
    lineage={"data_hash": "d1", "git_commit": "c1"},
    reading={"Fusion": "concat"},
    version="7",
    abstain_below=-1.25,
    data={
        "documents": {"en": 3, "no": 1},
        "questions": {
            "train": {"all": 9, "unanswerable": 2},
            "test": {"all": 4, "unanswerable": 1},
        },
    },
)


def test_the_card_says_how_good_how_sure_and_against_whom() -> None:
    card = model_card(FACTS)
    assert card.startswith("# ragloop 7\n\nINCONCLUSIVE: f1 +5.0 is not beyond doubt\n")
    assert "| **cannot tell** | primary | f1 | 5.0 | 0.0 to 10.0 | above 0.0 |" in card
    assert "| percent | tuned | untuned | oracle (upper bound) | champion |" in card
    assert "| f1 | 60.0 (55.0 to 65.0) | 12.0 (7.0 to 17.0) |" in card
    assert "Change against champion, points: f1 +5.0 (+0.0 to +10.0)." in card
    assert "Change against oracle" not in card
    assert "`ragloop reproduce 7`" in card


def test_the_card_says_what_it_cannot_do() -> None:
    card = model_card(FACTS)
    assert "with so many questions: f1 4.2." in card
    assert "Languages of the documents: en, no. No other was tested." in card
    assert "below -1.25, chosen on dev. Of the test questions it declined 15.0" in card
    assert "(without an answer: 1). Mean risk over all coverages (AURC): 21.5 %." in card
    never = model_card(replace(FACTS, abstain_below=None))
    assert "It never abstains by a threshold." in never


def test_worst_and_best_slices_are_each_shown_once_and_small_ones_marked() -> None:
    rows = re.findall(r"\| (worst|best) \| (.+?) \| (.+?) \| (\d+)", model_card(FACTS))
    assert rows == [
        ("worst", "source: s0", "20 (small)", "10"),
        *[("worst", f"source: s{i}", f"{20 + 10 * i}", f"{10 * i + 10}") for i in range(1, 5)],
        *[("best", f"source: s{i}", f"{20 + 10 * i}", f"{10 * i + 10}") for i in (8, 7, 6)],
    ], "a slice that is the whole test set says nothing of its own"


def test_shares_of_errors_are_of_all_answers() -> None:
    card = model_card(FACTS)
    assert "| Right | 150 | 75.0 % |\n| Misread | 40 | 20.0 % |\n" in card
    assert "| Passage not found | 10 | 5.0 % |" in card


def test_base_models_have_their_licences() -> None:
    assert "`bundled:smollm2-135m` (causal): SmolLM2-135M-Instruct, Apache-2.0" in model_card(FACTS)
    other = Params.model_validate({"reader": {"model": "org/name", "revision": "a" * 40}})
    assert "`org/name` (causal): its own licence" in model_card(replace(FACTS, params=other))


def test_a_description_that_is_too_long_loses_whole_sections() -> None:
    short = description(FACTS)
    assert len(short) <= DESCRIPTION_LENGTH
    checks = [{**DECISION["checks"][0], "name": f"guard {i}"} for i in range(40)]
    long = replace(FACTS, decision={**DECISION, "checks": checks})
    cut = description(long)
    assert len(cut) <= DESCRIPTION_LENGTH
    assert cut.endswith("is `card.md` in the run's artifacts.")
    assert "### Made from" not in cut
    assert "### Made from" in model_card(long)
    checks *= 5
    endless = description(replace(FACTS, decision={**DECISION, "checks": checks}))
    assert len(endless) <= DESCRIPTION_LENGTH
    assert endless.startswith("INCONCLUSIVE: f1 +5.0 is not beyond doubt\n")


@pytest.mark.parametrize("left_out", ["slices", "errors", "abstention", "differences"])
def test_a_section_without_its_facts_is_left_out(left_out: str) -> None:
    card = model_card(replace(FACTS, metrics={**METRICS, left_out: {}}, data=None))
    assert "### Scores on 200" in card
    assert "### Data" not in card
    assert "None" not in card


def test_data_is_counted_from_the_tables(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    assert data_counts(artifacts) is None
    documents = [Document(f"d{i}", "t", "x", f"{i}.md", "no" if i else "en") for i in range(3)]
    write_table(documents, DOCUMENTS, artifacts.documents)
    questions = [
        Question("q1", "Q?", ("x",), "d0", True, "train", "en"),
        Question("q2", "Q?", (), None, False, "test", "en"),
    ]
    write_table(questions, QUESTIONS, artifacts.questions)
    assert data_counts(artifacts) == {
        "documents": {"no": 2, "en": 1},
        "questions": {
            "train": {"all": 1, "unanswerable": 0},
            "dev": {"all": 0, "unanswerable": 0},
            "test": {"all": 1, "unanswerable": 1},
        },
    }
