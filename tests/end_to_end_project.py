"""A toy for end-to-end training: a reader that copies what it reads, an encoder that knows nothing.

Eight boats and the like, each sailing from a port of its own. A question says 北 where its passage
says red, and 京 for blue: what a random encoder does not know and only the reader's answers teach.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rag import stages
from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import token_f1
from rag.params import Params
from rag.records import CHUNKS, QUESTIONS, Chunk, Question, write_table
from rag.retrieval.encoder import Encoder, write_manifest
from tests.toy import toy_params

SCORES = {"f1": token_f1}
COLOURS = {"red": "北", "blue": "京"}
NOUNS = ("boat", "sea", "captain", "noon")
SUBJECTS = [(colour, noun) for colour in COLOURS for noun in NOUNS]
PORTS = ("Ashby", "Birkdale", "Cromer", "Dunster", "Elgin", "Fenwick", "Girvan", "Hythe")
TEMPERATURE = 0.05
END_TO_END = "reader.end_to_end={objective: marginal, learning_rate: 0.005}"
DISTILLATION = "reader.end_to_end={objective: distillation, learning_rate: 0.005}"


def questions() -> list[Question]:
    """Two of each subject; of half of the subjects the second one is for dev."""
    made = []
    for number, ((colour, noun), port) in enumerate(zip(SUBJECTS, PORTS, strict=True)):
        forms = f"where is the {COLOURS[colour]} {noun} ?", f"{COLOURS[colour]} {noun} who ?"
        for order, text in enumerate(forms):
            split: Any = "train" if order == 0 or number % 2 else "dev"
            name = f"q{number}-{order}"
            made.append(Question(name, text, (port,), f"d{number}", True, split, "en"))
    unanswerable = Question("none", "who rests at the 港 ?", (), None, False, "train", "en")
    return [*made, unanswerable]


def passage_text(colour: str, noun: str, port: str) -> str:
    return f"the {colour} {noun} sails from {port}"


def end_to_end_params(reader: Path, encoder: Path, dense_weight: float, *overrides: str) -> Params:
    """A few seconds of training; `reader` is what `write_copying_model` made."""
    return toy_params(
        f"retriever.model={encoder}",
        "retriever.max_tokens=32",
        "chunk.max_chunk_tokens=32",
        "retrieve.top_k=8",
        "retrieve.fusion=weighted",
        f"retrieve.dense_weights=[{dense_weight}]",
        f"reader.model={reader}",
        "reader.passages=2",
        "reader.fusion=rag_sequence",
        f"reader.prior_temperature={TEMPERATURE}",
        "reader.max_prompt_tokens=96",
        "reader.stride_tokens=16",
        "reader.abstain=null",
        "reader.training.epochs=30",
        "reader.training.learning_rate=0.00001",
        "reader.training.evaluations=1",
        *overrides,
    )


def write_copying_model(model: Path, folder: Path) -> Path:
    """The toy's reader taught to answer with the port of its passage, whatever is asked."""
    import torch

    from rag.reading.causal import CausalReader
    from rag.reading.generative import Source

    params = toy_params(f"reader.model={model}", "reader.lora=null", "reader.max_prompt_tokens=96")
    reader: Any = CausalReader(params.reader, folder, None)
    optimizer = torch.optim.Adam(reader.model.parameters(), lr=3e-3)
    generator = random.Random(1)
    asked = [question.text for question in questions()]
    for _ in range(60):
        sources = [
            Source(generator.choice(asked), (passage_text(*generator.choice(SUBJECTS), port),))
            for port in PORTS
        ]
        answers = [reader.answer_ids(port) for port in PORTS]
        optimizer.zero_grad()
        (-sum(own.sum() for own in reader.token_log_probabilities(sources, answers))).backward()
        optimizer.step()
    reader.model.save_pretrained(folder)
    reader.tokenizer.save_pretrained(folder)
    return folder


def write_project(artifacts: Artifacts, params: Params) -> None:
    """Everything before train_reader, by the stages themselves from chunks on."""
    chunks = [
        Chunk(f"{number:016x}", f"d{number}", 0, passage_text(*subject, port), 8)
        for number, (subject, port) in enumerate(zip(SUBJECTS, PORTS, strict=True))
    ]
    write_table(chunks, CHUNKS, artifacts.chunks)
    write_table(questions(), QUESTIONS, artifacts.questions)
    weights = Encoder(params.retriever, artifacts.weights_cache).weights
    write_manifest(artifacts.passage_encoder, params.retriever, weights, "base")
    write_manifest(artifacts.query_encoder, params.retriever, weights, "passage")
    stages.embed(params, artifacts)
    stages.retrieve(params, artifacts)
