"""The report after the gate, from a real run and a champion that answered the same questions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rag.artifacts import Artifacts
from rag.errors import MetricError
from rag.evaluation.review import review
from rag.params import load_params
from rag.records import read_table

pytestmark = pytest.mark.integration


def answers_of(artifacts: Artifacts, system: str) -> pa.Table:
    """That system's answers, as if the champion had given them."""
    table = read_table(artifacts.predictions)
    rows = table.filter(pc.equal(table["system"], system)).to_pylist()
    return pa.Table.from_pylist(
        [{**row, "system": "champion"} for row in rows], schema=table.schema
    )


def test_the_champion_is_scored_like_the_others(finished_toy: Path) -> None:
    artifacts = Artifacts(finished_toy)
    params = load_params(artifacts.params)
    champion = answers_of(artifacts, "zero_shot")
    found = review(params, artifacts, champion=champion, decision=None)
    systems = found.metrics["systems"]
    assert systems["champion"] == systems["zero_shot"]
    assert found.metrics["differences"]["champion"] == found.metrics["differences"]["zero_shot"]
    assert found.predictions.num_rows == read_table(artifacts.predictions).num_rows + len(champion)
    assert "Better than the champion</h1>" in found.page
    again = review(params, artifacts, champion=champion, decision=None)
    assert again.page == found.page
    alone = review(params, artifacts, champion=None, decision=None)
    assert alone.page == artifacts.report.read_text(encoding="utf-8")


def test_a_champion_that_was_asked_something_else_is_refused(finished_toy: Path) -> None:
    artifacts = Artifacts(finished_toy)
    champion = answers_of(artifacts, "zero_shot").slice(1)
    with pytest.raises(MetricError):
        review(load_params(artifacts.params), artifacts, champion=champion, decision=None)
