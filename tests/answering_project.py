"""A project that can answer: every file is what the stages write, made in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.params import Params
from rag.reading.reader import write_manifest as write_reader_manifest
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.embeddings import make_embeddings, write_embeddings
from rag.retrieval.encoder import Encoder, write_manifest
from rag.retrieval.fusion import Fusion

TEXTS = ("the petrel sails at noon", "the fulmar sails at dawn", "dogs travel free")


def write_answering_project(root: Path, params: Params, **manifest: Any) -> Artifacts:
    """All but the tuned weights of the reader; `manifest` is added to its reader.json.

    Chunk i is `TEXTS[i]` of document `d<i>`.
    """
    artifacts = Artifacts(root)
    chunks = [Chunk(f"{i:016x}", f"d{i}", 0, text, 5) for i, text in enumerate(TEXTS)]
    write_table(chunks, CHUNKS, artifacts.chunks)
    encoder = Encoder(params.retriever, artifacts.weights_cache)
    vectors = encoder.encode(list(TEXTS), "passage", batch_tokens=params.embed.batch_tokens)
    ids = [chunk.chunk_id for chunk in chunks]
    embeddings = make_embeddings(ids, vectors, encoder.passage_fingerprint)
    write_embeddings(embeddings, artifacts.embeddings)
    for folder in (artifacts.passage_encoder, artifacts.query_encoder):
        write_manifest(folder, params.retriever, encoder.weights, "base")
    Fusion().write(artifacts.fusion)
    artifacts.reader.mkdir(parents=True, exist_ok=True)
    facts: Mapping[str, Any] = {"abstain_below": None, **manifest}
    write_reader_manifest(
        artifacts.reader, kind=params.reader.kind, model=params.reader.model, **facts
    )
    return artifacts


def write_adapter(model: Path, adapter: Path) -> None:
    """A LoRA adapter that changes nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(adapter))
