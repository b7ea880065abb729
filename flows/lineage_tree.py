"""The lineage of a release as a tree on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flows import terminal

if TYPE_CHECKING:
    from rich.tree import Tree

#: More files than this are counted, not listed; `--json` has them all.
_SHOWN_FILES = 12
_SHORT = 12


def print_lineage(found: Mapping[str, Any]) -> None:
    """Release -> run -> commit -> dvc.lock -> data, params, index; then the parents."""
    console = terminal.result_console()
    console.print(lineage_tree(found), soft_wrap=True)
    if not found["recorded"]:
        console.print(
            "[yellow]The run kept no lineage: it was made before runs did, or was removed. "
            "Only the release's tags are shown.[/]"
        )


def lineage_tree(found: Mapping[str, Any]) -> Tree:
    """The tree; every value is escaped."""
    from rich.tree import Tree

    release, run, code = found["release"], found["run"], found["code"]
    title = f"{release['name']} version {release['version']}"
    verdict = release["decision"] or "not decided"
    tree = Tree(f"[bold]{_text(title)}[/]  {_text(verdict)}  [dim]{_text(release['created'])}[/]")
    of_run = tree.add(f"run {_text(run['run_id'])}  [dim]key {_text(run['run_key'])}[/]")
    for name, title in (("dvc_exp", "experiment of DVC"), ("branch", "branch")):
        if run[name]:
            of_run.add(f"{title} {_text(run[name])}")
    of_commit = of_run.add(f"commit {_text(code['commit'])}")
    _add_all(of_commit, _code_lines(code))
    lock = of_commit.add(f"dvc.lock {_text(found['pipeline']['dvc_lock_sha256'])}")
    data = found["data"]
    of_data = lock.add(f"data {_text(data['hash'])}  [dim]{_size(data['size'])}[/]")
    rows = [f"{row['path']}  {row['md5']}  {_size(row['size'])}" for row in data["files"]]
    _add_all(of_data, [_text(row) for row in rows[:_SHOWN_FILES]])
    if len(rows) > _SHOWN_FILES:
        of_data.add(f"[dim]... and {len(rows) - _SHOWN_FILES} more files (--json)[/]")
    of_stages = lock.add("stages")
    for stage in found["pipeline"]["stages"]:
        outputs = ", ".join(f"{path} {md5[:_SHORT]}" for path, md5 in stage["outputs"].items())
        of_stages.add(f"{_text(stage['name'])}  [dim]{_text(outputs)}[/]")
    chosen = _chosen(found["params"])
    of_params = lock.add(f"params  [dim]{len(found['params'])} values, {len(chosen)} chosen[/]")
    _add_all(of_params, [_text(f"{name}: {value}") for name, value in chosen.items()])
    of_run.add(f"index {_text(found['index']['fingerprint'])}")
    if machine := found["machine"]:
        facts = (f"{name} {machine[name]}" for name in ("processor", "threads", "system", "python"))
        of_run.add(f"machine  [dim]{_text(', '.join(facts))}[/]")
    parents = tree.add("parents")
    for parent in found["parents"]["champions"]:
        what = parent["decision"] or "removed from the registry"
        parents.add(
            f"champion before: version {_text(parent['version'])}  {_text(what)}  "
            f"[dim]run {_text(parent['run_id'])}, commit {_text(parent['commit'])}[/]"
        )
    for model in found["parents"]["models"]:
        parents.add(f"{_text(model['parameter'])} {_text(model['name'])}  {_text(model['sha256'])}")
    return tree


def _chosen(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not today's defaults; `--json` has all of them."""
    from rag.params import Params

    defaults = Params().flat()
    return {name: value for name, value in params.items() if defaults.get(name, ...) != value}


def _code_lines(code: Mapping[str, Any]) -> list[str]:
    changed = code["uncommitted"]
    if changed:
        files = ", ".join(changed)
        return [f"[yellow]code that was in no commit when it was trained:[/] {_text(files)}"]
    if code["dirty"]:
        return ["[dim]other files of the checkout had changes; the code had none[/]"]
    return []


def _add_all(node: Tree, lines: Iterable[str]) -> None:
    for line in lines:
        node.add(line)


def _text(value: Any) -> str:
    from rich.markup import escape

    return "[dim]unknown[/]" if value is None else escape(str(value))


def _size(size: int) -> str:
    from rich.filesize import decimal

    return str(decimal(size))
