"""A training that was killed goes on: with the same rows, and the same weights bit for bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.line import Killed, Line, run, settings
from tests.toy import REPOSITORY


@pytest.mark.parametrize("fatal_call", [4, 7, 9])
def test_a_run_that_goes_on_ends_as_if_never_stopped(tmp_path: Path, fatal_call: int) -> None:
    params = settings(epochs=2, evaluations=4, learning_rate=0.2)
    whole = Line(batch_tokens=64)
    expected = run(whole, params)
    with pytest.raises(Killed):
        run(Line(fatal_call=fatal_call, batch_tokens=64), params, tmp_path)
    resumed = Line(batch_tokens=64)
    summary, rows = run(resumed, params, tmp_path)
    assert 0 < summary.resumed_from < fatal_call
    assert resumed.calls == summary.steps - summary.resumed_from
    assert rows == expected[1]
    assert resumed.weight.tolist() == whole.weight.tolist()
    assert summary.best_metrics == expected[0].best_metrics


def test_the_best_state_outlives_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(Line(scores=[9.0, 1.0], fatal_call=3), settings(), tmp_path)
    first = load_file(tmp_path / "2.checkpoint.safetensors")["best.weight"].tolist()
    resumed = Line(scores=[2.0])
    summary, _ = run(resumed, settings(), tmp_path)
    assert (summary.resumed_from, summary.best_step) == (2, 1)
    assert resumed.weight.tolist() == first


def test_a_checkpoint_is_two_files_without_pickle(tmp_path: Path) -> None:
    run(Line(), settings(), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["3.checkpoint.safetensors", "checkpoint.json"]


def test_tensors_without_their_facts_are_no_checkpoint(tmp_path: Path) -> None:
    """Killed between the two files, the run goes on from the checkpoint before, or anew."""
    run(Line(), settings(), tmp_path)
    (tmp_path / "checkpoint.json").unlink()
    assert run(Line(), settings(), tmp_path)[0].resumed_from == 0


def test_the_untrained_state_counts_where_asked(tmp_path: Path) -> None:
    """Step 0 is what is left where no later state is better, also after a stop."""
    params = settings(evaluations=2)
    start = {"dev_score": 30.0}
    line = Line(scores=[20.0, 30.0])
    summary, rows = run(line, params, start=start)
    assert rows[0] == (0, start)
    assert (summary.best_step, line.weight.tolist()) == (0, [0.0, 0.0])

    with pytest.raises(Killed):
        run(Line(scores=[20.0], fatal_call=3), params, tmp_path, start=start)
    resumed = Line(scores=[10.0])
    summary, again = run(resumed, params, tmp_path, start=start)
    assert (summary.resumed_from, summary.best_step) == (2, 0)
    assert run(Line(scores=[20.0, 31.0]), params, start=start)[0].best_step == 3
    assert resumed.weight.tolist() == [0.0, 0.0]
    assert [step for step, row in again if "dev_score" in row] == [0, 2, 3]


def test_training_stops_after_as_many_evaluations_without_a_gain_as_patience(
    tmp_path: Path,
) -> None:
    params = settings(epochs=6, evaluations=6, patience=2)
    scores = [10.0, 30.0, 20.0, 30.0]
    line = Line(scores=scores)
    summary, _ = run(line, params)
    assert (summary.steps, summary.last_step, summary.best_step, line.calls) == (6, 4, 2, 4)

    # Stopped and then run again, from a checkpoint at which patience was over or nearly so.
    run(Line(scores=scores), params, tmp_path)
    again = Line()
    assert (run(again, params, tmp_path)[0].last_step, again.calls) == (4, 0)
    with pytest.raises(Killed):
        run(Line(scores=scores, fatal_call=4), params, tmp_path / "nearly")
    again = Line(scores=scores[3:])
    assert (run(again, params, tmp_path / "nearly")[0].last_step, again.calls) == (4, 1)
    assert again.weight.tolist() == line.weight.tolist()


@pytest.mark.parametrize("fatal_call", range(2, 20, 3))
def test_checkpoints_by_the_clock_change_nothing_and_are_gone_on_from(
    tmp_path: Path, fatal_call: int
) -> None:
    """One after every step: two batches each, so the call before a kill may be half a step."""
    params = settings(epochs=4, evaluations=2, learning_rate=0.2, batches_per_step=2)
    whole = Line(batch_tokens=64)
    expected, expected_rows = run(whole, params)
    often = params.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        run(Line(fatal_call=fatal_call, batch_tokens=64), often, tmp_path)
    resumed = Line(batch_tokens=64)
    summary, rows = run(resumed, often, tmp_path)
    assert summary.resumed_from == (fatal_call - 1) // 2
    assert rows == expected_rows
    assert resumed.weight.tolist() == whole.weight.tolist()
    assert summary.best_metrics == expected.best_metrics


@pytest.mark.integration
def test_a_run_killed_anywhere_and_often_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    """SIGKILL after a random time, again and again, until it comes to its end."""
    whole = Line(batch_tokens=64)
    expected, rows = run(whole, settings(**KILLED))
    generator, kills = random.Random(8), 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED_RUN, str(tmp_path)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(generator.randint(3, 9)):
            line = process.stdout.readline()  # one a step
        if not line:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.wait() == 0
    process.stdout.close()
    found = json.loads((tmp_path / "result.json").read_text())
    assert kills >= 3
    assert found["weight"] == whole.weight.tolist()
    assert found["rows"] == [[step, row] for step, row in rows]
    assert found["best_step"] == expected.best_step


KILLED = {"epochs": 8, "evaluations": 3, "batches_per_step": 2, "checkpoint_minutes": 1e-9}
KILLED_RUN = """
import json, sys
from pathlib import Path
from tests.finetune.test_loop_resume import KILLED
from tests.line import Line, run, settings
folder = Path(sys.argv[1])
line = Line(batch_tokens=64)
summary, rows = run(line, settings(**KILLED), folder, tick=lambda *_: print("step", flush=True))
result = {"weight": line.weight.tolist(), "rows": rows, "best_step": summary.best_step}
(folder / "result.json").write_text(json.dumps(result))
"""
