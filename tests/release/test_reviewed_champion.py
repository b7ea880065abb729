"""A challenger is reviewed against the champion of when it was decided, which is asked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import compare, review_commands
from rag.artifacts import Artifacts
from rag.errors import DataError, ReleaseError
from rag.evaluation.review_folder import read_review
from rag.evaluation.review_sample import answers_digest
from rag.evaluation.scoring import prediction_rows
from rag.params import Params, parse_params
from rag.records import PREDICTIONS, QUESTIONS, Answer, Question, write_table
from rag.release import ledger, registry, switch
from rag.release.registry import ReleaseVersion
from rag.weights import file_sha256
from tests.answering_project import TEXTS


@pytest.fixture
def released(
    answering: tuple[Artifacts, Params], run_id: str, state: Path
) -> tuple[Artifacts, Params, ReleaseVersion]:
    """A champion, and the answers of another system to the same three questions."""
    made, own = answering
    artifacts = Artifacts(made.root, state_folder=state)
    tree = own.model_dump(mode="json")
    params = parse_params(
        {**tree, "release": {**tree["release"], "name": f"reviewed-{run_id[:8]}"}}
    )
    artifacts.params.write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
    version = registry.register(artifacts, params, run_id=run_id, tags={"run_key": "first"})
    switch.make_champion(artifacts, params, version, expected=None, row={"version": version})
    champion = registry.get_release(params, version)
    questions = [
        Question(f"q{i}", f"what of {text}", (text,), f"d{i}", True, "test", "en")
        for i, text in enumerate(TEXTS)
    ]
    write_table(questions, QUESTIONS, artifacts.questions)
    answers = [Answer(text, -0.5, abstained=False) for text in ("noon", "dawn", "dogs, mostly")]
    rows = prediction_rows("tuned", questions, answers, retrieved=None)
    rows += prediction_rows("zero_shot", questions, answers, retrieved=None)
    write_table(rows, PREDICTIONS, artifacts.predictions)
    return artifacts, params, champion


@pytest.mark.integration
def test_the_champion_is_asked_again(
    released: tuple[Artifacts, Params, ReleaseVersion], run_id: str, tmp_path: Path
) -> None:
    artifacts, params, champion = released
    drawn = review_commands.sample(artifacts, params, n=None, seed=1, output=tmp_path)
    key = read_review(artifacts.reviews, drawn["review"]).key
    assert (key.opponent.name, key.opponent.release) == ("champion", champion.version)
    again = compare.champion_predictions(artifacts, params, champion)
    assert key.opponent.answers == answers_digest(again), "so the gate can know them"

    # The run was decided when there was no champion; it is the champion itself now.
    lock_file = artifacts.root / "dvc.lock"
    lock_file.write_text("stages: {}\n")
    row = {"outcome": "PROMOTE", "key": "first", "run_id": run_id, "version": champion.version}
    row |= {"champion": champion.version, "champion_before": None, "decision": {}}
    row |= {"tags": {"dvc_lock": file_sha256(lock_file)}}
    ledger.append(artifacts.ledger, row)
    with pytest.raises(DataError, match="all 3 answers are the same as those of zero_shot"):
        review_commands.sample(artifacts, params, n=None, seed=1, output=tmp_path)
    ledger.append(artifacts.ledger, {**row, "champion_before": champion.version})
    drawn = review_commands.sample(artifacts, params, n=None, seed=1, output=tmp_path)
    key = read_review(artifacts.reviews, drawn["review"]).key
    assert (key.opponent.release, key.run_id) == (champion.version, run_id)

    handed_in = tmp_path / "verdicts.json"
    verdicts = [{"row": row.row, "verdict": "tie"} for row in key.rows]
    record = {"review": key.review, "sheet": key.sheet_sha256, "verdicts": verdicts}
    handed_in.write_text(json.dumps(record), encoding="utf-8")
    taken = review_commands.import_verdicts(
        artifacts, params, handed_in, rater="Ann", replace=False
    )
    assert taken["mlflow"] == {"run_id": run_id, "traces": 0}
    from mlflow import MlflowClient

    assert MlflowClient().get_run(run_id).data.metrics["human/win_rate"] == 50.0

    ledger.append(artifacts.ledger, {**row, "champion_before": "99"})
    with pytest.raises(ReleaseError, match="99"):
        review_commands.sample(artifacts, params, n=None, seed=1, output=tmp_path)
