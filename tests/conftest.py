"""Tiny models and the toy pipeline, each made once: tests that change a project copy it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tiny_bert import write_tiny_bert
from tests.toy import fill_raw, make_toy_project, run_stages, write_toy_model

# A shared machine has slow moments. CI tries the same examples every time; at a desk they vary.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy's reader; not to be changed."""
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy-model")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny encoder; not to be changed."""
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def finished_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project in which all stages ran; not to be changed."""
    project = make_toy_project(tmp_path_factory.mktemp("toy") / "project")
    fill_raw(project)
    run_stages(project, hash_seed=1)
    return project
