"""What `benchmarks/reader_speed.py` compares: both trainings, their data, and the answers after."""

from __future__ import annotations

import json
import lzma
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.evaluation.answer_scores import token_f1
from rag.finetune.examples import ReadingExample, evenly
from rag.params import Params
from rag.reading.causal import CausalReader
from rag.reading.extractive import ExtractiveReader
from rag.records import Passage, Question
from rag.weights import resolve_weights

#: Batches of about eight questions, and learning rates that suit the models.
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "causal": {"questions": 400, "batch_tokens": 768, "learning_rate": 5e-4},
    "extractive": {"questions": 4000, "batch_tokens": 1408, "learning_rate": 2e-4},
}
_TRAIN_SHARE = 0.75
"""Of the articles."""


@dataclass(frozen=True)
class Task:
    """What is trained on what; paths are those of the command line."""

    reader: str
    file: Path
    cache: Path
    questions: int
    dev_questions: int
    epochs: int
    learning_rate: float
    batch_tokens: int

    def params(self) -> Params:
        training = {
            "epochs": self.epochs,
            "batch_tokens": self.batch_tokens,
            "learning_rate": self.learning_rate,
            "evaluations": 1,
            "checkpoint_minutes": None,
        }
        reader: dict[str, Any] = {"kind": self.reader, "training": training}
        if self.reader == "extractive":
            reader |= {"model": "bundled:minilm", "fusion": "joint", "lora": None}
        return Params.model_validate({"reader": reader})

    def prepare(self) -> None:
        """Converts bundled weights, so that no training pays for it."""
        resolve_weights(self.params().reader.model, None, self.cache)

    def examples(self) -> tuple[list[ReadingExample], list[ReadingExample]]:
        """Train questions of the first articles and dev questions of the others."""
        opener = lzma.open if self.file.suffix == ".xz" else open
        with opener(self.file, "rt", encoding="utf-8") as file:
            articles = json.load(file)["data"]
        parts: tuple[list[ReadingExample], list[ReadingExample]] = ([], [])
        for number, article in enumerate(articles):
            part = parts[number >= _TRAIN_SHARE * len(articles)]
            for place, paragraph in enumerate(article["paragraphs"]):
                document = str(number)
                passage = Passage(f"{number}-{place}", document, paragraph["context"], 1.0, 1)
                for asked in paragraph["qas"]:
                    answers = tuple(dict.fromkeys(answer["text"] for answer in asked["answers"]))
                    question = Question(
                        asked["id"], asked["question"], answers, document, True, "train", "en"
                    )
                    part.append(ReadingExample(question, (passage,), answers[0]))
        return evenly(parts[0], self.questions), evenly(parts[1], self.dev_questions)

    def load(self, folder: Path | None) -> CausalReader | ExtractiveReader:
        kind = CausalReader if self.reader == "causal" else ExtractiveReader
        return kind(self.params().reader, self.cache, folder)


@dataclass(frozen=True)
class Run:
    """One training: tokens that went through the model, and the same with their padding."""

    seconds: float
    samples: int
    tokens: int
    padded_tokens: int
    peak_bytes: int
    utilisation: float
    """Share of the GPU's matrix-product rate; 0 on a CPU."""


def dev_scores(task: Task, folder: Path) -> list[float]:
    """Token F1 of every dev question, answered with the weights in `folder`."""
    dev = task.examples()[1]
    answers = task.load(folder).answer(
        [example.question.text for example in dev], [example.passages for example in dev]
    )
    return [
        token_f1(answer.text, example.question.answers)
        for answer, example in zip(answers, dev, strict=True)
    ]


def train_here(task: Task, out: Path) -> Run:
    """This project's loop."""
    from rag.finetune.extractive import ExtractiveReaderTraining
    from rag.finetune.generative import GenerativeReaderTraining
    from rag.finetune.loop import train

    params = task.params()
    examples, dev = task.examples()
    kind: Any = GenerativeReaderTraining if task.reader == "causal" else ExtractiveReaderTraining
    # The loop asks for dev metrics at its end, which are not timed.
    training = kind(task.load(None), params, examples, dev[:1], {"f1": token_f1})
    summary = train(
        training, params.reader.training, seed=params.seed, log=lambda *_: None, say=lambda _: None
    )
    peak = _peak_bytes()
    training.save(out)
    done = summary.trained
    return Run(
        seconds=summary.seconds,
        samples=len(examples) * task.epochs,
        tokens=done.tokens,
        padded_tokens=done.padded_tokens,
        peak_bytes=peak,
        utilisation=_utilisation(training.models()[0], done.tokens, summary.seconds),
    )


