"""How well the demo's passages are found: dense, BM25 and hybrid search on dev and test questions.

    python benchmarks/retrieval_demo.py
    python benchmarks/retrieval_demo.py --set retriever.mode=query

The stages run in a temporary folder, as params.yaml says; nothing of the checkout changes. A hit is
a passage of the gold document that holds a gold answer. The hybrid's weight was chosen on dev, so
only its test row is an honest score.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rag.artifacts import Artifacts
from rag.evaluation.ranking import recall_at, reciprocal_rank
from rag.finetune.retriever import REPORT
from rag.params import Params, load_params
from rag.reading.answerer import load_retriever
from rag.records import Passage, Question, Split, read_questions
from rag.retrieval.fusion import Fusion, FusionRule
from rag.retrieval.relevance import has_gold, is_relevant
from rag.stages import run_stage

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("prepare", "chunk", "train_retriever", "embed", "retrieve")
SPLITS: Sequence[Split] = ("dev", "test")
CUTOFFS = (1, 5, 20)


def main() -> None:
    """Prints one row for each split and search, and before them what tuning came to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    params = load_params(ROOT / "params.yaml", parser.parse_args().set)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Artifacts(Path(folder))
        shutil.copytree(Artifacts(ROOT).demo, artifacts.raw)
        for stage in STAGES:
            run_stage(stage, params, artifacts)
        if params.retriever.mode != "none":
            print((artifacts.query_encoder / REPORT).read_text(encoding="utf-8"))
        print_scores(params, artifacts)


def print_scores(params: Params, artifacts: Artifacts) -> None:
    hybrid = Fusion.read(artifacts.fusion)
    shares = ", ".join(
        f"{language} {rule.method} {rule.dense_weight:g}"
        for language, rule in sorted(hybrid.rules.items())
    )
    searches = {
        "dense": Fusion({"default": FusionRule(1.0)}),
        "BM25": Fusion({"default": FusionRule(0.0)}),
        f"hybrid, {shares}": hybrid,
    }
    retriever = load_retriever(artifacts, params)
    limit = params.retrieve.candidates
    headings = "".join(f"  recall@{cutoff:<2}" for cutoff in CUTOFFS)
    print(f"{'split':<5} {'questions':>9}{headings}     MRR  search")
    for split in SPLITS:
        questions = [q for q in read_questions(artifacts.questions, split) if has_gold(q)]
        texts = [question.text for question in questions]
        languages = [question.language for question in questions]
        candidates = retriever.candidates(texts)
        for name, fusion in searches.items():
            ranked = [
                relevance(question, passages)
                for question, passages in zip(
                    questions,
                    retriever.ranked(texts, candidates, languages, limit, fusion=fusion),
                    strict=True,
                )
            ]
            recalls = "".join(
                f"{mean([recall_at(row, cutoff) for row in ranked]):>11.3f}" for cutoff in CUTOFFS
            )
            mrr = mean([reciprocal_rank(row) for row in ranked])
            print(f"{split:<5} {len(questions):>9}{recalls}{mrr:>8.3f}  {name}")
    retriever.close()


def relevance(question: Question, passages: Sequence[Passage]) -> list[bool]:
    """Whether the passage at each rank is relevant, best first."""
    return [is_relevant(passage.text, passage.document_id, question) for passage in passages]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
