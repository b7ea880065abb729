"""How fast training was: numbers by hand, the line that a person reads, and the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.finetune.checkpoint import Tally
from rag.finetune.history import report_speed, training_log

TRAINED = Tally(loss=9.0, weight=40, samples=33, tokens=8190, padded_tokens=9000)


def test_speed_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_speed("train_reader", TRAINED, 10.0, tmp_path / "speed")
    expected = "train_reader: 3.3 samples/s, 819 tokens/s, 9 % padding\n"
    assert capsys.readouterr().out == expected
    assert json.loads((tmp_path / "speed" / "train_reader.json").read_text()) == {
        "seconds": 10.0,
        "samples": 33,
        "samples_per_second": 3.3,
        "tokens": 8190,
        "padded_tokens": 9000,
        "tokens_per_second": 819.0,
        "padding_share": pytest.approx(0.09),
    }


def test_tokens_that_were_not_counted_are_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_speed("train_retriever", Tally(samples=30), 20.0, tmp_path)
    assert capsys.readouterr().out == "train_retriever: 1.5 samples/s\n"
    found = json.loads((tmp_path / "train_retriever.json").read_text())
    assert found == {"seconds": 20.0, "samples": 30, "samples_per_second": 1.5}


def test_a_run_that_had_nothing_left_to_do_has_no_speed(tmp_path: Path) -> None:
    report_speed("train_reader", Tally(), 0.0, tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_curve_has_no_clock(tmp_path: Path) -> None:
    with training_log(tmp_path / "model" / "history.jsonl", "train") as (log, tick):
        log({"loss": 1.23456789, "padding_share": 0.25}, 5)
        tick(1, 2)
    text = (tmp_path / "model" / "history.jsonl").read_text()
    assert text == '{"loss":1.234568,"padding_share":0.25,"step":5}\n'
