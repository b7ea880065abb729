"""A project whose release is small but real: MiniLM vectors and a language model of a few thousand
weights, and one MLflow store on SQLite for the whole session, in a folder with an awkward name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.params import Params, parse_params
from tests.answering_project import write_adapter, write_answering_project

METRICS = {
    "n_questions": 150,
    "systems": {
        "tuned": {
            "f1": {"value": 61.23, "low": 57.9, "high": 64.4},
            "recall@5": {"value": 90.0, "low": 85.0, "high": 95.0},
        },
        "closed_book": {"f1": {"value": 4.0, "low": 2.0, "high": 6.5}},
    },
}


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Artifacts, Params]:
    """Files where a release expects them, of no content that any model could load."""
    artifacts = Artifacts(tmp_path / "project")
    files = {
        artifacts.chunks: b"chunks " * 100,
        artifacts.embeddings / "vectors.npy": b"\x93NUMPY vectors",
        artifacts.embeddings / "ids.parquet": b"ids",
        artifacts.embeddings / "embeddings.json": b"{}",
        artifacts.fusion: b'{"dense_weight": {"default": 0.5}}',
        artifacts.passage_encoder / "encoder.json": b"{}",
        artifacts.reader / "reader.json": b"{}",
        artifacts.reader / "adapter" / "adapter_model.safetensors": b"\x10weights",
        artifacts.metrics: json.dumps(METRICS).encode(),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return artifacts, Params()


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("störe of releases")


@contextmanager
def chosen_store(state: Path) -> Iterator[None]:
    """The session's store, and the environment as it was found afterwards."""
    from rag.release.store import configure

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.delenv(name, raising=False)
        configure(Artifacts(state, state_folder=state), Params())
        yield


@pytest.fixture
def _mlflow(state: Path) -> Iterator[None]:
    """Chosen again for every test: those of other folders choose theirs."""
    with chosen_store(state):
        yield


@pytest.fixture(scope="module")
def _mlflow_of_module(state: Path) -> Iterator[None]:
    with chosen_store(state):
        yield


@pytest.fixture
def run_id(_mlflow: None, state: Path) -> str:
    """A fresh run in the session's store."""
    from mlflow import MlflowClient

    from rag.release.store import experiment_id

    client = MlflowClient()
    experiment = experiment_id(client, Artifacts(state, state_folder=state), Params())
    return str(client.create_run(experiment).info.run_id)


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifacts, Params]:
    """A project that can answer, with metrics as evaluate leaves them."""
    root = tmp_path_factory.mktemp("answering")
    model = _tiny_language_model(root / "tiny")
    write_adapter(model, Artifacts(root).reader / "adapter")
    params = parse_params(
        {
            # Its tokenizer knows whole words alone, so answers cannot be copied.
            "reader": {"model": str(model), "max_answer_tokens": 4, "verbatim": False},
            "release": {"name": "tiny"},
            "watch": {"query_log": True},
        }
    )
    artifacts = write_answering_project(root, params)
    artifacts.metrics.parent.mkdir(parents=True)
    artifacts.metrics.write_text(json.dumps(METRICS), encoding="utf-8")
    return artifacts, params


def _tiny_language_model(folder: Path) -> Path:
    """A LLaMA of two narrow layers with random weights, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    text = "the petrel fulmar sails at noon dawn dogs travel free"
    words = ["<unk>", "</s>", *text.split()]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder
