"""Documents from their files: Markdown, plain text, HTML, PDF and Word."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from rag.corpus.files import CorpusFile
from rag.corpus.problems import Unreadable
from rag.corpus.text import language_of, plain_text
from rag.records import Document

_HEADING = re.compile(r"#\s+(\S.*?)\s*#*\s*$")
# fmt: off
_BLOCKS = [
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
    "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tr", "ul",
]
# fmt: on


def read_document(file: CorpusFile) -> Document:
    """Reads one document file. Raises Unreadable where it is damaged or holds no text.

    The title of a Markdown document is its first `# heading`, which also is the first line of its
    text; of HTML its `<title>`, of Word its first title paragraph or heading, else the file's
    stem.
    """
    readers: dict[str, Callable[[CorpusFile], tuple[str, str]]] = {
        ".md": _markdown,
        ".html": _html,
        ".htm": _html,
        ".pdf": _pdf,
        ".docx": _word,
        ".txt": _plain,
    }
    title, text = readers[file.suffix](file)
    if not text or text == title:
        scanned = " (a scanned PDF has to go through text recognition first)"
        raise Unreadable("the document has no text" + (scanned if file.suffix == ".pdf" else ""))
    document_id = file.document_id or file.name
    return Document(
        document_id=document_id,
        title=" ".join(title.split()) or PurePosixPath(file.stem).name,
        text=text,
        source=document_id,
        language=language_of(text),
    )


def _plain(file: CorpusFile) -> tuple[str, str]:
    return "", plain_text(file.read_text())


def _markdown(file: CorpusFile) -> tuple[str, str]:
    lines = file.read_text().splitlines()
    fenced = False
    for number, line in enumerate(lines):
        fenced = fenced != line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _HEADING.match(line)
        if heading:
            title = plain_text(heading[1])
            before, after = "\n".join(lines[:number]), "\n".join(lines[number + 1 :])
            body = plain_text(f"{before}\n\n{after}")
            return title, f"{title}\n\n{body}" if body else title
    return "", plain_text("\n".join(lines))


def _html(file: CorpusFile) -> tuple[str, str]:
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString

    soup = BeautifulSoup(file.read_text(), "html.parser")
    title = soup.title.get_text() if soup.title else ""
    if not title.strip():
        heading = soup.find("h1")
        title = heading.get_text() if heading else ""
    for tag in soup.find_all(["head", "title", "script", "style", "noscript", "template"]):
        tag.decompose()
    for string in list(soup.find_all(string=True)):
        if type(string) is not NavigableString:  # comments, doctypes
            string.extract()
        elif string.find_parent("pre") is None:
            string.replace_with(re.sub(r"\s+", " ", string))
    for tag in soup.find_all("br"):
        tag.replace_with("\n")
    for tag in soup.find_all(["td", "th"]):
        tag.append(" ")
    for tag in soup.find_all(_BLOCKS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
    return plain_text(title), plain_text(soup.get_text())


def _pdf(file: CorpusFile) -> tuple[str, str]:
    from pypdf import PdfReader

    data = file.read_bytes()
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is protected by a password")
        pages = [page.extract_text() for page in reader.pages]
        title = (reader.metadata.title if reader.metadata else None) or ""
    except Unreadable:
        raise
    except Exception as error:  # damaged files make the library raise almost anything
        raise Unreadable(f"not a readable PDF: {type(error).__name__}: {error}") from error
    return plain_text(title), plain_text("\n\n".join(pages))


def _word(file: CorpusFile) -> tuple[str, str]:
    from docx import Document as open_word

    data = file.read_bytes()
    try:
        word = open_word(io.BytesIO(data))
        blocks = list(_word_blocks(word))
    except Exception as error:  # damaged files make the library raise almost anything
        raise Unreadable(f"not a readable Word file: {type(error).__name__}: {error}") from error
    title = next((text for style, text in blocks if style in ("Title", "Heading 1")), "")
    return plain_text(title), plain_text("\n\n".join(text for _, text in blocks))


def _word_blocks(word: Any) -> Iterator[tuple[str, str]]:
    """(style, text) of the paragraphs and table rows, in the order of the page."""
    from docx.table import Table

    for block in word.iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                yield "Table", " | ".join(dict.fromkeys(cell.text for cell in row.cells))
        elif block.text.strip():
            yield block.style.name if block.style else "", block.text
