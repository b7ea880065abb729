"""BLEU and ROUGE against sacrebleu and rouge_score on random texts, to 1e-9."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from rag.evaluation.bleu import bleu_of, bleu_statistics, bleu_tokenizer, corpus_bleu
from rag.evaluation.normalize import text_tokens
from rag.evaluation.rouge import ROUGE_TYPES, rouge_scores
from rag.evaluation.token_counts import BLOCK

LATIN = [
    "the",
    "a",
    "An",
    "sailing",
    "sailed",
    "sails",
    "sea-eagle",
    "harbour's",
    "",
    "daily,",
    "9:30",
    "$1,000.50",
    "U.S.",
    "(or",
]
LATIN += [
    "more)",
    "&quot;yes&quot;",
    "R&D",
    "3.14",
    "<skipped>",
    "end.",
    "well-",
    "known",
    "5-6",
    "\t",
    "naïve",
    "café",
    "don’t",
]
SCRIPTS = {
    "13a": LATIN,
    "zh": [*"北京是中国的首都大学。，", "iPhone", "2019", "3.14", "（a）"],
    "char": [*"東京は首都です。サウル서울은수도이다", "กรุง", "abc", "12"],
}
Corpus = tuple[list[str], list[list[str]]]


def random_corpus(seed: int, size: int, words: Sequence[str], *, glue: str = " ") -> Corpus:
    """One to four references an example; predictions copied, shuffled, edited, empty or other."""
    generator = random.Random(seed)

    def sentence() -> str:
        return glue.join(generator.choices(words, k=generator.randint(1, 14)))

    def guess(answer: str) -> str:
        parts = answer.split(glue) if glue else list(answer)
        generator.shuffle(parts)
        edited = glue.join(parts[: generator.randint(1, 14)])
        return generator.choice([answer, edited, sentence(), "", f"{answer}{glue}{sentence()}"])

    references = [[sentence() for _ in range(generator.randint(1, 4))] for _ in range(size)]
    return [guess(generator.choice(accepted)) for accepted in references], references


def in_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """sacrebleu's nesting: by reference, then by example, None where there is no such reference."""
    most = max(map(len, references))
    return [[each[n] if n < len(each) else None for each in references] for n in range(most)]


def with_script(name: str, seed: int) -> Corpus:
    """A corpus that `bleu_tokenizer` gives to one tokenizer."""
    predictions, references = random_corpus(
        seed, 60, SCRIPTS[name], glue=" " if name == "13a" else ""
    )
    mark = {"13a": "", "zh": "北", "char": "は"}[name]
    references = [[f"{mark}{accepted[0]}", *accepted[1:]] for accepted in references]
    kept = [row for row, each in enumerate(references) if bleu_tokenizer(each) == name]
    assert len(kept) > 30
    return [predictions[row] for row in kept], [references[row] for row in kept]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tokenizer", SCRIPTS)
def test_bleu_of_each_script_is_that_of_sacrebleu(tokenizer: str, seed: int) -> None:
    predictions, references = with_script(tokenizer, seed)
    theirs = BLEU(tokenize=tokenizer, force=True).corpus_score(predictions, in_streams(references))
    assert corpus_bleu(predictions, references) == pytest.approx(theirs.score, abs=1e-9)
    sums = bleu_statistics(predictions, references).sum(axis=0)
    counted = [theirs.sys_len, theirs.ref_len, *theirs.counts, *theirs.totals]
    assert sums.tolist() == counted


@pytest.mark.parametrize("seed", range(3))
def test_every_example_has_the_counts_of_sacrebleu(seed: int) -> None:
    parts = [with_script(name, seed) for name in SCRIPTS]
    predictions = [text for part in parts for text in part[0]]
    references = [accepted for part in parts for accepted in part[1]]
    counts = bleu_statistics(predictions, references)
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        scorer = BLEU(tokenize=bleu_tokenizer(accepted), effective_order=True)
        score = scorer.sentence_score(prediction, accepted)
        assert counts[row].tolist() == [score.sys_len, score.ref_len, *score.counts, *score.totals]
        assert bleu_of(counts[row : row + 1])[0] == pytest.approx(score.score, abs=1e-9)


def test_a_mixed_corpus_is_the_sum_of_its_scripts() -> None:
    parts = [with_script(name, 5) for name in SCRIPTS]
    whole = corpus_bleu(
        [t for part in parts for t in part[0]], [a for part in parts for a in part[1]]
    )
    scores = [
        BLEU(tokenize=name, force=True).corpus_score(part[0], in_streams(part[1]))
        for name, part in zip(SCRIPTS, parts, strict=True)
    ]
    together = BLEU.compute_bleu(
        correct=np.sum([score.counts for score in scores], axis=0).tolist(),
        total=np.sum([score.totals for score in scores], axis=0).tolist(),
        sys_len=sum(score.sys_len for score in scores),
        ref_len=sum(score.ref_len for score in scores),
        smooth_method="exp",
    )
    assert whole == pytest.approx(together.score, abs=1e-9)


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rouge_of_ascii_is_that_of_rouge_score(seed: int, stem: bool) -> None:
    words = [word for word in LATIN if word.isascii() and word.strip()]
    predictions, references = random_corpus(seed, 80, words)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=stem)
    ours = rouge_scores(predictions, references, stem=stem)
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        theirs = scorer.score_multi(accepted, prediction)
        for kind in ROUGE_TYPES:
            assert ours[kind][row] == pytest.approx(theirs[kind].fmeasure, abs=1e-9)


class _OurTokens:
    """rouge_score's counting over the tokens of our policy."""

    def tokenize(self, text: str) -> list[str]:
        return text_tokens(text)


@pytest.mark.parametrize("seed", range(3))
def test_rouge_of_any_script_counts_as_rouge_score_does(seed: int) -> None:
    words = [word for script in SCRIPTS.values() for word in script]
    predictions, references = random_corpus(seed, 80, words, glue=" " if seed else "")
    scorer = RougeScorer(list(ROUGE_TYPES), tokenizer=_OurTokens())
    ours = rouge_scores(predictions, references)
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        if not all(map(text_tokens, [prediction, *accepted])):
            continue  # nothing against nothing is 1 here
        theirs = scorer.score_multi(accepted, prediction)
        for kind in ROUGE_TYPES:
            assert ours[kind][row] == pytest.approx(theirs[kind].fmeasure, abs=1e-9)


def test_blocks_have_no_seam() -> None:
    """More examples than one block: each scores as it does alone."""
    predictions, references = random_corpus(9, 50, LATIN)
    times = BLOCK // 50 + 2
    many = rouge_scores(predictions * times, references * times)
    counts = bleu_statistics(predictions * times, references * times)
    assert (counts.reshape(times, 50, -1) == bleu_statistics(predictions, references)).all()
    for kind, scores in rouge_scores(predictions, references).items():
        assert (many[kind].reshape(times, 50) == scores).all()
