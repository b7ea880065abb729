"""What a release's card is written from, gathered from the files of the run that made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag.artifacts import Artifacts
from rag.params import Params
from rag.reading.reader import read_manifest, reading_facts
from rag.records import SPLITS, read_table


@dataclass(frozen=True)
class CardFacts:
    """Everything a card is written from.

    `metrics` is metrics.json, with the champion's numbers where there was one; `decision` the
    gate's record; `lineage` the version's tags; `reading` how the reader reads; `data` what
    `data_counts` found, None where the tables of questions are not at hand.
    """

    params: Params
    metrics: Mapping[str, Any]
    decision: Mapping[str, Any] | None
    lineage: Mapping[str, str]
    reading: Mapping[str, str]
    version: str
    abstain_below: float | None = None
    base_sha256: str | None = None
    data: Mapping[str, Any] | None = None


def card_facts(
    artifacts: Artifacts,
    params: Params,
    metrics: Mapping[str, Any],
    *,
    decision: Mapping[str, Any] | None,
    lineage: Mapping[str, str],
    version: str,
) -> CardFacts:
    """The facts of a release that the project's files hold at this moment."""
    manifest = read_manifest(artifacts.reader)
    return CardFacts(
        params=params,
        metrics=metrics,
        decision=decision,
        lineage=lineage,
        reading=reading_facts(params.reader, manifest),
        version=version,
        abstain_below=manifest.get("abstain_below"),
        base_sha256=manifest.get("sha256"),
        data=data_counts(artifacts),
    )


def data_counts(artifacts: Artifacts) -> dict[str, Any] | None:
    """`{"documents": {language: count}, "questions": {split: {"all", "unanswerable"}}}`.

    None where there are no prepared tables: the release was made elsewhere.
    """
    if not (artifacts.documents.exists() and artifacts.questions.exists()):
        return None
    languages = Counter(read_table(artifacts.documents)["language"].to_pylist())
    questions = read_table(artifacts.questions)
    rows = list(
        zip(questions["split"].to_pylist(), questions["answerable"].to_pylist(), strict=True)
    )
    return {
        "documents": dict(languages.most_common()),
        "questions": {
            split: {
                "all": sum(of == split for of, _ in rows),
                "unanswerable": sum(of == split and not answerable for of, answerable in rows),
            }
            for split in SPLITS
        },
    }
