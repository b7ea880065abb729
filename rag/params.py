"""The parameters of a run: frozen, validated whole, every problem reported at once.

`load_params(path, overrides)` reads params.yaml and applies `section.key=value` overrides. A
section belongs to the stage of its name, except that `retriever` is read by train_retriever and
embed, and `reader` by train_reader; `rag/stages.py` says which stage depends on which keys.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from rag.data_params import DataParams
from rag.errors import ParamsError
from rag.gate_params import (
    BudgetParams,
    Confidence,
    CostParams,
    GateMode,
    GateParams,
    HumanParams,
    MetricName,
    SliceParams,
)
from rag.problem_lines import describe_errors
from rag.reader_params import (
    EndToEndParams,
    LoraParams,
    ReaderFusion,
    ReaderKind,
    ReaderParams,
    TrainingParams,
)
from rag.retrieval_params import (
    EmbedParams,
    EncoderLoraParams,
    HnswParams,
    IndexParams,
    LoopParams,
    ModelReference,
    Positive,
    Precision,
    RerankParams,
    RetrieveParams,
    RetrieverParams,
    RetrieverTrainingParams,
    Section,
    Share,
)
from rag.schedule_params import ScheduleParams, UpParams
from rag.tune_params import SearchedParams, TuneParams
from rag.watch_params import NotifyParams, WatchParams
from rag.yaml_input import merge_overrides, read_yaml

__all__ = [
    "BaselineName",
    "BudgetParams",
    "ChunkParams",
    "Confidence",
    "CostParams",
    "DataParams",
    "EmbedParams",
    "EncoderLoraParams",
    "EndToEndParams",
    "EvaluateParams",
    "GateMode",
    "GateParams",
    "HnswParams",
    "HumanParams",
    "IndexParams",
    "LoopParams",
    "LoraParams",
    "MetricName",
    "ModelReference",
    "NotifyParams",
    "Params",
    "Positive",
    "Precision",
    "PrepareParams",
    "ReaderFusion",
    "ReaderKind",
    "ReaderParams",
    "ReleaseParams",
    "RerankParams",
    "RetrieveParams",
    "RetrieverParams",
    "RetrieverTrainingParams",
    "ScheduleParams",
    "SearchedParams",
    "Section",
    "Share",
    "SliceParams",
    "TrackingParams",
    "TrainingParams",
    "TuneParams",
    "UpParams",
    "WatchParams",
    "load_params",
    "parse_params",
]

BaselineName = Literal["zero_shot", "one_shot", "closed_book"]


class PrepareParams(Section):
    strict: bool = True
    test_share: Share = 0.2
    dev_share: Share = 0.1
    max_train_questions: Positive | None = None
    max_test_questions: Positive | None = None
    near_duplicate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9

    @model_validator(mode="after")
    def _leaves_training_documents(self) -> PrepareParams:
        if self.test_share + self.dev_share >= 1.0:
            raise ValueError(
                "test_share + dev_share must be below 1, "
                f"got {self.test_share} + {self.dev_share}: nothing would be left to train on"
            )
        return self


class ChunkParams(Section):
    max_chunk_tokens: Annotated[int, Field(ge=16, le=8192)] = 256
    overlap_sentences: Annotated[int, Field(ge=0, le=8)] = 1


class EvaluateParams(Section):
    baselines: Annotated[tuple[BaselineName, ...], Field(strict=False)] = (
        "zero_shot",
        "closed_book",
    )
    oracle: bool = False
    attribution: bool = True
    min_slice_questions: Positive = 30
    max_slice_values: Annotated[int, Field(ge=2)] = 20
    resamples: Annotated[int, Field(ge=100)] = 10000
    confidence: Confidence = 0.95


class ReleaseParams(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "ragloop"
    bundle_limit_mb: Positive = 512
    keep: Positive = 3
    keep_challengers: Annotated[int, Field(ge=0)] = 2


class TrackingParams(Section):
    uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "ragloop"
    traces: Annotated[int, Field(ge=0)] = 100
    openlineage: Annotated[str, Field(pattern=r"^(file|https?)://")] | None = None


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 13
    prepare: PrepareParams = PrepareParams()
    chunk: ChunkParams = ChunkParams()
    retriever: RetrieverParams = RetrieverParams()
    embed: EmbedParams = EmbedParams()
    index: IndexParams = IndexParams()
    retrieve: RetrieveParams = RetrieveParams()
    reader: ReaderParams = ReaderParams()
    evaluate: EvaluateParams = EvaluateParams()
    gate: GateParams = GateParams(
        floors={"f1": 30.0, "recall@5": 50.0}, guards={"exact_match": 2.0, "recall@5": 2.0}
    )
    data: DataParams = DataParams()
    release: ReleaseParams = ReleaseParams()
    tracking: TrackingParams = TrackingParams()
    tune: TuneParams = TuneParams()
    schedule: ScheduleParams = ScheduleParams()
    up: UpParams = UpParams()
    watch: WatchParams = WatchParams()
    notify: NotifyParams = NotifyParams()

    @model_validator(mode="after")
    def _sections_agree(self) -> Params:
        problems = []
        if self.reader.passages > self.retrieve.top_k:
            problems.append(
                f"reader.passages ({self.reader.passages}) must be <= "
                f"retrieve.top_k ({self.retrieve.top_k})"
            )
        if self.chunk.max_chunk_tokens > self.retriever.max_tokens:
            problems.append(
                f"chunk.max_chunk_tokens ({self.chunk.max_chunk_tokens}) must be <= "
                f"retriever.max_tokens ({self.retriever.max_tokens}): the encoder would cut chunks"
            )
        if self.reader.kind == "extractive" and "one_shot" in self.evaluate.baselines:
            problems.append(
                "evaluate.baselines: one_shot shows an example in the prompt, and reader.kind "
                "'extractive' has no prompt"
            )
        if self.reader.end_to_end is not None:
            problems += self._end_to_end_problems()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _end_to_end_problems(self) -> list[str]:
        """The gradient goes through the score that passages were ranked by, so it must be one."""
        problems = []
        if self.retrieve.fusion != "weighted":
            problems.append(
                f"reader.end_to_end needs retrieve.fusion 'weighted', got "
                f"'{self.retrieve.fusion}': a rank has no gradient"
            )
        if self.retrieve.rerank.model is not None:
            problems.append(
                "reader.end_to_end does not go with retrieve.rerank: passages would be ranked by "
                "a model that does not see the trained encoder"
            )
        if self.retrieve.top_k <= self.reader.passages:
            problems.append(
                f"reader.end_to_end needs retrieve.top_k ({self.retrieve.top_k}) above "
                f"reader.passages ({self.reader.passages}): the trained encoder chooses among more"
            )
        return problems

    def models(self) -> list[tuple[str, str | None]]:
        """Name and revision of every model that a run loads."""
        rerank = self.retrieve.rerank
        found = [(self.retriever.model, self.retriever.revision)]
        found.append((self.reader.model, self.reader.revision))
        if self.reader.decoder is not None:
            found.append((self.reader.decoder, self.reader.decoder_revision))
        if rerank.model is not None:
            found.append((rerank.model, rerank.revision))
        return found

    def flat(self) -> dict[str, Any]:
        """`{"reader.lora.rank": 16, ...}`: one entry for each leaf, tuples as lists."""
        return _flatten(self.model_dump(mode="json"))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Reads a YAML file and applies `section.key=value` overrides (values are YAML)."""
    return parse_params(merge_overrides(read_yaml(path), overrides), source=path.name)


