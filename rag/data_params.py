"""The section `data` of params.yaml: where DVC keeps a second copy of data and outputs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rag.retrieval_params import Section


class DataParams(Section):
    """`remote` is a folder or a URL that DVC understands; credentials come from elsewhere."""

    remote: Annotated[str, Field(min_length=1)] | None = None
    push: bool = True
    commit_runs: bool = False

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> DataParams:
        # Of the section, not of the field: a field's value is shown beside what is wrong with it.
        if self.remote and "://" in self.remote and urlsplit(self.remote).password:
            raise ValueError(
                "remote: a password does not belong in params.yaml; leave it out of the URL, and "
                "give it to DVC in the environment or with "
                "`dvc remote modify --local ragloop password`"
            )
        return self
