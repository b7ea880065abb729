"""The parameters of retrieval, and what every section is made from.

`rag/params.py` joins these sections with the others; import them from there.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Precision = Literal["float32", "bfloat16"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelReference(Section):
    """A model's name: `bundled:NAME`, a local folder, or a hub id with the commit to use."""

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None


class LoopParams(Section):
    """What the training loop itself reads, whoever is trained."""

    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    batches_per_step: Positive = 1
    precision: Precision = "bfloat16"
    gradient_checkpointing: bool = False
    compile: bool = False
    processes: Positive = 1
    shard_weights: bool = False
    evaluations: Annotated[int, Field(ge=1)]
    patience: Positive | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0.0)] | None = 10.0
    max_minutes: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _processes_share_a_step(self) -> Self:
        if self.batches_per_step % self.processes:
            raise ValueError(
                f"batches_per_step ({self.batches_per_step}) must be a multiple of processes "
                f"({self.processes}): each takes as many batches of a step as the others"
            )
        if self.shard_weights and self.processes == 1:
            raise ValueError("shard_weights divides the weights between processes, got processes 1")
        return self


class EncoderLoraParams(Section):
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Share = 0.0


class RetrieverTrainingParams(LoopParams):
    epochs: Positive = 2
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-5
    warmup_share: Share = 0.1
    evaluations: Annotated[int, Field(ge=1)] = 6
    patience: Positive | None = 3
    batch_questions: Annotated[int, Field(ge=2)] = 64
    mini_batch: Positive | None = None
    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    hard_negatives: Annotated[int, Field(ge=0, le=16)] = 0
    negative_margin: Share = 0.05
    mining_rounds: Annotated[int, Field(ge=1, le=3)] = 1
    mining_candidates: Positive = 50
    lora: EncoderLoraParams | None = None
    dev_questions: Positive = 500

    @model_validator(mode="after")
    def _rounds_have_something_to_mine(self) -> RetrieverTrainingParams:
        if self.mining_rounds > 1 and not self.hard_negatives:
            raise ValueError(
                f"mining_rounds ({self.mining_rounds}) above 1 needs hard_negatives >= 1, got 0"
            )
        return self


class RetrieverParams(ModelReference):
    model: Annotated[str, Field(min_length=1)] = "bundled:minilm"
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 256
    query_prompt: str = ""
    passage_prompt: str = ""
    backend: Literal["torch", "openvino"] = "torch"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    mode: Literal["none", "query", "full"] = "none"
    training: RetrieverTrainingParams = RetrieverTrainingParams()

    @model_validator(mode="after")
    def _backend_has_precision(self) -> RetrieverParams:
        if self.precision == "int8" and self.backend == "torch":
            raise ValueError("precision 'int8' needs backend 'openvino', got 'torch'")
        return self


class EmbedParams(Section):
    batch_tokens: Annotated[int, Field(ge=256)] = 4096
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: Positive | None = None

    @model_validator(mode="after")
    def _local_has_no_cluster(self) -> EmbedParams:
        if self.engine == "local" and (self.address or self.workers):
            raise ValueError("address and workers are only used by engine 'ray', not by 'local'")
        return self


class HnswParams(Section):
    m: Annotated[int, Field(ge=2, le=128)] = 16
    ef_construct: Annotated[int, Field(ge=4, le=4096)] = 128
    ef: Annotated[int, Field(ge=1, le=65536)] = 128


class IndexParams(Section):
    kind: Literal["edge", "server"] = "edge"
    url: str | None = None
    upsert_batch: Positive = 512
    search: Literal["exact", "hnsw"] = "exact"
    hnsw: HnswParams = HnswParams()
    quantization: Literal["none", "scalar", "binary"] = "none"
    rescore: bool = True
    oversampling: Annotated[float, Field(ge=1.0, le=100.0)] = 3.0
    on_disk: bool = True

    def in_process(self) -> IndexParams:
        """The same search without a server: what a stage and a release open."""
        return self.model_copy(update={"kind": "edge", "url": None})

    @model_validator(mode="after")
    def _server_has_url(self) -> IndexParams:
        if self.kind == "server" and not self.url:
            raise ValueError("kind 'server' needs url, for example http://localhost:6333")
        if self.kind == "edge" and self.url:
            raise ValueError(f"url {self.url!r} is only used by kind 'server', not by 'edge'")
        return self


class RerankParams(Section):
    model: Annotated[str, Field(min_length=1)] | None = None
    revision: str | None = None
    passages: Positive = 20
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 384
    batch_tokens: Annotated[int, Field(ge=256)] = 8192


class RetrieveParams(Section):
    top_k: Positive = 8
    candidates: Positive = 50
    fusion: Literal["auto", "weighted", "rrf"] = "auto"
    rrf_k: Positive = 60
    rerank: RerankParams = RerankParams()
    dense_weights: Annotated[
        tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Field(min_length=1, strict=False)
    ] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    @model_validator(mode="after")
    def _enough_candidates(self) -> RetrieveParams:
        if self.candidates < self.top_k:
            raise ValueError(f"candidates ({self.candidates}) must be >= top_k ({self.top_k})")
        if self.rerank.model is not None and self.candidates < self.rerank.passages:
            raise ValueError(
                f"candidates ({self.candidates}) must be >= rerank.passages "
                f"({self.rerank.passages})"
            )
        return self
