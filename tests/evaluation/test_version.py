"""The version of the scoring rules: held to what the code gives, and changed by any rule."""

from __future__ import annotations

import pytest

from rag.errors import MetricError
from rag.evaluation import answer_scores, bleu, chrf, evidence, ranking
from rag.evaluation.version import (
    METRICS_VERSION,
    PROBES,
    RULES,
    metrics_version,
    one_version,
    probes_hash,
)

HOW_TO_BUMP = (
    "the scoring rules, or sacrebleu or rouge_score, give other scores than before. By mistake: "
    "undo it. On purpose: in rag/evaluation/version.py raise RULES by one, add a probe that shows "
    "the change, set PROBES_HASH to {found}, and say in the changelog what changed"
)


def test_the_version_is_that_of_the_rules() -> None:
    found = probes_hash(PROBES)
    assert f"{RULES}-{found}" == METRICS_VERSION, HOW_TO_BUMP.format(found=found)
    assert metrics_version() == METRICS_VERSION


def test_a_changed_rule_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [probes_hash(PROBES), probes_hash(PROBES[1:])]
    for module, name in (
        (answer_scores, "exact_match"),
        (answer_scores, "token_f1"),
        (chrf, "chrf"),
        (chrf, "corpus_chrf"),
        (bleu, "corpus_bleu"),
        (ranking, "recall_at"),
        (ranking, "precision_at"),
        (ranking, "reciprocal_rank"),
        (evidence, "evidence_exact_match"),
    ):
        before = getattr(module, name)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *given, before=before: 0.9 * before(*given))
            hashes.append(probes_hash(PROBES))
    assert len(set(hashes)) == len(hashes) == 11


def test_scores_of_one_version_go_together() -> None:
    assert one_version(["1-a", "1-a"]) == "1-a"
    assert one_version([None]) == "unknown"
    with pytest.raises(MetricError, match=r"metrics_version 1-a and 1-b; .*ragloop run --force"):
        one_version(["1-a", "1-b", "1-a"])
    with pytest.raises(MetricError, match="metrics_version 1-a and unknown"):
        one_version([None, "1-a"])
