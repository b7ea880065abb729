"""What a search may change and within which bounds, checked against the schema of the parameters.

`search_space(params)` refuses in milliseconds what could only fail hours later: a key that does not
exist, a value that its field does not take, a key that no searched stage reads, and one that would
change the measure itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from rag.errors import ParamsError
from rag.params import Params, SearchedParams, parse_params
from rag.problem_lines import describe_errors
from rag.records import sorted_json

Scalar = str | int | float | bool | None
Values = Mapping[str, Any]

#: The last stage of a trial, by what is searched for.
LAST_STAGE = {"reader": "train_reader", "retriever": "train_retriever"}
#: The dev metric that is made as high as possible: the one that its stage keeps the best state by.
METRIC = {"reader": "dev_f1", "retriever": "dev_recall@5"}
#: What stages up to the last one read. Chunks decide which dev questions a retriever can be judged
#: on, so a search for a retriever keeps them as they are.
_SEARCHED = {
    "retriever": ("retriever",),
    "reader": (
        *("chunk", "retriever", "retrieve", "reader"),
        *("index.hnsw", "index.oversampling", "index.quantization", "index.rescore"),
        "index.search",
    ),
}
_DIGITS = 4


@dataclass(frozen=True)
class Dimension:
    """One searched key."""

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def labels(self) -> list[Scalar]:
        """The choices as a sampler takes them: lists and mappings as their JSON."""
        return [_label(choice) for choice in self.choices]

    def value(self, sampled: Any) -> Any:
        """What a trial is given for a sampled number or label: four digits of it say enough."""
        if self.kind == "choice":
            return self.choices[self.labels().index(sampled)]
        if self.kind == "int":
            return int(sampled)
        digits = _DIGITS - 1 - math.floor(math.log10(abs(sampled))) if sampled else 0
        return min(max(round(float(sampled), digits), self.low), self.high)

    def sampled(self, value: Any) -> Scalar:
        """The number or label of a value; ParamsError where the dimension does not hold it."""
        if self.kind == "choice":
            if _label(value) in self.labels():
                return _label(value)
        elif isinstance(value, (int, float)) and self.low <= value <= self.high:
            steps = (value - self.low) / self.step if self.step else 0.0
            if math.isclose(steps, round(steps), abs_tol=1e-9) and self.value(value) == value:
                return value
        raise ParamsError(f"{self.key}: {value!r} lies outside of what is searched")


def search_space(params: Params) -> tuple[Dimension, ...]:
    """The dimensions of `tune.space`, by key; raises ParamsError with every problem."""
    tree = _tree(params)
    problems, dimensions = [], []
    for key, searched in sorted(params.tune.space.items()):
        found = _refusals(key, params.tune.objective) or _problems(tree, key, searched)
        problems += [f"tune.space.{key}: {problem}" for problem in found]
        if not found:
            dimensions.append(_dimension(tree, key, searched))
    if not params.tune.space:
        problems.append("tune.space: nothing to search; name a key and its values")
    if params.tune.objective == "retriever":
        problems += _untrained(params)
    if problems:
        raise ParamsError(problems)
    return tuple(dimensions)


def with_values(params: Params, values: Values) -> Params:
    """The params of a trial; ParamsError where its values contradict each other."""
    tree = _tree(params)
    for key, value in values.items():
        _set(tree, key, value)
    return parse_params(tree, source="trial")


def current_values(params: Params, dimensions: Sequence[Dimension]) -> dict[str, Scalar] | None:
    """What params.yaml has now, as a sampler takes it; None where that is outside of the space."""
    tree = _tree(params)
    try:
        return {item.key: item.sampled(_get(tree, item.key)) for item in dimensions}
    except ParamsError:
        return None


def _label(choice: Any) -> Scalar:
    return choice if isinstance(choice, Scalar) else sorted_json(choice)


def _tree(params: Params) -> dict[str, Any]:
    return params.model_dump(mode="json", exclude={"tune"})


def _get(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node: dict[str, Any] = tree
    for name in parents:
        node = node.setdefault(name, {})
    node[leaf] = copy.deepcopy(value)


def _refusals(key: str, objective: str) -> list[str]:
    if key.endswith(".dev_questions"):
        return ["would change the questions that trials are compared on"]
    sections = _SEARCHED[objective]
    if not any(key == section or key.startswith(f"{section}.") for section in sections):
        named = ", ".join(sections)
        return [f"changes nothing that is compared; objective '{objective}' searches {named}"]
    return []


def _problems(tree: Mapping[str, Any], key: str, searched: SearchedParams) -> list[str]:
    """What the field itself has against these values; contradictions are left to each trial."""
    names = key.split(".")
    for depth in range(1, len(names)):
        parent = ".".join(names[:depth])
        if _get(tree, parent) is None and names[0] in tree and _is_known(tree, parent):
            return [f"{parent} is null in params.yaml; give it a section there"]
    values = searched.choices
    if values is None:
        values = (searched.low, searched.high)
        if any(isinstance(value, bool) for value in values):
            return ["low and high are numbers"]
    found: dict[str, None] = {}
    for value in values:
        found |= dict.fromkeys(_field_problems(tree, key, value))
    return list(found)


def _is_known(tree: Mapping[str, Any], key: str) -> bool:
    node: Any = tree
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _field_problems(tree: Mapping[str, Any], key: str, value: Any) -> list[str]:
    changed = copy.deepcopy(dict(tree))
    _set(changed, key, value)
    try:
        Params.model_validate(changed)
    except ValidationError as error:
        own = [item for item in error.errors() if _concerns(item, key)]
        prefix = f"{key}: "
        return [line.removeprefix(prefix) for line in describe_errors(own)]
    return []


def _concerns(error: Any, key: str) -> bool:
    place = ".".join(map(str, error["loc"]))
    inside = place == key or place.startswith(f"{key}.")
    return inside or (error["type"] == "extra_forbidden" and key.startswith(f"{place}."))


def _dimension(tree: Mapping[str, Any], key: str, searched: SearchedParams) -> Dimension:
    if searched.choices is not None:
        return Dimension(key, "choice", choices=searched.choices)
    assert searched.low is not None
    assert searched.high is not None
    # A field that takes a number between two whole ones is no field of whole numbers.
    between = searched.low + (searched.high - searched.low) * 0.4999
    whole = bool(_field_problems(tree, key, between))
    return Dimension(
        key, "int" if whole else "float", searched.low, searched.high, searched.log, searched.step
    )


def _untrained(params: Params) -> list[str]:
    searched = params.tune.space.get("retriever.mode")
    modes = (params.retriever.mode,) if searched is None else searched.choices or ()
    if "none" not in modes:
        return []
    return [
        "tune.objective: 'retriever' compares tuned retrievers, and retriever.mode 'none' tunes "
        "nothing; set it to query or full"
    ]
