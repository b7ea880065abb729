"""The parameters of the search for better parameters: what is searched, and for how long.

`rag/params.py` joins this section with the others; import it from there. Whether a searched key
exists and may take these values, `rag/search_space.py` says: it knows all sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rag.retrieval_params import Positive, Section

Number = int | float


class SearchedParams(Section):
    """The values that one key may take: a range `low` to `high`, both included, or `choices`."""

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None
    choices: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_range_or_choices(self) -> SearchedParams:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices stand alone: low, high, log and step are of a range")
            texts = [repr(choice) for choice in self.choices]
            if len(set(texts)) < len(texts):
                raise ValueError(f"choices must differ, got {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what params.yaml says: of a range no choices, of choices no range."""
        written = self.model_fields_set
        return {name: value for name, value in handler(self).items() if name in written}


class TuneParams(Section):
    objective: Literal["reader", "retriever"] = "reader"
    space: Mapping[str, SearchedParams] = {
        "reader.lora.rank": SearchedParams(choices=(8, 16)),
        "reader.training.learning_rate": SearchedParams(low=2e-4, high=2e-3, log=True),
    }
    trials: Positive = 20
    startup_trials: Annotated[int, Field(ge=0)] = 10
    pruner: Literal["median", "none"] = "median"
    pruner_trials: Positive = 5
    workers: Positive = 1
    storage: Annotated[str, Field(pattern=r"^[a-z0-9+]+://")] | None = None
