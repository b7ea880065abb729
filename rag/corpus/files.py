"""The files of a corpus: which there are, what each is, and their bytes, unpacked and decoded."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rag.corpus.problems import Unreadable

DOCUMENT_SUFFIXES = (".md", ".txt", ".html", ".htm", ".pdf", ".docx")
QUESTION_SUFFIXES = (".jsonl", ".csv", ".parquet", ".json")
PACKED_SUFFIXES = (".gz", ".xz")
DOCUMENTS_FOLDER = "documents"


@dataclass(frozen=True)
class CorpusFile:
    """A file to read. `name` is its path below the corpus, with forward slashes.

    `suffix` is lower case and without packing: ".json" for `squad.json.xz`.
    """

    path: Path
    name: str
    suffix: str
    document_id: str | None

    @property
    def stem(self) -> str:
        """The file's name without folder, packing and suffix."""
        name = PurePosixPath(self.name).name
        for suffix in (*PACKED_SUFFIXES, self.suffix):
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
        return name

    def read_bytes(self) -> bytes:
        """The contents, unpacked. Raises Unreadable where there are none or they are damaged."""
        packing = next((s for s in PACKED_SUFFIXES if self.name.lower().endswith(s)), "")
        try:
            data = self.path.read_bytes()
            if packing == ".gz":
                data = gzip.decompress(data) if data else data
            elif packing == ".xz":
                data = lzma.decompress(data) if data else data
        except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
            raise Unreadable(f"not a valid {packing} file: {error}") from None
        except OSError as error:
            raise Unreadable(f"cannot be read: {error.strerror}") from None
        if not data.strip():
            raise Unreadable("the file is empty")
        return data

    def read_text(self) -> str:
        """The contents as text. Raises Unreadable, with the byte offset, where it is not UTF-8."""
        data = self.read_bytes()
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # offsets of the utf-8-sig codec do not count the byte order mark
            offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
            raise Unreadable(
                f"not UTF-8: byte 0x{data[offset]:02x} at offset {offset}; save the file as UTF-8",
                line=data.count(b"\n", 0, offset) + 1,
            ) from None


def find_files(path: Path) -> tuple[list[CorpusFile], list[str]]:
    """The files of a corpus in the order of their names, and the names of those that are not read.

    `path` is one file or a folder. Where the folder has a folder `documents/`, documents are taken
    from there alone and their ids are relative to it. Hidden files (`.gitignore`) count as absent.
    """
    if path.is_file():
        names = [path.name]
        root = path.parent
    else:
        root = path
        names = sorted(_names_below(path))
    rooted = any(name.startswith(f"{DOCUMENTS_FOLDER}/") for name in names)
    files, ignored = [], []
    for name in names:
        suffix = _suffix(name)
        if suffix in QUESTION_SUFFIXES:
            files.append(CorpusFile(root / name, name, suffix, None))
        elif suffix in DOCUMENT_SUFFIXES and (
            not rooted or name.startswith(f"{DOCUMENTS_FOLDER}/")
        ):
            document_id = name.removeprefix(f"{DOCUMENTS_FOLDER}/")
            files.append(CorpusFile(root / name, name, suffix, document_id))
        else:
            ignored.append(name)
    return files, ignored


def _names_below(root: Path) -> list[str]:
    names = []
    for folder, folders, files in os.walk(root):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # a linked folder is not followed (it may lead in a circle): it is listed as not read
        for name in files + linked:
            if not name.startswith("."):
                names.append(Path(folder, name).relative_to(root).as_posix())
    return names


def _suffix(name: str) -> str:
    plain = name.lower()
    for packing in PACKED_SUFFIXES:
        plain = plain.removesuffix(packing)
    return PurePosixPath(plain).suffix
