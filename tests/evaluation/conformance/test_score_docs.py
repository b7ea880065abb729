"""docs/metrics.md: its examples run, and it names every option and every metric that there is."""

from __future__ import annotations

import doctest
from pathlib import Path

import typer.main

from flows.cli import app
from rag.evaluation import normalize, token_counts
from rag.evaluation.score_table import ANSWER_METRICS, OVERLAP_METRICS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_the_examples_give_what_they_show() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 10
    assert not found.failed


def test_the_examples_of_the_modules_do_too() -> None:
    for module in (normalize, token_counts):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


def test_every_option_and_metric_is_explained() -> None:
    command = typer.main.get_command(app)
    options = [
        name
        for parameter in command.commands["score"].params
        for name in parameter.opts
        if name.startswith("--")
    ]
    assert len(options) > 8
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in options if f"`{name}" not in page] == []
    assert [name for name in (*ANSWER_METRICS, *OVERLAP_METRICS) if f"`{name}`" not in page] == []
