"""The stages of a search: each made once for the parameters that it reads, and then shared.

    .ragloop/tune/STUDY/raw/                the data as it was when the study began
    .ragloop/tune/STUDY/stages/NAME-KEY/    a finished stage: params.yaml, its log, its outputs
    .ragloop/tune/STUDY/stages/NAME-KEY.new one at work; a stage that trains resumes in it

What a stage depends on is what dvc.yaml lists: params and outputs of earlier stages, which are
linked into its folder. Nothing here lies in `data/`, so a retraining may go on beside a search. The
test questions leave the table of questions as soon as `prepare` has made it: no later stage of a
search can look at them. `evaluate` is never run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows import processes
from rag.__main__ import ROOT_VARIABLE
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError
from rag.params import Params
from rag.records import sorted_json
from rag.stages import STAGES
from rag.weights import file_sha256

_KEY_LENGTH = 16
_POLL_SECONDS = 0.25
#: What a finished training leaves in a search: how it went, not the weights.
_KEPT_SUFFIXES = (".json", ".jsonl")

Watch = Callable[[Artifacts], None]


@dataclass(frozen=True)
class _Stage:
    """A stage as dvc.yaml describes it."""

    name: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]


class StudyStages:
    """The stages of one study, up to the last one that its trials run."""

    def __init__(self, project: Artifacts, folder: Path, last: str) -> None:
        self._project = project
        self.folder = folder
        names = [stage.name for stage in STAGES]
        described = _described(project.root / "dvc.yaml")
        self._stages = [described[name] for name in names[: names.index(last) + 1]]
        self._owner = {out: stage.name for stage in self._stages for out in stage.outs}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def take_data(self, data_hash: str) -> None:
        """Copies `data/raw/` as it is now, once; DataError where it changes meanwhile."""
        raw = self.folder / "raw"
        if raw.is_dir():
            return
        copy = self.folder / "raw.new"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._project.raw, copy)
        if folder_hash(copy) != data_hash:
            raise DataError("data/raw/ was changed while it was copied", hint="run it again")
        copy.rename(raw)

    def run(self, params: Params, watch: Watch, poll: Callable[[], None]) -> Artifacts:
        """Runs the stages that these params need and that no trial has run; returns the last one's.

        While the last stage trains, `watch` is called with its folder, also once when it is done or
        was done before. `poll` is called while any stage runs. What either raises stops the stage
        with all its processes and is raised here.
        """
        done: dict[str, Path] = {}
        *before, last = self._stages
        for stage in before:
            done[stage.name] = self._one(stage, params, done, lambda _: poll())

        def both(artifacts: Artifacts) -> None:
            poll()
            watch(artifacts)

        artifacts = Artifacts(self._one(last, params, done, both))
        watch(artifacts)
        return artifacts

    def drop_unfinished(self, params: Params) -> None:
        """Removes what a trial that will not go on has left of its last stage."""
        place = self._place(params)
        with self._locks[place.name]:  # another trial of the same params may be at work in it
            shutil.rmtree(_at_work(place), ignore_errors=True)

    def _place(self, params: Params) -> Path:
        """The folder of the last stage with these params, whether it is there or not."""
        settings, keys = params.model_dump(mode="json"), dict[str, str]()
        for stage in self._stages:
            keys[stage.name] = self._key(stage, settings, keys)
        return self._folder_of(stage, keys[stage.name])

    def _folder_of(self, stage: _Stage, key: str) -> Path:
        return self.folder / "stages" / f"{stage.name}-{key}"

    def _key(self, stage: _Stage, settings: Mapping[str, Any], keys: Mapping[str, str]) -> str:
        made_from = {
            "params": {name: _at(settings, name) for name in stage.params},
            "inputs": {name: keys[self._owner[name]] for name in stage.deps if name in self._owner},
        }
        return hashlib.sha256(sorted_json(made_from).encode()).hexdigest()[:_KEY_LENGTH]

    def _one(self, stage: _Stage, params: Params, done: Mapping[str, Path], watch: Watch) -> Path:
        keys = {name: folder.name.removeprefix(f"{name}-") for name, folder in done.items()}
        place = self._folder_of(stage, self._key(stage, params.model_dump(mode="json"), keys))
        with self._locks[place.name]:
            if not place.is_dir():
                work = _at_work(place)
                self._furnish(stage, params, done, work)
                _execute(stage.name, self._project.root, work, watch)
                if stage.name == "prepare":
                    _leave_out_test_questions(Artifacts(work))
                if stage is self._stages[-1]:
                    _keep_only_facts(work / "data")
                work.rename(place)
        return place

    def _furnish(self, stage: _Stage, params: Params, done: Mapping[str, Path], work: Path) -> None:
        """Params, inputs and stores in the stage's folder.

        Of what a killed one left, its checkpoints stay and its outputs go, as DVC has it.
        """
        artifacts = Artifacts(work)
        shutil.rmtree(artifacts.data, ignore_errors=True)
        artifacts.data.mkdir(parents=True)
        text = yaml.safe_dump(params.model_dump(mode="json", exclude={"tune"}), sort_keys=False)
        artifacts.params.write_text(text, encoding="utf-8")
        if stage.name == "prepare":
            _link(artifacts.raw, self.folder / "raw")
        # All of them: dvc.yaml lists what a result depends on, not every file that is opened.
        for name, owner in self._owner.items():
            if owner in done and (done[owner] / name).exists():
                _link(work / name, done[owner] / name)
        stores = {artifacts.weights_cache: self._project.weights_cache}
        stores[artifacts.vectors] = self.folder / "vectors"
        for here, there in stores.items():
            there.mkdir(parents=True, exist_ok=True)
            _link(here, there)


def settings_read(pipeline: Path, last: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that stages up to the last one read, as dvc.yaml lists them."""
    names = [stage.name for stage in STAGES]
    described = _described(pipeline)
    read = {key for name in names[: names.index(last) + 1] for key in described[name].params}
    return {key: _at(settings, key) for key in sorted(read)}


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]
    return hashlib.sha256(sorted_json(listed).encode()).hexdigest()


