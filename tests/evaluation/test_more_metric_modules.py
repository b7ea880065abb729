"""The rest of the metric modules, loaded by path in a fresh process without a network."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.evaluation.chrf import chrf_signature

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, socket, sys

def refuse(*arguments, **options):
    raise OSError("this process has no network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate

results = {}
for name, calls in json.load(sys.stdin).items():
    metric = evaluate.load(f"{sys.argv[1]}/{name}")
    assert isinstance(metric, evaluate.EvaluationModule)
    described = [metric.description, metric.citation, metric.inputs_description]
    results[name] = {"described": described, "values": []}
    for arguments in calls:
        try:
            results[name]["values"].append(metric.compute(**arguments))
        except Exception as error:
            results[name]["values"].append(f"{type(error).__name__}: {error}")
json.dump(results, sys.stdout)
"""

PASSAGES = [{"text": "Built in 2019.", "posterior": 0.8}, {"text": "The ship.", "posterior": 0.2}]
ANSWERS = [
    {"id": "q1", "prediction_text": "the Eagle", "no_answer_probability": 0.1},
    {"id": "q2", "prediction_text": "2019", "no_answer_probability": 0.7},
]
GOLD = [
    {"id": "q2", "answers": {"text": [], "answer_start": []}},
    {"id": "q1", "answers": {"text": ["Eagle"], "answer_start": [4]}},
]
RUN = {"predictions": [["b", "a"], []], "references": [["a"], ["a", "c"]]}
CALLS: dict[str, list[dict[str, Any]]] = {
    "chrf": [
        {"predictions": ["ab", "北京"], "references": [["abc", "x"], ["北京"]]},
        {"predictions": ["ab"], "references": ["abc"]},
    ],
    "label_scores": [
        {"predictions": ["Yes.", "unknown", "no"], "references": ["yes", "no", "no"]},
        {"predictions": ["yes"], "references": ["yes"], "labels": ["no"]},
    ],
    "retrieval_scores": [
        {**RUN, "cutoffs": [2]},
        {
            **RUN,
            "scores": [[1.0, 2.0], []],
            "gains": [[2.0], [0.0, 0.0]],
            "query_ids": ["first", "second"],
            "cutoffs": [1],
        },
        {**RUN, "query_ids": ["same", "same"]},
        {**RUN, "gains": [[2.0], [0.0]]},
    ],
    "evidence_exact_match": [
        {
            "predictions": [
                {"text": "2019.", "passages": PASSAGES},
                {"text": "The ship", "passages": PASSAGES},
                {"text": "", "passages": []},
            ],
            "references": [["2019"], ["ship"], []],
        }
    ],
    "selective_risk": [
        {
            "predictions": [4.0, 3.0, 2.0, 1.0],
            "references": [1.0, 0.0, 1.0, 0.0],
            "risks": [0.0, 0.4],
        },
        {"predictions": [math.nan, 3.0], "references": [1.0, 0.0]},
    ],
    "answer_length": [{"predictions": ["The Sea Eagle.", "北京", ""]}],
    "squad_v2": [
        {"predictions": ANSWERS, "references": GOLD},
        {"predictions": ANSWERS, "references": GOLD, "no_answer_threshold": 0.5},
        {"predictions": [ANSWERS[0], ANSWERS[0]], "references": GOLD},
    ],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path_factory.mktemp("huggingface")),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "rag/evaluation/metrics"],
        input=json.dumps(CALLS),
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


def test_every_module_says_what_it_measures(results: dict[str, Any]) -> None:
    for name, found in results.items():
        description, citation, inputs = found["described"]
        assert len(description) > 40, name
        assert "20" in citation, name
        assert "predictions:" in inputs, name


def test_chrf(results: dict[str, Any]) -> None:
    several, single = results["chrf"]["values"]
    assert several["scores"] == pytest.approx([7 / 11, 1.0])
    assert several["signature"] == chrf_signature()
    # Characters 4 of 4 and 4 of 5, pairs 2 of 2 and 2 of 3: recall (4/5 + 2/3) / 2.
    recall = (4 / 5 + 2 / 3) / 2
    assert several["chrf"] == pytest.approx(100 * 5 * recall / (4 + recall))
    assert single["chrf"] == pytest.approx(100 * 7 / 11)


def test_label_scores(results: dict[str, Any]) -> None:
    found, refused = results["label_scores"]["values"]
    assert found["accuracy"] == pytest.approx(100 * 2 / 3)
    assert found["macro_f1"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["scores"] == [1.0, 0.0, 1.0]
    assert (found["labels"], found["outside"]) == (["no", "yes"], [[1, "unknown"]])
    assert found["confusion"] == [[1, 0, 1], [0, 1, 0]]
    assert refused.startswith("MetricError: labels: the right label of example 0, 'yes', is not")


def test_retrieval_scores(results: dict[str, Any]) -> None:
    ranked, graded, repeated, ragged = results["retrieval_scores"]["values"]
    assert ranked["mrr"] == pytest.approx(25.0)
    assert ranked["recall@2"] == 50.0
    assert ranked["scores"]["recall@2"] == [1.0, 0.0]
    assert (ranked["missing"], ranked["without_relevant"]) == (["1"], [])
    assert graded["ndcg@1"] == 100.0  # sorted by score, the relevant document comes first
    assert (graded["query_ids"], graded["without_relevant"]) == (["first"], ["second"])
    assert repeated == "MetricError: retrieval: queries that occur twice: same"
    assert ragged.startswith("MetricError: retrieval: gains must be one number for each document")


def test_evidence_exact_match(results: dict[str, Any]) -> None:
    (found,) = results["evidence_exact_match"]["values"]
    assert found["scores"] == [1.0, 0.0, 1.0]
    assert found["evidence_em"] == pytest.approx(100 * 2 / 3)


def test_selective_risk(results: dict[str, Any]) -> None:
    found, refused = results["selective_risk"]["values"]
    assert found["aurc"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found["excess_aurc"] == pytest.approx(100 * (1 / 2) / 4)
    assert found["coverage_at_risk"] == pytest.approx([25.0, 75.0])
    assert found["curve"][0] == [25.0, 0.0]
    assert found["scores"] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert refused == "MetricError: confidence: expected values finite, found nan in row 0"


def test_answer_length(results: dict[str, Any]) -> None:
    (found,) = results["answer_length"]["values"]
    assert found["scores"] == {"tokens": [2, 2, 0], "characters": [14, 2, 0], "empty": [0, 0, 1]}
    assert (found["tokens"], found["empty_rate"]) == pytest.approx((4 / 3, 100 / 3))


def test_squad_v2(results: dict[str, Any]) -> None:
    raw, declining, repeated = results["squad_v2"]["values"]
    assert (raw["exact"], raw["HasAns_f1"], raw["NoAns_f1"]) == (50.0, 100.0, 0.0)
    assert (raw["best_f1"], raw["best_f1_thresh"]) == (100.0, 0.1)
    assert raw["scores"]["exact"] == {"q2": 0.0, "q1": 1.0}
    assert declining["f1"] == 100.0
    assert repeated == "MetricError: squad_v2: predictions that occur twice: q1"
