"""Readers on tiny random models, and passages to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rag.params import ReaderParams
from rag.reading.causal import CausalReader
from rag.reading.extractive import ExtractiveReader
from rag.records import Passage
from tests.toy import toy_params


@pytest.fixture(scope="session")
def causal_params(toy_model: Path) -> ReaderParams:
    return toy_params(f"reader.model={toy_model}", "reader.passages=2").reader


@pytest.fixture
def causal(causal_params: ReaderParams, tmp_path: Path) -> CausalReader:
    return CausalReader(causal_params, tmp_path, None)


@pytest.fixture
def extractive(tiny_bert: Path, tmp_path: Path) -> ExtractiveReader:
    params = toy_params(f"reader.model={tiny_bert}", "reader.kind=extractive", "reader.passages=2")
    return ExtractiveReader(params.reader, tmp_path, None)


@pytest.fixture
def passage() -> Callable[[str], Passage]:
    """A passage with this text, whose other fields do not matter."""
    return lambda text: Passage(f"chunk of {text}", "d", text, 0.5, 1)
