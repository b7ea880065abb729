"""Readers on tiny random models, and passages to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rag.params import ReaderParams
from rag.reading.causal import CausalReader
from rag.reading.extractive import ExtractiveReader
from rag.reading.seq2seq import Seq2SeqReader
from rag.records import Passage
from tests.tiny_seq2seq import write_tiny_bart, write_tiny_gpt2, write_tiny_t5
from tests.toy import toy_params


@pytest.fixture(scope="session")
def causal_params(toy_model: Path) -> ReaderParams:
    return toy_params(f"reader.model={toy_model}", "reader.passages=2").reader


@pytest.fixture
def causal(causal_params: ReaderParams, tmp_path: Path) -> CausalReader:
    return CausalReader(causal_params, tmp_path, None)


@pytest.fixture
def extractive(tiny_bert: Path, tmp_path: Path) -> Callable[..., ExtractiveReader]:
    """A reader from overrides and the temperature of its prior."""

    def make(*overrides: str, prior_temperature: float = 1.0) -> ExtractiveReader:
        params = toy_params(
            f"reader.model={tiny_bert}",
            "reader.kind=extractive",
            "reader.fusion=joint",
            "reader.passages=2",
            "reader.stride_tokens=9",
            *overrides,
        )
        return ExtractiveReader(params.reader, tmp_path, None, prior_temperature=prior_temperature)

    return make


@pytest.fixture(scope="session")
def seq2seq_folders(
    tiny_bert: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Models to read, to write, or both with; not to be changed."""
    root = tmp_path_factory.mktemp("seq2seq")
    return {
        "bart": write_tiny_bart(root / "bart"),
        "t5": write_tiny_t5(root / "t5"),
        "bert": tiny_bert,
        "gpt2": write_tiny_gpt2(root / "gpt2"),
        "gpt2 as wide as bert": write_tiny_gpt2(root / "narrow", hidden=32),
        "llama": toy_model,
    }


@pytest.fixture(scope="session")
def seq2seq_params(seq2seq_folders: dict[str, Path]) -> Callable[..., ReaderParams]:
    """Params of `bart`, `t5`, or BERT with a GPT-2: `pair`, or `narrow` where both are as wide."""
    decoders = {"pair": "gpt2", "narrow": "gpt2 as wide as bert"}

    def make(kind: str, *overrides: str) -> ReaderParams:
        names = [f"reader.model={seq2seq_folders['bert' if kind in decoders else kind]}"]
        if kind in decoders:
            names.append(f"reader.decoder={seq2seq_folders[decoders[kind]]}")
        return toy_params(
            "reader.kind=seq2seq", *names, "reader.lora=null", "reader.passages=3", *overrides
        ).reader

    return make


@pytest.fixture
def make_seq2seq(
    seq2seq_params: Callable[..., ReaderParams], tmp_path: Path
) -> Callable[..., Seq2SeqReader]:
    """An untuned reader by the name that `seq2seq_params` takes, and overrides."""
    return lambda kind, *overrides: Seq2SeqReader(seq2seq_params(kind, *overrides), tmp_path, None)


@pytest.fixture
def passage() -> Callable[[str], Passage]:
    """A passage with this text, whose other fields do not matter."""
    return lambda text: Passage(f"chunk of {text}", "d", text, 0.5, 1)
