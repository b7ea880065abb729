"""A decision made again: everything that the gate looked at, kept by hash beside the record.

    arms.parquet    the predictions of every system that was compared, one after the other
    context.json    what was judged beside them: the test set, earlier decisions, time and memory

`replay` runs the gate over them with the params of the record. The same code gives the same record;
other code may not, and then the difference is one that the record would hide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rag.errors import ReleaseError
from rag.params import GateParams
from rag.records import read_table, sorted_json
from rag.release.attribution import OLD_INDEX, OLD_MODEL
from rag.release.cost import CostSample
from rag.release.decision import Check, Decision
from rag.release.gate import Context, decide
from rag.weights import file_sha256

ARMS, CONTEXT = "arms.parquet", "context.json"
_CHAMPION = "champion"


@dataclass(frozen=True)
class Inputs:
    """What `decide` is given, but for its params."""

    challenger: pa.Table
    champion: pa.Table | None
    baselines: Mapping[str, pa.Table]
    context: Context

    def decide(self, params: GateParams, *, seed: int) -> Decision:
        """The gate's decision about them."""
        return decide(
            self.challenger,
            self.champion,
            self.baselines,
            params,
            seed=seed,
            context=self.context,
        )


def write_inputs(folder: Path, inputs: Inputs) -> dict[str, str]:
    """Writes both files into `folder` and returns the SHA-256 of each by its name."""
    champion = {} if inputs.champion is None else {_CHAMPION: inputs.champion}
    arms = {**inputs.baselines, **champion, **inputs.context.mixed}
    (challenger,) = pc.unique(inputs.challenger["system"]).to_pylist()
    tables = [inputs.challenger, *(_named(name, table) for name, table in arms.items())]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(tables), folder / ARMS, compression="zstd", store_schema=False)
    context = inputs.context
    record = {
        "challenger": challenger,
        "baselines": list(inputs.baselines),
        "test_set": context.test_set,
        "decisions_before": context.decisions_before,
        "cost": context.cost.to_json() if context.cost else None,
        "checks": [asdict(check) for check in context.checks],
        "unmixed": context.unmixed,
        "refresh": context.refresh,
    }
    (folder / CONTEXT).write_text(sorted_json(record) + "\n", encoding="utf-8")
    return {name: file_sha256(folder / name) for name in (ARMS, CONTEXT)}


def read_inputs(folder: Path, expected: Mapping[str, str]) -> Inputs:
    """What `write_inputs` wrote; ReleaseError where a file is not the one that was judged."""
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise ReleaseError(
                f"{path} is missing or is not what was judged (SHA-256 {digest[:12]}...): "
                "the decision cannot be made again"
            )
    record = json.loads((folder / CONTEXT).read_text(encoding="utf-8"))
    table = read_table(folder / ARMS)
    arms = {
        name: table.filter(pc.equal(table["system"], name))
        for name in pc.unique(table["system"]).to_pylist()
    }
    context = Context(
        test_set=record["test_set"],
        decisions_before=record["decisions_before"],
        cost=CostSample.from_json(record["cost"]) if record["cost"] else None,
        checks=tuple(Check(**check) for check in record["checks"]),
        mixed={name: arms[name] for name in (OLD_MODEL, OLD_INDEX) if name in arms},
        unmixed=record["unmixed"],
        refresh=record.get("refresh", False),  # older decisions know no refresh
    )
    return Inputs(
        challenger=arms[record["challenger"]],
        champion=arms.get(_CHAMPION),
        # A baseline without rows was an empty table, which is an error once more.
        baselines={name: arms.get(name, table.slice(0, 0)) for name in record["baselines"]},
        context=context,
    )


def replay(folder: Path, row: Mapping[str, Any]) -> Decision:
    """The decision of a ledger row, made again from the inputs in `folder`."""
    if not isinstance(row.get("decision"), Mapping) or "inputs" not in row:
        raise ReleaseError(
            f"row {row.get('sequence')} of the ledger holds no decision with its inputs: "
            "there is nothing to make again"
        )
    settings = dict(row["decision"]["params"])
    seed = int(settings.pop("seed"))
    inputs = read_inputs(folder, row["inputs"]["files"])
    return inputs.decide(GateParams.model_validate(settings), seed=seed)


def differences_of(decision: Decision, record: Mapping[str, Any]) -> list[str]:
    """The fields of a record that a replayed decision gives otherwise, one line each."""
    lines = []
    for name, value in decision.to_json().items():
        again = json.loads(sorted_json(value))
        if name not in record or record[name] == again:
            continue
        plain = isinstance(again, str | int | float | None)
        lines.append(f"{name}: was {record[name]}, is {again}" if plain else f"{name}: another")
    return lines


def _named(name: str, table: pa.Table) -> pa.Table:
    column = pa.array([name] * table.num_rows, pa.string())
    return table.set_column(table.schema.get_field_index("system"), "system", column)
