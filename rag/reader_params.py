"""The parameters of reading: the model, how passages are fused, and how both are trained.

`rag/params.py` joins this section with the others; import it from there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rag.retrieval_params import LoopParams, ModelReference, Positive, Section, Share

ReaderKind = Literal["causal", "seq2seq", "extractive"]
ReaderFusion = Literal["concat", "fid", "rag_sequence", "rag_token", "joint"]

#: How each kind can read several passages; `_REASONS` says why it cannot read them otherwise.
FUSIONS: dict[ReaderKind, tuple[ReaderFusion, ...]] = {
    "causal": ("concat", "rag_sequence", "rag_token"),
    "seq2seq": ("concat", "fid", "rag_sequence", "rag_token"),
    "extractive": ("joint", "rag_sequence"),
}
_REASONS: dict[tuple[ReaderKind, ReaderFusion], str] = {
    ("causal", "fid"): "fid joins what an encoder made of passages, and a causal model has none",
    ("causal", "joint"): "joint normalises spans over passages, and a causal model writes text",
    ("seq2seq", "joint"): "joint normalises spans over passages, and a seq2seq model writes text",
    ("extractive", "concat"): "a span lies in one passage, so passages are read one by one",
    ("extractive", "fid"): "fid needs a decoder, and an extractive model has none",
    ("extractive", "rag_token"): "rag_token mixes passages at each token, and a span is one choice",
}
#: Fusions that weigh passages by p(z|x), and so can teach the retriever.
MARGINAL: tuple[ReaderFusion, ...] = ("rag_sequence", "rag_token")


class LoraParams(Section):
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Share = 0.0
    frozen_layers: Annotated[int, Field(ge=0)] = 0


class TrainingParams(LoopParams):
    epochs: Positive = 2
    batch_tokens: Annotated[int, Field(ge=64)] = 768
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    warmup_share: Share = 0.06
    evaluations: Annotated[int, Field(ge=1)] = 2
    dev_questions: Positive = 150
    passages: Positive | None = None
    withheld_share: Share = 0.0
    refusal_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    question_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    cache_mb: Annotated[int, Field(ge=0)] = 1024


class EndToEndParams(Section):
    """The query encoder trained together with the reader, through p(z|x)."""

    objective: Literal["marginal", "distillation"] = "marginal"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-5


class ReaderParams(ModelReference):
    kind: ReaderKind = "causal"
    model: Annotated[str, Field(min_length=1)] = "bundled:smollm2-135m"
    decoder: Annotated[str, Field(min_length=1)] | None = None
    decoder_revision: str | None = None
    fusion: ReaderFusion = "concat"
    passages: Annotated[int, Field(ge=1, le=128)] = 1
    prior_temperature: Annotated[float, Field(gt=0.0)] | Literal["auto"] = "auto"
    query_likelihood: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    decoding: Literal["thorough", "fast"] = "thorough"
    beams: Annotated[int, Field(ge=1, le=16)] = 1
    verbatim: bool = True
    examples: Annotated[int, Field(ge=0, le=16)] = 0
    max_prompt_tokens: Annotated[int, Field(ge=64)] = 384
    max_answer_tokens: Annotated[int, Field(ge=1, le=512)] = 24
    stride_tokens: Annotated[int, Field(ge=0)] = 64
    batch_tokens: Annotated[int, Field(ge=64)] = 4096
    abstain: float | Literal["auto"] | None = "auto"
    lora: LoraParams | None = LoraParams()
    export: Literal["adapter", "merged"] = "adapter"
    quantize: Literal["none", "int8"] = "none"
    end_to_end: EndToEndParams | None = None
    training: TrainingParams = TrainingParams()

    @property
    def is_marginal(self) -> bool:
        """Whether passages are read one by one and weighed by p(z|x)."""
        return self.fusion in MARGINAL

    @property
    def knows_query_likelihood(self) -> bool:
        """Whether the reader can weigh passages by how likely they make the question."""
        return self.kind == "causal" and self.is_marginal and self.end_to_end is None

    @model_validator(mode="after")
    def _model_fits_kind(self) -> ReaderParams:
        causal, encoder = "bundled:smollm2-135m", "bundled:minilm"
        if self.kind == "extractive" and self.model == causal:
            raise ValueError(f"model {causal} is a causal model; kind 'extractive' takes {encoder}")
        if self.kind == "causal" and self.model == encoder:
            raise ValueError(f"model {encoder} is an encoder; kind 'causal' takes {causal}")
        if self.kind == "seq2seq" and self.model == causal:
            raise ValueError(
                f"model {causal} is a causal model; kind 'seq2seq' takes an encoder-decoder "
                "(a hub id or a folder), or an encoder as model and a causal model as decoder"
            )
        if self.kind == "seq2seq" and self.model == encoder and self.decoder is None:
            raise ValueError(f"model {encoder} is an encoder alone; kind 'seq2seq' needs a decoder")
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> ReaderParams:
        problems = []
        if self.fusion not in FUSIONS[self.kind]:
            problems.append(
                f"fusion '{self.fusion}' is not for kind '{self.kind}': "
                f"{_REASONS[self.kind, self.fusion]}; it takes {', '.join(FUSIONS[self.kind])}"
            )
        problems += self._unused()
        if self.end_to_end is not None and not self.is_marginal:
            problems.append(
                f"end_to_end needs fusion rag_sequence or rag_token, got '{self.fusion}': only "
                "through p(z|x) does a gradient reach the query encoder"
            )
        if self.kind == "extractive" and self.stride_tokens >= self.max_prompt_tokens // 2:
            problems.append(
                f"stride_tokens ({self.stride_tokens}) must be below half of max_prompt_tokens "
                f"({self.max_prompt_tokens}): windows of a long passage would hardly move on"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unused(self) -> list[str]:
        """What is set and would change nothing."""
        problems = []
        if self.decoder is not None and self.kind != "seq2seq":
            problems.append(f"decoder is only used by kind 'seq2seq', not by '{self.kind}'")
        if self.decoding == "fast" and (self.fusion != "rag_sequence" or self.kind == "extractive"):
            problems.append(
                "decoding 'fast' is only used by fusion rag_sequence of a model that writes text, "
                f"not by '{self.fusion}' of kind '{self.kind}'"
            )
        if self.prior_temperature != "auto" and not self.is_marginal:
            problems.append(
                f"prior_temperature is only used by rag_sequence and rag_token, not by "
                f"'{self.fusion}', which weighs no passages"
            )
        if self.query_likelihood != "auto" and not self.knows_query_likelihood:
            problems.append(
                "query_likelihood is for rag_sequence and rag_token of a causal model, which reads "
                "the question after the passage, and not with end_to_end, which makes p(z|x) itself"
            )
        if self.training.refusal_weight and (
            self.fusion != "rag_sequence" or self.kind == "extractive"
        ):
            problems.append(
                "training.refusal_weight teaches single passages to decline: it needs fusion "
                f"rag_sequence of a model that writes text, not '{self.fusion}' of kind "
                f"'{self.kind}'"
            )
        learnt = self.training.passages
        if learnt is not None and (not self.is_marginal or self.end_to_end is not None):
            problems.append(
                "training.passages is for fusions that read passages one by one, and not with "
                "end_to_end, which chooses them itself"
            )
        elif learnt is not None and learnt > self.passages:
            problems.append(
                f"training.passages must be at most passages ({self.passages}), got {learnt}"
            )
        if self.training.question_weight:
            problems += self._question_not_learnt()
        if self.kind == "extractive" and self.beams > 1:
            problems.append("beams are only used by a model that writes text, not by 'extractive'")
        if self.kind == "extractive" and self.examples:
            problems.append("examples stand in a prompt, and kind 'extractive' has none")
        if self.export == "merged" and self.lora is None:
            problems.append("export 'merged' needs lora: without an adapter all weights are kept")
        return problems

    def _question_not_learnt(self) -> list[str]:
        if self.kind != "causal":
            return [
                "training.question_weight is for a causal model, which reads the question after "
                f"the passage, not for kind '{self.kind}'"
            ]
        one = self.passages == 1 or self.training.passages == 1
        if self.is_marginal and (not one or self.end_to_end is not None):
            return [
                f"training.question_weight teaches fusion '{self.fusion}' from one passage a "
                "question: set training.passages: 1, and no end_to_end"
            ]
        return []
