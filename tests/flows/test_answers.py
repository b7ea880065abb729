"""What `ragloop ask` prints of an answer and its evidence."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from flows.answers import print_answer, print_passages
from flows.options import print_json
from rag.records import Evidence, Passage


def found(*shares: float | None, abstained: bool = False) -> dict[str, Any]:
    evidence = [
        asdict(Evidence(f"c{i}", f"d{i}", f"Text [{i}].", 0.5, i, share))
        for i, share in enumerate(shares, 1)
    ]
    text = "" if abstained else "noon [UTC]"
    return {"answer": text, "abstained": abstained, "evidence": evidence}


def test_each_passage_says_how_much_of_the_answer_is_its(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_answer(found(0.82, 0.18))
    assert capsys.readouterr().out == (
        "noon [UTC]\n\n1. d1 0.500 82 % of the answer\nText [1].\n"
        "\n2. d2 0.500 18 % of the answer\nText [2].\n"
    )


def test_passages_that_were_not_weighed_say_nothing_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_answer(found(None))
    assert capsys.readouterr().out == "noon [UTC]\n\n1. d1 0.500\nText [1].\n"
    print_passages([asdict(Passage("c", "d", "Text.", 0.25, 1))])
    assert capsys.readouterr().out == "\n1. d 0.250\nText.\n"


def test_where_there_is_no_answer_nothing_has_a_share_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_answer(found(1.0, abstained=True))
    printed = capsys.readouterr().out
    assert "1. d1 0.500\n" in printed
    assert "%" not in printed


def test_json_has_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(found(0.82, None))
    evidence = json.loads(capsys.readouterr().out)["evidence"]
    assert [item["posterior"] for item in evidence] == [0.82, None]
