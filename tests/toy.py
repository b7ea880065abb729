"""A toy project: the whole pipeline, with its own git repository and model, in seconds.

Its reader is a random model of two layers, and nearly every answer is the same name, so that a few
steps of LoRA beat the untuned model beyond doubt: the gate promotes the first run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from rag.params import Params, load_params, parse_params
from rag.stages import STAGES
from rag.yaml_input import merge_overrides, read_yaml

REPOSITORY = Path(__file__).resolve().parent.parent
_LEFT_OUT = ("data/", "docs/", "benchmarks/", "tests/", ".ci/")
MODEL = "toy-model"
ANSWER = "Captain Marlow"

#: What makes the toy a toy; everything else is the repository's params.yaml.
TOY = (
    "seed=13",
    "prepare.test_share=0.25",
    "prepare.dev_share=0.1",
    "reader.passages=1",
    f"reader.model=./{MODEL}",
    "reader.max_prompt_tokens=96",
    "reader.max_answer_tokens=6",
    "reader.verbatim=false",  # it learns a name by heart, and does not read
    "reader.lora.rank=8",
    "reader.lora.frozen_layers=1",
    "reader.training.epochs=6",
    "reader.training.batch_tokens=512",
    "reader.training.learning_rate=0.02",
    "reader.training.precision=float32",
    "reader.training.evaluations=3",
    "retrieve.top_k=4",
    "retrieve.dense_weights=[0.5, 1.0]",
    "evaluate.resamples=1000",
    "gate.resamples=1000",
    "gate.floors={f1: 10.0, recall@5: 10.0}",
)
#: Another run of the same data: only the reader is trained and evaluated again.
VARIANT = ("reader.lora.rank=4",)

_FERRIES = [
    first + second
    for first in ("Gale", "Sea", "Storm", "Tide")
    for second in ("bird", "fox", "lark", "star", "swan", "wolf")
]
_PORTS = ("Ashby", "Birkdale", "Cromer", "Dunster", "Elgin", "Fenwick", "Girvan", "Hythe")
_MONTHS = ("March", "April", "May", "September", "October")
_ASKED = (
    "Who commands the {}?",
    "Under whom does the {} sail?",
    "Who is in command of the {}?",
    "Who is the master of the {}?",
)
_UNANSWERABLE = (
    "What did the new anchor of the {} cost?",
    "Which paint does the hull of the {} have?",
)


def make_toy_project(folder: Path, *, overrides: Sequence[str] = ()) -> Path:
    """Fills `folder`, new or empty, with a committed project; `ragloop run` there promotes."""
    for name in _repository_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
    tree = merge_overrides(read_yaml(REPOSITORY / "params.yaml"), [*TOY, *overrides])
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    write_toy_corpus(folder / "data" / "demo")
    write_toy_model(folder / MODEL)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "user.name", "toy"],
        ["config", "user.email", "toy@example.com"],
        ["config", "commit.gpgsign", "false"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=Toy project"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def toy_params(*overrides: str) -> Params:
    """The params of a toy project; paths in them are relative to it."""
    return parse_params(merge_overrides(read_yaml(REPOSITORY / "params.yaml"), [*TOY, *overrides]))


def fill_raw(project: Path) -> Params:
    """Puts the corpus where `prepare` reads it, as a flow's first task does; returns the params."""
    shutil.copytree(project / "data" / "demo", project / "data" / "raw")
    return load_params(project / "params.yaml")


def run_stages(project: Path, *stages: str, hash_seed: int = 0) -> None:
    """Runs stages, all of them by default, in one process of its own in the project's folder."""
    names = stages or tuple(stage.name for stage in STAGES)
    code = f"from rag.__main__ import main\nfor name in {names}: assert main([name]) == 0, name"
    run_python(project, code, hash_seed=hash_seed).check_returncode()


def run_python(project: Path, code: str, *, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs code that imports the project's own `rag`."""
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )


def write_toy_corpus(folder: Path) -> None:
    """24 documents, four answerable questions each, and an unanswerable one for every third."""
    documents = folder / "documents"
    documents.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i, ferry in enumerate(_FERRIES):
        name = f"{ferry.lower()}.md"
        (documents / name).write_text(_document(i), encoding="utf-8")
        for j, question in enumerate(_ASKED):
            rows.append(_row(f"{ferry.lower()}-{j}", question.format(ferry), [ANSWER], name))
        if i % 3 == 0:
            rows.append(_row(f"{ferry.lower()}-none", _UNANSWERABLE[i % 2].format(ferry), [], None))
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")


def write_toy_model(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 7) -> Path:
    """A random Llama with a byte-level tokenizer trained on the toy's words; no chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,  # the usual 0.02 would need many steps before a token stands out
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _repository_files() -> Iterator[str]:
    """Files of the repository, committed or not, that a project is made of."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if not name.startswith(_LEFT_OUT) and (REPOSITORY / name).is_file():
            yield name


def _document(i: int) -> str:
    ferry, port, month = _FERRIES[i], _PORTS[i % len(_PORTS)], _MONTHS[i % len(_MONTHS)]
    return (
        f"# {ferry}\n\nThe {ferry} sails from {port} under {ANSWER}. "
        f"Every {month} the {ferry} is docked for {i + 5} days.\n"
    )


def _row(name: str, question: str, answers: list[str], document: str | None) -> dict[str, Any]:
    row = {"id": name, "question": question, "answers": answers, "answerable": bool(answers)}
    return row | ({"document": document} if document else {})


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [_document(i) for i in range(len(_FERRIES))]
    texts += [
        question.format(ferry) for ferry in _FERRIES for question in (*_ASKED, *_UNANSWERABLE)
    ]
    texts += ["Question: Answer in a few words copied from the text, or say unanswerable."] * 9
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
