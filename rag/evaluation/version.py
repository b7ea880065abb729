"""The version of the scoring rules: scores are compared only where it is the same.

`METRICS_VERSION` is `<number>-<hash>`: the number counts changes that were made on purpose, the
hash is that of a frozen set of answers scored by today's code and libraries. Where a rule changes,
or a library scores otherwise, the hash does, and tables from before are not compared with tables
from after. A test holds the constant to what the code gives. To change a rule on purpose: raise
RULES, add a probe that shows the change, and put in the hash that the failing test prints.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence

from rag.errors import MetricError

RULES = 1
PROBES_HASH = "6086e6ec64b6"
METRICS_VERSION = f"{RULES}-{PROBES_HASH}"

#: Decimals that must agree: more would be those of a machine.
_DECIMALS = 6

#: (prediction, accepted answers): the traps of every script, right, nearly right and wrong.
PROBES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The Sea Eagle", ("Sea Eagle", "the Eagle")),
    ("“Sea Eagle”", ('"Sea Eagle"',)),
    ("Eagle of the Sea", ("Sea Eagle",)),
    ("in the year 2019, in May", ("2019",)),
    ("2019", ("1",)),
    ("A", ("A",)),
    ("a", ("the",)),
    ("?", ("?",)),
    ("", ()),
    ("the master", ()),
    ("", ("the master",)),
    ("1,240 tonnes", ("1240 tonnes", "1,240 t")),
    ("up to fifteen centimetres of level ice", ("15 centimetres", "up to fifteen centimetres")),
    ("state-of-the-art", ("state of the art",)),
    ("ﬁrst ﬂoor", ("first floor",)),
    ("café", ("cafe\u0301",)),
    ("北京。", ("北京",)),
    ("北京市海淀区", ("北京市", "海淀区")),
    ("2019年 iPhone手机", ("2019年iPhone手机",)),
    ("東京タワーです", ("東京タワー",)),
    ("서울에서", ("서울",)),
    ("Москва, столица", ("Москва",)),
    ("القاهرة", ("القاهرة", "مدينة القاهرة")),
    ("กรุงเทพ", ("กรุงเทพมหานคร",)),
    ("the master of the ship is the master", ("the ship's master",)),
)
#: Which passages are relevant, best rank first.
_RANKINGS: tuple[tuple[bool, ...], ...] = (
    (True, False),
    (False, True, False, True),
    (False, False, False, False, False, True),
    (False,),
    (),
)
#: Passages that an answer was read from, and how likely it came from each.
_EVIDENCE: tuple[tuple[tuple[str, ...], tuple[float | None, ...]], ...] = (
    (("The Sea Eagle sails.", "No ship."), (None, None)),
    (("The Sea Eagle sails.", "No ship."), (0.2, 0.8)),
    (("No ship.", "The Sea Eagle sails."), (0.2, 0.8)),
    ((), ()),
)


@functools.cache
def metrics_version() -> str:
    """The version of the rules as this code with these libraries scores the probes."""
    return f"{RULES}-{probes_hash(PROBES)}"


def probes_hash(probes: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A hash of every score of these probes, and of rankings and evidence: 12 hex digits."""
    from rag.evaluation.answer_scores import exact_match, token_f1
    from rag.evaluation.bleu import bleu_statistics, corpus_bleu
    from rag.evaluation.chrf import chrf, corpus_chrf
    from rag.evaluation.evidence import evidence_exact_match
    from rag.evaluation.ranking import CUTOFFS, precision_at, recall_at, reciprocal_rank
    from rag.evaluation.rouge import rouge

    scores: list[float] = []
    for prediction, answers in probes:
        scores += [exact_match(prediction, answers), token_f1(prediction, answers)]
        scores += [*rouge(prediction, answers).values(), chrf(prediction, answers)]
    texts = [(prediction, answers) for prediction, answers in probes if answers]
    predictions, references = [text for text, _ in texts], [list(gold) for _, gold in texts]
    scores += bleu_statistics(predictions, references).ravel().tolist()
    scores += [corpus_bleu(predictions, references), corpus_chrf(predictions, references)]
    for relevant in _RANKINGS:
        scores += [measure(relevant, k) for k in CUTOFFS for measure in (recall_at, precision_at)]
        scores.append(reciprocal_rank(relevant))
    for passages, posteriors in _EVIDENCE:
        for prediction in ("Sea Eagle", "ship", ""):
            scores.append(evidence_exact_match(prediction, ("Sea Eagle",), passages, posteriors))
    text = json.dumps([round(score, _DECIMALS) + 0.0 for score in scores])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def one_version(versions: Sequence[str | None]) -> str:
    """The version that all of these are, in words where rows carry none.

    Raises MetricError that names two of them where they differ.
    """
    found = sorted({version or "unknown" for version in versions})
    if len(found) > 1:
        raise MetricError(
            f"scores by different rules cannot be compared: metrics_version {found[0]} and "
            f"{found[1]}; score both again with one version of the code: ragloop run --force"
        )
    return found[0]
