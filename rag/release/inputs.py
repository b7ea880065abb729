"""The data of a run as MLflow's dataset inputs: documents, and questions of each split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.records import read_table

if TYPE_CHECKING:
    from mlflow.entities import Dataset, DatasetInput

_DIGEST_LENGTH = 36


def dataset_inputs(artifacts: Artifacts, data_hash: str) -> list[DatasetInput]:
    """Each table with its number of rows and columns, under the first digits of `data_hash`."""
    from mlflow.entities import DatasetInput, InputTag

    questions = read_table(artifacts.questions)
    tables = {("documents", "corpus"): (artifacts.documents, read_table(artifacts.documents))}
    for split, context in (("train", "training"), ("dev", "validation"), ("test", "testing")):
        chosen = [value == split for value in questions["split"].to_pylist()]
        tables[f"questions-{split}", context] = (artifacts.questions, questions.filter(chosen))
    return [
        DatasetInput(
            _dataset(name, table, path.relative_to(artifacts.root), data_hash),
            [InputTag("mlflow.data.context", context)],
        )
        for (name, context), (path, table) in tables.items()
    ]


def _dataset(name: str, table: Any, path: Path, data_hash: str) -> Dataset:
    from mlflow.entities import Dataset

    columns = [
        {"name": field.name, "type": "string", "required": not field.nullable}
        for field in table.schema
    ]
    return Dataset(
        name=name,
        digest=data_hash[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": path.as_posix()}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": table.num_rows}),
    )
