"""The metrics as `evaluate.load` sees them: by path, in a fresh process, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.evaluation.bleu import bleu_signature

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, socket, sys

def refuse(*arguments, **options):
    raise OSError("this process has no network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate

predictions = ["The Sea Eagle", "北京。", ""]
references = [["Sea Eagle", "an eagle"], ["北京", "东京"], [""]]
results = {}
for name in ("exact_match", "token_f1", "bleu", "rouge"):
    metric = evaluate.load(f"{sys.argv[1]}/{name}")
    results[name] = metric.compute(predictions=predictions, references=references)
    plain = evaluate.load(f"{sys.argv[1]}/{name}")
    plain.add(prediction="running ships", reference="runs ships")
    results[name + " of one text"] = plain.compute(**({"stem": True} if name == "rouge" else {}))
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path_factory.mktemp("huggingface")),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "rag/evaluation/metrics"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@pytest.mark.integration
def test_modules_load_offline_and_score(results: dict[str, Any]) -> None:
    assert results["exact_match"] == {"exact_match": 100.0, "scores": [1.0, 1.0, 1.0]}
    assert results["token_f1"] == {"f1": 100.0, "scores": [1.0, 1.0, 1.0]}
    assert results["rouge"]["rouge1"] == pytest.approx(100 * (0.8 + 1 + 1) / 3)
    assert results["rouge"]["scores"]["rougeL"] == pytest.approx([0.8, 1.0, 1.0])
    # 4 of 6 tokens match, 2 of 4 pairs, none of 2 triples (smoothed to half of one); no longer one.
    by_hand = 100 * (4 / 6 * 2 / 4 * 0.5 / 2) ** (1 / 3)
    assert results["bleu"]["bleu"] == pytest.approx(by_hand)
    assert results["bleu"]["signature"] == bleu_signature([["eagle"], ["北京"]])
    assert results["bleu"]["scores"][2] == 1.0


@pytest.mark.integration
def test_modules_take_one_text_as_reference(results: dict[str, Any]) -> None:
    assert results["exact_match of one text"]["exact_match"] == 0.0
    assert results["token_f1 of one text"]["f1"] == 50.0
    assert results["rouge of one text"]["rougeL"] == 100.0
    assert results["bleu of one text"]["bleu"] == pytest.approx(100 * (1 / 2 * 1 / 2) ** (1 / 2))
