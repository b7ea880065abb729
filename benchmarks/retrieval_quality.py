"""Retrieval quality on articles not seen in training: dense, BM25, RRF, hybrid, tuned.

    python benchmarks/retrieval_quality.py --data DATA
    python benchmarks/retrieval_quality.py --data DATA --sets squad --modes none,full

Every paragraph of a set is in the corpus; articles are split in the files' order: the last ones are
test, as many before them dev, the rest train. What a user would run is run: the stages chunk,
train_retriever, embed and retrieve with params.yaml (and `--set`), in a temporary folder. A passage
is a hit where it is of the paragraph that the question was asked of. `--state` keeps vectors,
indexes and checkpoints from one call to the next.

hybrid          the fusion that the retrieve stage chose on dev
RRF             reciprocal ranks of both searches, k = 60, equal weights: the peer's usual choice
tuned (MODE)    retriever.mode query or full, trained on the train articles
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag.artifacts import Artifacts
from rag.corpus.reader import read_corpus
from rag.corpus.text import language_of
from rag.evaluation.ranking import recall_at, reciprocal_rank
from rag.evaluation.statistics import paired_bootstrap
from rag.params import Params, load_params
from rag.reading.answerer import load_retriever
from rag.records import DOCUMENTS, QUESTIONS, Question, Split, read_questions, write_table
from rag.retrieval.fusion import Fusion, FusionRule
from rag.stages import run_stage

ROOT = Path(__file__).resolve().parent.parent
CUTOFFS = (1, 5, 20)
METRICS = (*(f"recall@{cutoff}" for cutoff in CUTOFFS), "MRR")
#: Metrics for which the hybrid is compared with its parts.
COMPARED = ("recall@1", "MRR")
STAGES = ("chunk", "train_retriever", "embed", "retrieve")

Scores = Mapping[str, npt.NDArray[np.float64]]
"""Metric -> one value a question, (N,)."""


@dataclass(frozen=True)
class DataSet:
    """Files below the data folder, and the articles of test (and of dev): a count or a share."""

    files: tuple[str, ...]
    held_out: int | float


SETS = {
    "squad": DataSet(("squad_en/squad-v1.1-36-articles.json.xz",), 6),
    "xquad": DataSet(("xquad/xquad.zh.json.xz",), 6),
    "cmrc": DataSet(
        ("cmrc_zh/cmrc2018_trial.squad.json.xz", "cmrc_zh/train-pseudo-cmrc2018.squad.json.xz"),
        0.15,  # its articles have one paragraph each
    ),
}


def main() -> None:
    """Prints the tables of each set, as Markdown."""
    options = _options()
    params = load_params(ROOT / "params.yaml", options.set)
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            artifacts = Artifacts(Path(folder), options.state and options.state / name)
            articles = prepare(SETS[name], options.data, artifacts, options.limit)
            _report_set(name, articles, params, artifacts, options.modes)


def _report_set(
    name: str,
    articles: Mapping[str, str],
    params: Params,
    artifacts: Artifacts,
    modes: Sequence[str],
) -> None:
    counts = {split: len(read_questions(artifacts.questions, split)) for split in _SPLITS}
    print(f"\n### {name}: {len(articles)} paragraphs, questions {counts}\n", flush=True)
    test = read_questions(artifacts.questions, "test")
    clusters = [articles[str(question.document_id)] for question in test]
    rows: dict[str, Scores] = {}
    rules = {}
    for mode in modes:
        retriever = params.retriever.model_copy(update={"mode": mode})
        tuned = params.model_copy(update={"retriever": retriever})
        for stage in STAGES:
            run_stage(stage, tuned, artifacts)
        label = "" if mode == "none" else f", tuned ({mode})"
        found, rule = search(tuned, artifacts, test)
        rules[mode] = rule
        rows |= {f"{search_name}{label}": scores for search_name, scores in found.items()}
    _print_scores(rows)
    _print_differences(rows, modes, clusters, params)
    for mode, rule in rules.items():
        print(f"- fusion chosen on dev, mode {mode}: {rule}")


_SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def prepare(
    data_set: DataSet, data: Path, artifacts: Artifacts, limit: int | None
) -> dict[str, str]:
    """Writes documents and questions, split by article; returns the article of each paragraph."""
    incoming = artifacts.root / "incoming"
    incoming.mkdir(parents=True)
    for file in data_set.files:
        shutil.copy(data / file, incoming)
    corpus = read_corpus(incoming)
    for problem in corpus.problems:
        print(f"left out: {problem}", file=sys.stderr)
    article_of = {item.document_id: str(item.metadata["group"]) for item in corpus.documents}
    articles = _titles([data / file for file in data_set.files])
    held_out = data_set.held_out
    size = held_out if isinstance(held_out, int) else round(held_out * len(articles))
    split_of: dict[str, Split] = dict.fromkeys(articles, "train")
    split_of |= dict.fromkeys(articles[-2 * size : -size], "dev")
    split_of |= dict.fromkeys(articles[-size:], "test")
    questions = [
        Question(
            question_id=raw.question_id,
            text=raw.text,
            answers=raw.answers,
            document_id=raw.document_id,
            answerable=raw.answerable,
            split=split_of[article_of[str(raw.document_id)]],
            language=language_of(raw.text),
        )
        for raw in corpus.questions
    ]
    kept = [
        question
        for split in _SPLITS
        for question in _spread([item for item in questions if item.split == split], limit)
    ]
    write_table(corpus.documents, DOCUMENTS, artifacts.documents)
    write_table(kept, QUESTIONS, artifacts.questions)
    return article_of


def _titles(files: Sequence[Path]) -> list[str]:
    """The articles in the files' order."""
    trees = [json.loads(lzma.decompress(file.read_bytes())) for file in files]
    return list(dict.fromkeys(article["title"] for tree in trees for article in tree["data"]))


