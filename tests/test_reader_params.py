"""rag/reader_params.py: what cannot work together is refused before anything runs, and why."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from rag.errors import ParamsError
from rag.params import ReaderFusion, ReaderKind, parse_params

#: Settings that fit each kind, but for its fusion.
KINDS: dict[str, dict[str, Any]] = {
    "causal": {},
    "seq2seq": {"kind": "seq2seq", "model": "owner/bart"},
    "extractive": {"kind": "extractive", "model": "bundled:minilm"},
}
#: By the letter of the method: a causal model has no encoder, a span is one choice of one passage.
SENSIBLE = {
    ("causal", "concat"),
    ("causal", "rag_sequence"),
    ("causal", "rag_token"),
    ("seq2seq", "concat"),
    ("seq2seq", "fid"),
    ("seq2seq", "rag_sequence"),
    ("seq2seq", "rag_token"),
    ("extractive", "joint"),
    ("extractive", "rag_sequence"),
}
REASONS = {
    ("causal", "fid"): "a causal model has none",
    ("causal", "joint"): "a causal model writes text",
    ("seq2seq", "joint"): "a seq2seq model writes text",
    ("extractive", "concat"): "a span lies in one passage",
    ("extractive", "fid"): "an extractive model has none",
    ("extractive", "rag_token"): "a span is one choice",
}
END_TO_END = {
    "reader": {"fusion": "rag_sequence", "passages": 2, "end_to_end": {}},
    "retrieve": {"fusion": "weighted"},
}


def problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        parse_params(tree, source="p")
    return list(caught.value.problems)


@pytest.mark.parametrize("fusion", get_args(ReaderFusion))
@pytest.mark.parametrize("kind", get_args(ReaderKind))
def test_a_fusion_fits_the_kind_or_is_refused_with_the_reason(kind: str, fusion: str) -> None:
    tree = {"reader": KINDS[kind] | {"fusion": fusion}}
    if (kind, fusion) in SENSIBLE:
        assert parse_params(tree).reader.fusion == fusion
        return
    [problem] = problems(tree)
    assert problem.startswith(f"p: reader: fusion '{fusion}' is not for kind '{kind}': ")
    assert REASONS[kind, fusion] in problem
    assert all(name in problem for one, name in SENSIBLE if one == kind)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decoder": "owner/gpt2"}, "decoder is only used by kind 'seq2seq', not by 'causal'"),
        ({"decoding": "fast"}, "decoding 'fast' is only used by fusion rag_sequence"),
        ({"decoding": "fast", "fusion": "rag_token"}, "not by 'rag_token' of kind 'causal'"),
        ({"prior_temperature": 0.5}, "prior_temperature is only used by rag_sequence and rag_tok"),
        (
            {"query_likelihood": 0.1},
            "query_likelihood is for rag_sequence and rag_token of",
        ),
        (
            KINDS["seq2seq"] | {"fusion": "rag_token", "query_likelihood": 0.0},
            "query_likelihood is for rag_sequence and rag_token of",
        ),
        (
            {"fusion": "rag_sequence", "end_to_end": {}, "query_likelihood": 0.1},
            "not with end_to_end, which makes p(z|x) itself",
        ),
        ({"export": "merged", "lora": None}, "export 'merged' needs lora"),
        (
            {"fusion": "rag_token", "training": {"refusal_weight": 0.5}},
            "training.refusal_weight teaches single passages to decline",
        ),
        (
            {"passages": 3, "training": {"passages": 2}},
            "training.passages is for fusions that read passages one by one",
        ),
        (
            {"fusion": "rag_token", "passages": 2, "training": {"passages": 3}},
            "training.passages must be at most passages (2), got 3",
        ),
        (
            KINDS["seq2seq"] | {"fusion": "concat", "training": {"question_weight": 0.3}},
            "training.question_weight is for a causal model",
        ),
        (
            {"fusion": "rag_token", "passages": 2, "training": {"question_weight": 0.3}},
            "set training.passages: 1",
        ),
        ({"end_to_end": {}}, "end_to_end needs fusion rag_sequence or rag_token, got 'concat'"),
        ({"model": "owner/t5", "kind": "seq2seq", "fusion": "joint"}, "a seq2seq model writes"),
        (KINDS["seq2seq"] | {"model": "bundled:minilm"}, "kind 'seq2seq' needs a decoder"),
        (KINDS["seq2seq"] | {"model": "bundled:smollm2-135m"}, "takes an encoder-decoder"),
        (
            KINDS["extractive"] | {"fusion": "joint", "beams": 2},
            "beams are only used by a model that writes text",
        ),
        (
            KINDS["extractive"] | {"fusion": "joint", "examples": 1},
            "examples stand in a prompt, and kind 'extractive' has none",
        ),
        (
            KINDS["extractive"] | {"fusion": "rag_sequence", "decoding": "fast"},
            "of a model that writes text, not by 'rag_sequence' of kind 'extractive'",
        ),
        (
            KINDS["extractive"] | {"fusion": "joint", "stride_tokens": 192},
            "stride_tokens (192) must be below half of max_prompt_tokens (384)",
        ),
    ],
)
def test_what_would_change_nothing_or_cannot_work_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    [problem] = problems({"reader": changes})
    assert reason in problem


def test_all_contradictions_of_a_reader_are_reported_together() -> None:
    changes = {"fusion": "fid", "decoder": "owner/gpt2", "end_to_end": {}}
    found = problems({"reader": changes})
    assert len(found) == 3
    assert all(problem.startswith("p: reader: ") for problem in found)


def test_end_to_end_training_needs_a_score_with_a_gradient() -> None:
    assert parse_params(END_TO_END).reader.end_to_end is not None
    for section, changes, reason in (
        ("retrieve", {"fusion": "rrf"}, "a rank has no gradient"),
        ("retrieve", {"fusion": "auto"}, "needs retrieve.fusion 'weighted', got 'auto'"),
        ("retrieve", {"rerank": {"model": "owner/x"}}, "does not see the trained encoder"),
        ("retrieve", {"top_k": 2}, "the trained encoder chooses among more"),
        ("reader", {"passages": 8}, "retrieve.top_k (8) above reader.passages (8)"),
    ):
        changed = {**END_TO_END, section: {**END_TO_END[section], **changes}}
        [problem] = problems(changed)
        assert reason in problem


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"processes": 2, "batches_per_step": 3}, "batches_per_step (3) must be a multiple of p"),
        ({"shard_weights": True}, "divides the weights between processes, got processes 1"),
    ],
)
@pytest.mark.parametrize("section", ["reader", "retriever"])
def test_processes_share_the_batches_of_a_step(
    section: str, changes: dict[str, Any], reason: str
) -> None:
    [problem] = problems({section: {"training": changes}})
    assert problem.startswith(f"p: {section}.training: ")
    assert reason in problem
