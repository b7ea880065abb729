"""The release as MLflow loads it ("models from code"): no pickle, this file is run instead.

    mlflow.pyfunc.load_model("models:/ragloop@champion").predict(["When does the ferry sail?"])

MLflow runs this file from the release's own folder, with the release's own copy of `rag` first on
the path, so a release answers with the code it was evaluated with. Only MLflow imports this file.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import platformdirs
from mlflow.pyfunc.model import PythonModel


class Release(PythonModel):
    """Answers questions from the bundle that was logged with it."""

    def load_context(self, context: Any) -> None:
        """Checks every file of the bundle, then opens it.

        What can be built again from the bundle (index, converted weights) is kept in the folder
        named by RAGLOOP_STATE, by default the user's cache.
        """
        from rag.artifacts import Artifacts
        from rag.errors import ReleaseError
        from rag.params import load_params
        from rag.reading.answerer import QuestionAnswerer
        from rag.release.bundle import verify_bundle

        bundle = Path(context.artifacts["bundle"])
        left_out = sorted(verify_bundle(bundle)["left_out"])
        if left_out:
            raise ReleaseError(
                f"this release is too large to carry {', '.join(left_out)}: ask in the project "
                "that made it (`ragloop ask`), or raise release.bundle_limit_mb and run again"
            )
        state = Path(os.environ.get("RAGLOOP_STATE") or platformdirs.user_cache_dir("ragloop"))
        artifacts = Artifacts(bundle, state_folder=state)
        self._artifacts, self._params = artifacts, load_params(artifacts.params)
        self._answerer = QuestionAnswerer.load(artifacts, self._params)

    def predict(
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[dict[str, object]]:
        """One row for each question: `answer`, `score`, `abstained`, and `evidence`, best first.

        Each piece of evidence has its `posterior`, the probability that the answer came from it,
        or None where the reader weighs no passages. Where the release has `watch.query_log: true`,
        the questions are kept in the folder `queries/` beside what can be built again.
        """
        from rag.monitoring.query_log import log_queries

        answers = self._answerer.answer(model_input)
        log_queries(self._artifacts, self._params.watch, model_input, answers)
        rows: list[dict[str, object]] = []
        for answer in answers:
            evidence = [asdict(passage) for passage in answer.evidence]
            rows.append(
                {
                    "answer": answer.text,
                    "score": float(answer.score),
                    "abstained": bool(answer.abstained),
                    "evidence": evidence,
                }
            )
        return rows


mlflow.models.set_model(Release())
