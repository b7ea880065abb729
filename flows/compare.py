"""What the gate is shown: the champion's answers of today, the mixed arms, time and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.review_gate import human_checks
from flows.steps import is_scheduled
from rag.artifacts import Artifacts
from rag.params import Params, load_params
from rag.records import read_questions, read_table

if TYPE_CHECKING:
    from pyarrow import Table

    from rag.release.cost import CostSample
    from rag.release.gate import Decision
    from rag.release.registry import ReleaseVersion
    from rag.release.replay import Inputs


@dataclass(frozen=True)
class Mixed:
    """The two mixed arms of the attribution grid by name, or why there are none."""

    arms: Mapping[str, Table] = field(default_factory=dict)
    why: str = ""

    @property
    def detail(self) -> str:
        """What the step's line says."""
        return self.why or "old and new model over the new and the old index"


@dataclass(frozen=True)
class Judged:
    """A decision, and the inputs that it can be made again from."""

    decision: Decision
    inputs: Inputs


def champion_predictions(artifacts: Artifacts, params: Params, champion: ReleaseVersion) -> Table:
    """The champion's answers to today's test questions, given now and by today's code."""
    released = released_files(artifacts, params, champion)
    return _answers(artifacts, released, load_params(released.params), "champion")


def mixed_predictions(artifacts: Artifacts, params: Params, champion: ReleaseVersion) -> Mixed:
    """Old model over the new index and new model over the old one, where that can be asked.

    Vectors of another passage encoder mean nothing to a model, and where the index is the
    champion's there is nothing to tell apart: then no question is asked and `why` says so.
    """
    from rag.release.attribution import OLD_INDEX, OLD_MODEL

    if not params.gate.attribution:
        return Mixed(why="gate.attribution is false")
    released = released_files(artifacts, params, champion)
    why = _unmixable(artifacts, released)
    if why:
        return Mixed(why=why)
    old_params = load_params(released.params)
    arms = {}
    for system, model, index, own in (
        (OLD_MODEL, released, artifacts, old_params),
        (OLD_INDEX, artifacts, released, params),
    ):
        with _mixed(artifacts, model, index) as mixed:
            arms[system] = _answers(artifacts, mixed, own, system)
    return Mixed(arms)


def measure_cost(artifacts: Artifacts, params: Params, champion: ReleaseVersion) -> CostSample:
    """Seconds and memory of champion and challenger on the same questions, asked in turn."""
    from flows.cost import measure

    settings = params.gate.cost
    assert settings is not None
    released = released_files(artifacts, params, champion)
    return measure(artifacts, released, settings)


def judge(
    artifacts: Artifacts,
    params: Params,
    champion: Table | None,
    mixed: Mixed | None = None,
    cost: CostSample | None = None,
    *,
    refresh: bool = False,
) -> Judged:
    """The gate's decision about what the stages have left; without a champion, by the baselines."""
    import pyarrow.compute as pc

    from rag.release import ledger
    from rag.release.gate import Context
    from rag.release.history import decisions_on
    from rag.release.replay import Inputs

    predictions = read_table(artifacts.predictions)
    tables = {
        system: predictions.filter(pc.equal(predictions["system"], system))
        for system in ("tuned", *params.evaluate.baselines)
    }
    tuned = tables.pop("tuned")
    test_set = frozen_test_set(artifacts, predictions)
    context = Context(
        test_set=test_set,
        decisions_before=decisions_on(ledger.read(artifacts.ledger), test_set),
        cost=cost,
        checks=human_checks(artifacts, params, tuned, champion, tables),
        mixed=mixed.arms if mixed else {},
        unmixed=mixed.why if mixed else "",
        refresh=refresh,
    )
    inputs = Inputs(tuned, champion, tables, context)
    return Judged(inputs.decide(params.gate, seed=params.seed), inputs)


def keep(judged: Judged, run_id: str) -> dict[str, Any]:
    """Keeps the inputs with the run; returns what the ledger says beside the decision itself.

    `inputs` are where they lie and their hashes, `libraries` the versions that decided, `actor` who
    started the run.
    """
    from flows.release_commands import actor
    from rag.release.bundle import library_versions
    from rag.release.mirror import keep_inputs
    from rag.release.replay import write_inputs

    with tempfile.TemporaryDirectory() as folder:
        files = write_inputs(Path(folder), judged.inputs)
        inputs = keep_inputs(run_id, Path(folder), files)
    who = "the schedule" if is_scheduled() else actor()
    return {"inputs": inputs, "libraries": library_versions(), "actor": who}


def mirror(params: Params, row: Mapping[str, Any]) -> None:
    """Tells MLflow of the ledger's new row."""
    from rag.release.mirror import mirror_row

    mirror_row(params, row)


def frozen_test_set(artifacts: Artifacts, predictions: Table) -> str:
    """The version of today's test questions, taken from the questions and not from the answers."""
    import pyarrow as pa

    from rag.release.comparison import suite_version

    questions = read_questions(artifacts.questions, "test")
    columns: dict[str, list[Any]] = {
        "question_id": [question.question_id for question in questions],
        "question": [question.text for question in questions],
        "answers": [
            list(question.answers) if question.answerable else [] for question in questions
        ],
        "document_id": [question.document_id for question in questions],
        "answerable": [question.answerable for question in questions],
    }
    if "metrics_version" in predictions.schema.names and questions:
        columns["metrics_version"] = [predictions["metrics_version"][0].as_py()] * len(questions)
    return suite_version(pa.table(columns))


def released_files(artifacts: Artifacts, params: Params, champion: ReleaseVersion) -> Artifacts:
    """The champion's files, in the layout of a project."""
    from rag.release.served import open_release

    return open_release(artifacts, params, champion)


def _answers(artifacts: Artifacts, system: Artifacts, params: Params, name: str) -> Table:
    from rag.reading.answerer import QuestionAnswerer
    from rag.stages import predict_with

    answerer = QuestionAnswerer.load(system, params)
    try:
        return predict_with(answerer, read_questions(artifacts.questions, "test"), name)
    finally:
        answerer.close()


def _unmixable(artifacts: Artifacts, released: Artifacts) -> str:
    """Why model and index of today and of the champion cannot be exchanged; empty if they can."""
    from rag.retrieval.embeddings import VECTORS, read_facts

    new, old = read_facts(artifacts.embeddings), read_facts(released.embeddings)
    if new.fingerprint == old.fingerprint:
        return "the index is the champion's: the whole difference is the model's"
    if new.encoder != old.encoder:
        return "another passage encoder: neither model can search the other's index"
    if not (released.embeddings / VECTORS).is_file():
        return "the champion's vectors are on the server alone"
    return ""


@contextmanager
def _mixed(artifacts: Artifacts, model: Artifacts, index: Artifacts) -> Iterator[Artifacts]:
    """A folder of links: the model's files, and the passages with their vectors from `index`."""
    with tempfile.TemporaryDirectory(dir=artifacts.state) as folder:
        mixed = Artifacts(Path(folder), state_folder=artifacts.state)
        for target, source in (
            (mixed.params, model.params),
            (mixed.retriever, model.retriever),
            (mixed.reader, model.reader),
            (mixed.fusion, model.fusion),
            (mixed.chunks, index.chunks),
            (mixed.embeddings, index.embeddings),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
        yield mixed