def _spread(questions: Sequence[Question], limit: int | None) -> Sequence[Question]:
    """At most `limit` of them, at equal distances."""
    if limit is None or len(questions) <= limit:
        return questions
    return [questions[i * len(questions) // limit] for i in range(limit)]


def search(
    params: Params, artifacts: Artifacts, questions: Sequence[Question]
) -> tuple[dict[str, Scores], str]:
    """Each search's scores on these questions, and the hybrid's rules in words."""
    hybrid = Fusion.read(artifacts.fusion)
    searches = {
        "dense": Fusion({"default": FusionRule(1.0)}),
        "BM25": Fusion({"default": FusionRule(0.0)}),
        "RRF": Fusion({"default": FusionRule(0.5, "rrf")}),
        "hybrid": hybrid,
    }
    # The reranker, where params name one, is left out: it would hide what fusion does.
    retrieve = params.retrieve.model_copy(
        update={"rerank": params.retrieve.rerank.model_copy(update={"model": None})}
    )
    retriever = load_retriever(artifacts, params.model_copy(update={"retrieve": retrieve}))
    texts = [question.text for question in questions]
    languages = [question.language for question in questions]
    candidates = retriever.candidates(texts)
    limit = 2 * params.retrieve.candidates
    scores = {}
    for name, fusion in searches.items():
        ranked = retriever.ranked(texts, candidates, languages, limit, fusion=fusion)
        relevant = [
            [passage.document_id == question.document_id for passage in passages]
            for question, passages in zip(questions, ranked, strict=True)
        ]
        scores[name] = _scores(relevant)
    retriever.close()
    rules = (
        f"{language} {rule.method}, dense weight {rule.dense_weight:g}"
        for language, rule in sorted(hybrid.rules.items())
    )
    return scores, "; ".join(rules)


def _scores(relevant: Sequence[Sequence[bool]]) -> Scores:
    columns = {
        f"recall@{cutoff}": [recall_at(row, cutoff) for row in relevant] for cutoff in CUTOFFS
    }
    columns["MRR"] = [reciprocal_rank(row) for row in relevant]
    return {name: np.array(values) for name, values in columns.items()}


def _print_scores(rows: Mapping[str, Scores]) -> None:
    print(f"| search | {' | '.join(METRICS)} |")
    print(f"|---|{'---:|' * len(METRICS)}")
    for name, scores in rows.items():
        if name.startswith(("BM25,", "RRF,")):
            continue  # BM25 is the same in every mode
        values = " | ".join(f"{100 * scores[metric].mean():.1f}" for metric in METRICS)
        print(f"| {name} | {values} |")


def _print_differences(
    rows: Mapping[str, Scores], modes: Sequence[str], clusters: Sequence[str], params: Params
) -> None:
    """Differences in points, with the interval of a bootstrap over articles."""
    pairs = []
    for mode in modes:
        label = "" if mode == "none" else f", tuned ({mode})"
        pairs.append((f"hybrid{label}", "better part", [f"dense{label}", f"BM25{label}"]))
        if mode != "none" and "none" in modes:
            pairs += [
                (f"{name}{label}", f"{name}, untuned", [name]) for name in ("dense", "hybrid")
            ]
    print(f"\n| difference | {' | '.join(COMPARED)} |")
    print(f"|---|{'---|' * len(COMPARED)}")
    for first, second, parts in pairs:
        cells = []
        for metric in COMPARED:
            other = max((rows[part][metric] for part in parts), key=lambda values: values.mean())
            interval = paired_bootstrap(
                rows[first][metric],
                other,
                clusters,
                resamples=params.evaluate.resamples,
                confidence=params.evaluate.confidence,
                seed=params.seed,
            )
            low, value, high = (100 * end for end in (interval.low, interval.value, interval.high))
            cells.append(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]")
        print(f"| {first} - {second} | {' | '.join(cells)} |")
    print()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--sets", type=_names(SETS), default=list(SETS), help="squad,xquad,cmrc")
    modes = ("none", "query", "full")
    parser.add_argument("--modes", type=_names(modes), default=list(modes), help="none,query,full")
    parser.add_argument("--limit", type=int, help="questions of each split, for a trial")
    parser.add_argument("--state", type=Path, help="folder that keeps vectors and checkpoints")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    main()
