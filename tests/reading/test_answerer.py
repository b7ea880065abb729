"""The tuned system and those it is compared with, on a small real project."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.evaluation.evaluate import answer_questions
from rag.finetune.examples import gold_passages
from rag.params import Params
from rag.reading.answerer import QuestionAnswerer, System
from rag.reading.generative import Source
from rag.records import Question, read_chunks
from tests.answering_project import TEXTS, write_adapter, write_answering_project
from tests.toy import toy_params

pytestmark = pytest.mark.integration

EXAMPLES = [
    {"question": "Who rests?", "passages": ["The crew rests."], "answer": "the crew"},
    {"question": "Who rows?", "passages": ["Anna rows."], "answer": "Anna"},
    {"question": "Who cooks?", "passages": ["Ben cooks."], "answer": "Ben"},
]
QUESTIONS = [
    Question("q0", "when does the petrel sail?", ("dawn",), "d1", True, "test", "en"),
    Question("q1", "who travels free?", (), "d2", False, "test", "en"),
]


@pytest.fixture(scope="module")
def params(toy_model: Path) -> Params:
    return toy_params(
        f"reader.model={toy_model}",
        "reader.fusion=rag_sequence",
        "reader.passages=2",
        "reader.examples=2",
        "reader.max_prompt_tokens=400",
        "reader.abstain=null",
    )


@pytest.fixture(scope="module")
def artifacts(
    toy_model: Path, params: Params, tmp_path_factory: pytest.TempPathFactory
) -> Artifacts:
    root = tmp_path_factory.mktemp("answering")
    write_adapter(toy_model, Artifacts(root).reader / "adapter")
    return write_answering_project(root, params, examples=EXAMPLES, prior_temperature=0.25)


@pytest.mark.parametrize(
    ("system", "shown"),
    [
        ("tuned", ["Who rests?", "Who rows?"]),
        ("zero_shot", []),
        ("one_shot", ["Who rests?"]),
        ("closed_book", []),
        ("oracle", ["Who rests?", "Who rows?"]),
    ],
)
def test_each_system_is_shown_its_examples(
    artifacts: Artifacts, params: Params, system: System, shown: list[str]
) -> None:
    answerer = QuestionAnswerer.load(artifacts, params, system)
    prompt = answerer.reader.prompt(Source("Who sings?", ("Eve sings.",)))
    text = answerer.reader.tokenizer.decode([*prompt.shared, *prompt.own])
    asked = [line.removeprefix("Question: ") for line in text.splitlines() if "Question: " in line]
    assert asked == [*shown, "Who sings?"]
    tuned = system in ("tuned", "oracle")
    assert hasattr(answerer.reader.model, "peft_config") is tuned
    assert answerer.reader.prior_temperature == 0.25
    answerer.close()


def test_a_closed_book_has_no_passages_to_show(artifacts: Artifacts, params: Params) -> None:
    answerer = QuestionAnswerer.load(artifacts, params, "closed_book")
    [response] = answerer.respond(["when does the petrel sail?"])
    assert response.passages == response.answer.evidence == ()


def test_the_oracle_reads_the_gold_passage_and_is_not_scored_on_retrieval(
    artifacts: Artifacts, params: Params
) -> None:
    gold = gold_passages(QUESTIONS, read_chunks(artifacts.chunks))
    assert {name: passage.text for name, passage in gold.items()} == {"q0": TEXTS[1]}
    answerer = QuestionAnswerer.load(artifacts, params, "oracle")
    rows = answer_questions(answerer, QUESTIONS, "oracle", gold=gold)
    tuned = answer_questions(answerer, QUESTIONS, "tuned")
    answerer.close()
    assert [item["text"] for item in rows[0]["evidence"]] == [TEXTS[1]]
    assert rows[0]["evidence"][0]["posterior"] == pytest.approx(1.0)
    assert tuned[0]["evidence"][0]["text"] == TEXTS[0], "retrieval takes the wrong one"
    retrieved = [[item["chunk_id"] for item in row["evidence"]] for row in (rows[1], tuned[1])]
    assert retrieved[0] == retrieved[1], "without gold: what was retrieved"
    assert len(retrieved[0]) == 3
    assert [row["recall@5"] for row in rows] == [None, None]
    assert [row["recall@5"] for row in tuned] == [1.0, None]


def test_the_posterior_is_of_the_passages_that_were_read(
    artifacts: Artifacts, params: Params
) -> None:
    answerer = QuestionAnswerer.load(artifacts, params)
    [row] = answer_questions(answerer, QUESTIONS[:1], "tuned")
    answerer.close()
    shares = [item["posterior"] for item in row["evidence"]]
    assert len(shares) == 3, "as many are shown as there are, and two are read"
    assert shares[2] is None
    assert math.fsum(shares[:2]) == pytest.approx(1.0)