def parse_params(tree: Mapping[str, Any], *, source: str = "params") -> Params:
    """Validates a nested mapping; raises ParamsError with every problem, each with its path."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = describe_errors(_all_errors(tree, error))
        raise ParamsError([f"{source}: {problem}" for problem in problems]) from None


def _all_errors(tree: Mapping[str, Any], error: ValidationError) -> list[Any]:
    """Also the contradictions between fields, which pydantic skips while any field is invalid.

    What is wrong is replaced by its default, and the rest is checked again.
    """
    found = list(error.errors())
    repaired = copy.deepcopy(dict(tree))
    for item in found:
        _repair(repaired, item["loc"])
    if repaired != tree:
        try:
            Params.model_validate(repaired)
        except ValidationError as rest:
            found += _all_errors(repaired, rest)
    return found


def _repair(tree: dict[str, Any], place: tuple[Any, ...]) -> None:
    """Takes out what is invalid at `place`: of a contradictory section, the one key that helps."""
    node: Any = tree
    *parents, leaf = place or (None,)
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return
    section = node.pop(leaf, None)
    for key in section if isinstance(section, dict) else ():
        node[leaf] = {other: value for other, value in section.items() if other != key}
        try:
            Params.model_validate(tree)
        except ValidationError as rest:
            if place in (item["loc"] for item in rest.errors()):
                del node[leaf]
                continue
        return
