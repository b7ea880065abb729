"""The second copy of data and outputs: DVC's remote of `data.remote`, configured and pushed to.

The remote stands in `.dvc/config.local`, which git ignores. No credentials are written: DVC takes
them from the environment, or from where the user has put them. A push that fails is told and
changes no verdict; the next run, also one that finds nothing to do, tries again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flows import dvc, terminal, workspace
from flows.dvc_config import read_config, remote_section
from flows.snapshot import record_of
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params
from rag.release.redaction import without_credentials
from rag.weights import file_sha256

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

NAME = "ragloop"
_PUSHED = "pushed.json"
#: In DVC's words for a kind of remote whose package is not installed: no second try helps.
_NOT_INSTALLED = "to be installed"


def configure(artifacts: Artifacts, params: Params) -> None:
    """Makes `data.remote` the default remote of this checkout; does nothing where it is already."""
    if params.data.remote is None:
        return
    # Of a run in a worktree too, a relative folder lies beside the checkout.
    url = remote_url(workspace.project_of(artifacts).root, params.data.remote)
    config = read_config(artifacts.root)
    is_default = config.get("core", {}).get("remote") == NAME
    if not is_default or config.get(remote_section(NAME), {}).get("url") != url:
        dvc.set_default_remote(artifacts.root, NAME, url)


def remote_url(root: Path, remote: str) -> str:
    """A URL as it is; a folder, which may be relative to the project, as an absolute path."""
    if "://" in remote:
        return remote
    return str((root / Path(remote).expanduser()).resolve())


def is_behind(artifacts: Artifacts, params: Params) -> bool:
    """Whether there is something to push, and a remote to push it to."""
    if params.data.remote is None or not params.data.push:
        return False
    if not (artifacts.root / "dvc.lock").is_file():
        return False
    try:
        pushed = json.loads((artifacts.state / _PUSHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return True
    return bool(pushed != _state(artifacts, params))


def push(artifacts: Artifacts, params: Params) -> str:
    """Copies data and outputs of the checkout to the remote; returns what DVC says of it.

    ConnectionError, which is worth another try, where the remote cannot be reached; RagError where
    DVC lacks the package for this kind of remote.
    """
    try:
        said = dvc.push(artifacts.root)
    except RagError as error:
        reason = str(without_credentials(str(error)))
        if _NOT_INSTALLED in reason:
            raise RagError(reason) from None
        raise ConnectionError(reason) from None
    content = json.dumps(_state(artifacts, params), indent=2)
    (artifacts.state / _PUSHED).write_text(content, encoding="utf-8")
    return said


def tell(state: State[str]) -> None:
    """One line for a push that failed."""
    from rich.markup import escape

    if state.is_failed():
        error = state.result(raise_on_failure=False)
        terminal.say(
            f"  [yellow]not pushed:[/] {escape(str(error))}; "
            "the verdict stands, and the next `ragloop run` tries again"
        )


def _state(artifacts: Artifacts, params: Params) -> dict[str, str]:
    record = record_of(artifacts)
    return {
        "remote": remote_url(artifacts.root, str(params.data.remote)),
        "dvc_lock": file_sha256(artifacts.root / "dvc.lock"),
        "data": file_sha256(record) if record.is_file() else "",
    }
