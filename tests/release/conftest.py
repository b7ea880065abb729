"""A project whose release is small but real: MiniLM vectors and a language model of a few thousand
weights, and one MLflow store on SQLite for the whole session, in a folder with an awkward name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.params import Params, parse_params
from rag.records import CHUNKS, Chunk, write_table

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


@pytest.fixture(scope="session")
def _mlflow(state: Path) -> Iterator[None]:
    """The session's store; the process is left as it was found."""
    from rag.release.store import configure

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.delenv(name, raising=False)
        configure(Artifacts(state, state_folder=state), Params())
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
    """A project that can answer: every file is what the stages write, made in seconds."""
    from rag.reading.reader import write_manifest as write_reader_manifest
    from rag.retrieval.embeddings import make_embeddings, write_embeddings
    from rag.retrieval.encoder import Encoder, write_manifest
    from rag.retrieval.fusion import Fusion

    root = tmp_path_factory.mktemp("answering")
    artifacts = Artifacts(root)
    model = _tiny_language_model(root / "tiny", artifacts.reader / "adapter")
    params = parse_params(
        {"reader": {"model": str(model), "max_answer_tokens": 4}, "release": {"name": "tiny"}}
    )
    texts = ["the petrel sails at noon", "the fulmar sails at dawn", "dogs travel free"]
    chunks = [Chunk(f"{i:016x}", f"d{i}", 0, text, 5) for i, text in enumerate(texts)]
    write_table(chunks, CHUNKS, artifacts.chunks)
    encoder = Encoder(params.retriever, artifacts.weights_cache)
    vectors = encoder.encode(texts, "passage", batch_tokens=params.embed.batch_tokens)
    ids = [chunk.chunk_id for chunk in chunks]
    embeddings = make_embeddings(ids, vectors, encoder.passage_fingerprint)
    write_embeddings(embeddings, artifacts.embeddings)
    for folder in (artifacts.passage_encoder, artifacts.query_encoder):
        write_manifest(folder, params.retriever, encoder.weights, "base")
    Fusion().write(artifacts.fusion)
    write_reader_manifest(artifacts.reader, kind="causal", model=str(model), abstain_below=None)
    artifacts.metrics.parent.mkdir(parents=True)
    artifacts.metrics.write_text(json.dumps(METRICS), encoding="utf-8")
    return artifacts, params


def _tiny_language_model(folder: Path, adapter: Path) -> Path:
    """A LLaMA of two narrow layers with random weights, its tokenizer, and a LoRA adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
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
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    tuned.save_pretrained(str(adapter))
    return folder
