"""DVC's experiments: which of them the files in a checkout are, so that runs can be told apart.

    dvc exp run --queue -S reader.lora.rank=4 && dvc exp run --queue -S reader.lora.rank=8
    dvc exp run --run-all
    dvc exp apply NAME && ragloop run       # for each that is worth a run in MLflow

Stages know no MLflow, and DVC hands the name of an experiment to its stages alone (DVC_EXP_NAME).
So a flow finds the name by content: the experiment that has committed this very dvc.lock and
params.yaml.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows import git

VARIABLE = "DVC_EXP_NAME"
#: `refs/exps/<commit they started from, after two digits a slash>/<name>`; others are DVC's own.
_REFS = "refs/exps/[0-9a-f][0-9a-f]/*/*"
_FILES = ("dvc.lock", "params.yaml")


def experiment_name(root: Path) -> str | None:
    """The name of the experiment that the checkout is, the newest where several are equal."""
    if named := os.environ.get(VARIABLE):
        return named
    files = [root / name for name in _FILES]
    if not all(file.is_file() for file in files):
        return None
    refs = git.ask(root, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", _REFS)
    if not refs:
        return None
    here = git.ask(root, "hash-object", "--no-filters", *map(str, files)).splitlines()
    for ref in refs.splitlines():
        there = git.ask(root, "rev-parse", *(f"{ref}:./{name}" for name in _FILES)).splitlines()
        if there == here:
            return ref.rpartition("/")[2]
    return None