def train_there(task: Task, out: Path) -> Run:
    """`transformers.Trainer`, at its defaults."""
    from transformers import Trainer, TrainingArguments

    examples = task.examples()[0]
    model, rows, tokenizer = (_causal if task.reader == "causal" else _extractive)(task, examples)
    padding = _Padding(tokenizer.pad_token_id)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out / "trainer"),
            num_train_epochs=task.epochs,
            learning_rate=task.learning_rate,
            seed=task.params().seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=padding,
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    peak = _peak_bytes()
    folder = out / ("adapter" if task.reader == "causal" else "weights")
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return Run(
        seconds=seconds,
        samples=len(examples) * task.epochs,
        tokens=padding.tokens,
        padded_tokens=padding.padded_tokens,
        peak_bytes=peak,
        utilisation=_utilisation(model, padding.tokens, seconds),
    )


SYSTEMS: Mapping[str, Callable[[Task, Path], Run]] = {"trainer": train_there, "ragloop": train_here}


class _Padding:
    """Pads a batch to its longest row, as `DataCollatorWithPadding` does, and counts tokens."""

    def __init__(self, padding_id: int) -> None:
        self._fill = {"input_ids": padding_id, "labels": -100}
        self.tokens = self.padded_tokens = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        lengths = [len(row["input_ids"]) for row in rows]
        self.tokens += sum(lengths)
        self.padded_tokens += max(lengths) * len(rows)
        batch = {}
        for name, first in rows[0].items():
            values = [row[name] for row in rows]
            if isinstance(first, list):
                fill = [self._fill.get(name, 0)]
                values = [own + fill * (max(lengths) - len(own)) for own in values]
            batch[name] = torch.tensor(values)
        return batch


def _causal(task: Task, examples: Sequence[ReadingExample]) -> tuple[Any, Any, Any]:
    """A model with adapters on all layers, rows with the prompt's labels masked, the tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = task.params().reader
    reader = CausalReader(settings, task.cache, None)  # for the same prompts
    rows = []
    for example in examples:
        [source] = reader.sources(example.question.text, example.passages)
        prompt, answer = reader.prompt(source), list(reader.answer_ids(example.target))
        ids = [*prompt.shared, *prompt.own]
        size = len(ids) + len(answer)
        labels = [-100] * len(ids) + answer
        rows.append({"input_ids": ids + answer, "attention_mask": [1] * size, "labels": labels})
    tokenizer, lora = reader.tokenizer, settings.lora
    assert lora is not None
    del reader
    base = resolve_weights(settings.model, None, task.cache).folder
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return get_peft_model(model, config), rows, tokenizer


def _extractive(task: Task, examples: Sequence[ReadingExample]) -> tuple[Any, Any, Any]:
    """A model with a new head, a row for each window, and the tokenizer."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from rag.reading.windows import WindowReader, token_spans

    settings = task.params().reader
    base = resolve_weights(settings.model, None, task.cache).folder
    torch.manual_seed(0)
    model: Any = AutoModelForQuestionAnswering.from_pretrained(base, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(base)
    windows = WindowReader(tokenizer, model.config, settings)
    readings = windows.read(
        [example.question.text for example in examples],
        [example.passages[0].text for example in examples],
    )
    rows = []
    for example, reading in zip(examples, readings, strict=True):
        found = token_spans(reading, [example.target], settings.max_prompt_tokens)[:1]
        places = [reading.tokens[place - 1].tolist() for span in found for place in span]
        for number, window in enumerate(reading.windows):
            # A window that does not hold the whole answer points at its first token.
            inside = bool(places) and all(own == number for own, _ in places)
            rows.append(
                {
                    "input_ids": window.ids,
                    "token_type_ids": window.types,
                    "attention_mask": [1] * len(window.ids),
                    "start_positions": places[0][1] if inside else 0,
                    "end_positions": places[1][1] if inside else 0,
                }
            )
    return model, rows, tokenizer


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _utilisation(model: Any, tokens: int, seconds: float) -> float:
    """6 x parameters x tokens a second (Kaplan et al. 2020) over the measured bfloat16 rate."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    parameters = sum(p.numel() for p in model.parameters())
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    torch.cuda.synchronize()
    ceiling = 20 * 2 * 8192**3 / (time.perf_counter() - started)
    return 6 * parameters * tokens / seconds / ceiling