def _execute(name: str, root: Path, work: Path, watch: Watch) -> None:
    """Runs a stage in a process group of its own; its own words where it fails."""
    said: list[str] = []
    command = [sys.executable, "-m", "rag", name]
    variables = {**os.environ, ROOT_VARIABLE: str(work)}
    with (
        (work / "log").open("w", encoding="utf-8") as log,
        processes.running(command, root, variables=variables) as program,
    ):

        def add(line: str) -> None:
            log.write(f"{line}\n")
            log.flush()
            said.append(line)

        code = processes.follow(
            program, on_line=add, poll=lambda: watch(Artifacts(work)), poll_seconds=_POLL_SECONDS
        )
    if code != 0:
        mark = f"{name}: "
        own = [line.removeprefix(mark) for line in said if line.startswith(mark)]
        reason = (own or said or [f"exit code {code}"])[-1]
        raise RagError(f"stage {name} failed: {reason} (log: {work / 'log'})")


def _leave_out_test_questions(artifacts: Artifacts) -> None:
    from rag.records import QUESTIONS, read_questions, write_table

    kept = [item for item in read_questions(artifacts.questions) if item.split != "test"]
    write_table(kept, QUESTIONS, artifacts.questions)
    artifacts.rejects.unlink(missing_ok=True)


def _keep_only_facts(data: Path) -> None:
    for path in sorted(data.rglob("*"), reverse=True):
        if path.is_symlink() or (path.is_file() and path.suffix not in _KEPT_SUFFIXES):
            path.unlink()


def _described(pipeline: Path) -> dict[str, _Stage]:
    tree = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    return {
        name: _Stage(name, tuple(row["params"]), tuple(row["deps"]), tuple(row["outs"]))
        for name, row in tree.items()
    }


def _at(settings: Mapping[str, Any], key: str) -> Any:
    node: Any = settings
    for name in key.split("."):
        node = node[name]
    return node


def _at_work(place: Path) -> Path:
    return place.with_name(f"{place.name}.new")


def _link(here: Path, there: Path) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    here.unlink(missing_ok=True)
    here.symlink_to(os.path.relpath(there, here.parent))
