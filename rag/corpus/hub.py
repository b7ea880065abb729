"""A question answering set of the Hugging Face hub as SQuAD JSON: the one import that downloads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rag.errors import DataError

HUB_PREFIX = "hf:"
_NEEDED = ("question", "context", "answers")


def save_hub_dataset(name: str, folder: Path) -> Path:
    """Downloads data set `name` (or reads a local folder of that name) and returns the JSON file.

    The set needs the columns question, context and answers (`{"text": [...]}` or a list of texts),
    and may have id and title: those of SQuAD and its many relatives. All of its splits are taken,
    as ours are made anew. Raises DataError where it cannot be loaded or has other columns.
    """
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, cache_dir=str(folder / "cache"))
    except Exception as error:  # the library raises whatever its readers and the network raise
        reason = " ".join(str(error).split())
        raise DataError(
            f"{HUB_PREFIX}{name}: cannot be loaded: {type(error).__name__}: {reason}",
            hint="check the name and the network, or download it and import the files",
        ) from error
    problems = []
    for split, rows in loaded.items():
        missing = [column for column in _NEEDED if column not in rows.column_names]
        if missing:
            problems.append(
                f"{HUB_PREFIX}{name}, split {split}: no column {', '.join(missing)}; "
                f"it has {', '.join(rows.column_names)}"
            )
    if problems:
        raise DataError(problems, hint="convert it to JSONL or SQuAD JSON and import the files")
    tree = squad_tree((split, rows) for split, rows in loaded.items())
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-')}.json"
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return path


def squad_tree(splits: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> dict[str, Any]:
    """Rows of (split, rows) as SQuAD JSON: one paragraph for each distinct context.

    A paragraph without a title is an article of its own; a row without an id gets its split and
    number.
    """
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    untitled: dict[str, str] = {}
    for split, rows in splits:
        for number, row in enumerate(rows):
            context = row["context"]
            title = str(
                row.get("title") or untitled.setdefault(context, f"context {len(untitled)}")
            )
            answers = row["answers"]
            texts = answers.get("text", []) if isinstance(answers, Mapping) else answers
            texts = [texts] if isinstance(texts, str) else list(texts or [])
            articles.setdefault(title, {}).setdefault(context, []).append(
                {
                    "id": str(row.get("id") or f"{split}-{number}"),
                    "question": row["question"],
                    "answers": [{"text": text} for text in texts],
                    "is_impossible": not texts,
                }
            )
    return {
        "data": [
            {
                "title": title,
                "paragraphs": [
                    {"context": context, "qas": asked} for context, asked in own.items()
                ],
            }
            for title, own in articles.items()
        ]
    }
