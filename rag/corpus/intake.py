"""`ragloop data check` and `data import`: a corpus is validated whole before it is taken in."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from rag.corpus.hub import HUB_PREFIX, save_hub_dataset
from rag.corpus.reader import CorpusSummary, RawCorpus, read_corpus, summarize_corpus
from rag.errors import DataError


def check_corpus(path: Path) -> CorpusSummary:
    """Counts what a corpus holds. Raises DataError with every problem in it."""
    return summarize_corpus(_read_strictly(path))


def import_corpus(path: Path | str, raw: Path, *, replace: bool) -> CorpusSummary:
    """Copies a valid corpus into the folder `raw`, which then holds just the files that are read.

    `path` is a file, a folder, or `hf:NAME` for a question answering set of the Hugging Face hub.
    Files are written beside `raw` and renamed into place at the end, so that bad input or a
    failure changes nothing. Raises DataError with every problem, or where `raw` holds a corpus and
    `replace` is false.
    """
    _finish_interrupted(raw)
    if _holds_files(raw) and not replace:
        raise DataError(
            f"{raw} already holds a corpus", hint="use --replace to put the new one in its place"
        )
    if str(path).startswith(HUB_PREFIX):
        with tempfile.TemporaryDirectory() as folder:
            saved = save_hub_dataset(str(path).removeprefix(HUB_PREFIX), Path(folder))
            return _take_in(_read_strictly(saved), raw)
    return _take_in(_read_strictly(Path(path)), raw)


def _read_strictly(path: Path) -> RawCorpus:
    corpus = read_corpus(path)
    if corpus.problems:
        raise DataError([str(problem) for problem in corpus.problems])
    return corpus


def _take_in(corpus: RawCorpus, raw: Path) -> CorpusSummary:
    incoming, replaced = _beside(raw, "incoming"), _beside(raw, "replaced")
    raw.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        for file in corpus.files:
            target = incoming / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, target)
        if raw.exists():
            os.replace(raw, replaced)
        os.replace(incoming, raw)
    except OSError as error:
        _finish_interrupted(raw)
        raise DataError(f"{raw}: cannot take in the corpus: {error}") from error
    shutil.rmtree(replaced, ignore_errors=True)
    return summarize_corpus(corpus)


def _finish_interrupted(raw: Path) -> None:
    """Undoes an import that was stopped: the folder that was being replaced comes back."""
    replaced = _beside(raw, "replaced")
    if replaced.exists() and not raw.exists():
        os.replace(replaced, raw)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(_beside(raw, "incoming"), ignore_errors=True)


def _beside(raw: Path, purpose: str) -> Path:
    return raw.parent / f".{raw.name}.{purpose}"


def _holds_files(raw: Path) -> bool:
    """Whether there is anything but hidden files such as `.gitignore`."""
    return raw.is_dir() and any(not path.name.startswith(".") for path in raw.rglob("*"))
