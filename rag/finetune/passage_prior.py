"""p(z|x) as a tuned reader sees it: how likely a passage makes the question counts as well.

The reader's log p(x|z) depends on its weights, so both are weighed when these are final, on dev.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.finetune.examples import ReadingExample, judged_passages
from rag.params import ReaderParams
from rag.reading.causal import CausalReader
from rag.reading.marginal import calibrated_prior


def weigh_questions(
    reader: CausalReader, settings: ReaderParams, examples: Sequence[ReadingExample]
) -> dict[str, float]:
    """Calibrates the reader's p(z|x) on these questions; from here on it answers by it.

    Returns `prior_temperature` and `query_likelihood`, the weight of log p(x|z): what params say,
    or what names a right passage best.
    """
    judged = judged_passages(examples, settings.passages)
    if settings.query_likelihood != "auto":
        reader.query_likelihood = settings.query_likelihood
    elif judged.examples:
        table = reader.query_log_likelihood(
            [example.question.text for example in judged.examples],
            [example.passages for example in judged.examples],
        ).astype(np.float64)
        likelihoods = [row[: len(own)] for row, own in zip(table, judged.scores, strict=True)]
        given = settings.prior_temperature
        temperature, weight = calibrated_prior(
            judged.scores,
            likelihoods,
            judged.right,
            temperature=None if given == "auto" else given,
        )
        reader.prior_temperature = round(temperature, 6)
        reader.query_likelihood = round(weight, 6)
    return {
        "prior_temperature": reader.prior_temperature,
        "query_likelihood": reader.query_likelihood,
    }
