"""The gate's parameters for what people said of the answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rag.retrieval_params import Positive, Section


class HumanParams(Section):
    """How often people must prefer the challenger, in percent with ties as halves, and on how much.

    `min_judgements` counts questions: a second opinion on the same one is not another.
    """

    min_win_rate: Annotated[float, Field(gt=0.0, le=100.0)] = 50.0
    min_judgements: Positive = 30
