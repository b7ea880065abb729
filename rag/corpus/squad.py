"""SQuAD JSON, version 1 or 2: every paragraph becomes a document, every article a group.

`answer_start` is not used: it is wrong in some published sets, and an answer is searched in its
paragraph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rag.corpus.files import CorpusFile
from rag.corpus.problems import Problem, Unreadable
from rag.corpus.questions import RawQuestion, decode_json, parse_row
from rag.corpus.text import language_of, plain_text
from rag.records import Document

_RESERVED = ("id", "question", "answers", "is_impossible", "plausible_answers")


def read_squad(file: CorpusFile) -> tuple[list[Document], list[RawQuestion], list[Problem]]:
    """The documents and questions of a SQuAD file, and what is wrong in it. Raises Unreadable.

    Documents are named `<file stem>/<article title>#<paragraph number>`, numbers from 0; where two
    articles have one title the numbers run on. `metadata["group"]` is the article.
    """
    tree = decode_json(file.read_text())
    articles = tree.get("data") if isinstance(tree, dict) else None
    if not isinstance(articles, list):
        raise Unreadable("expected SQuAD JSON: an object with a list 'data' of articles")
    documents: list[Document] = []
    questions: list[RawQuestion] = []
    problems: list[Problem] = []
    numbers: Counter[str] = Counter()
    for index, article in enumerate(articles):
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            problems.append(
                Problem(file.name, None, f"data[{index}]: expected an article with 'paragraphs'")
            )
            continue
        title = str(article.get("title") or f"article {index}")
        for position, paragraph in enumerate(article["paragraphs"]):
            place = f"data[{index}].paragraphs[{position}]"
            number = numbers[title]
            numbers[title] += 1
            context = paragraph.get("context") if isinstance(paragraph, dict) else None
            if not isinstance(context, str) or not context.strip():
                reason = f"{place}: expected a 'context' that is not empty"
                problems.append(Problem(file.name, None, reason, paragraph))
                continue
            document = _document(file, title, number, context)
            documents.append(document)
            asked = paragraph.get("qas") or []
            if not isinstance(asked, list):
                problems.append(Problem(file.name, None, f"{place}: 'qas' must be a list", asked))
                continue
            for order, item in enumerate(asked):
                question = _question(file, f"{place}.qas[{order}]", document.document_id, item)
                if isinstance(question, RawQuestion):
                    questions.append(question)
                else:
                    problems += question
    return documents, questions, problems


def _document(file: CorpusFile, title: str, number: int, context: str) -> Document:
    text = plain_text(context)
    return Document(
        document_id=f"{file.stem}/{title}#{number}",
        title=" ".join(title.replace("_", " ").split()),
        text=text,
        source=file.name,
        language=language_of(text),
        metadata={"group": title},
    )


def _question(
    file: CorpusFile, place: str, document_id: str, item: Any
) -> RawQuestion | list[Problem]:
    if not isinstance(item, dict):
        return [Problem(file.name, None, f"{place}: expected an object", item)]
    impossible = item.get("is_impossible", False)
    answers = item.get("answers") or []
    if isinstance(answers, list):  # anything else is reported as it is
        answers = [entry.get("text") if isinstance(entry, Mapping) else entry for entry in answers]
    row = {
        **{key: value for key, value in item.items() if key not in _RESERVED},
        "id": item.get("id"),
        "question": item.get("question"),
        "answers": answers,
        "document": document_id,
        "answerable": not impossible if isinstance(impossible, bool) else impossible,
    }
    question = parse_row(row, file.name, None)
    if isinstance(question, RawQuestion):
        return question
    return [Problem(file.name, None, f"{place}: {fault.reason}", item) for fault in question]
