"""Faults of an installation, and what the doctor must say of each."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.doctor_plantings import (
    Planting,
    alter_ledger,
    champion_bundle,
    champion_index,
    cut_index,
    cut_ledger,
    date_in_future,
    fake_package,
    hang,
    in_bundle,
    large_log,
    leave_lock,
    neither_pulled_nor_kept,
    open_port,
    other_weights,
    remove_path,
    run_sql,
    set_params,
    start_orphan,
    state,
    write_file,
)


@dataclass(frozen=True)
class Fault:
    """A fault by name: how it is planted in a project, and the check, level and words it gets.

    `also` are checks that the same fault makes fail or wait.
    """

    name: str
    plant: Planting
    check: str
    level: str
    words: str
    also: tuple[str, ...] = ()


_WAIT_FOR_STORE = ("champion", "bundle", "index", "encoder", "leftovers")
_RUNNING = (
    "update runs set status = 'RUNNING', end_time = null, start_time = start_time - 600000 "
    "where rowid = 1"
)
FAULTS = (
    Fault(
        "a fastapi with which Prefect's API does not start",
        lambda root: fake_package(root, "fastapi", "0.165.0"),
        *("versions", "fail", "fastapi 0.165.0 is installed"),
    ),
    Fault(
        "a sqlalchemy with which Prefect schedules nothing",
        lambda root: fake_package(root, "sqlalchemy", "2.1.9"),
        *("versions", "fail", "never creates a scheduled run"),
    ),
    Fault("no git", remove_path(".git"), "repository", "fail", "in no git repository"),
    Fault(
        "no DVC", remove_path(".dvc"), "repository", "fail", ".dvc/config is missing", ("remote",)
    ),
    Fault(
        "a model without its weights",
        remove_path("tiny/reader/model.safetensors"),
        *("weights", "fail", "no weights"),
    ),
    Fault(
        "MLflow's store is gone",
        remove_path(".ragloop/mlflow.db"),
        *("mlflow-store", "fail", "the ledger tells of releases in it"),
        _WAIT_FOR_STORE,
    ),
    Fault(
        "MLflow's store is of an older MLflow",
        run_sql("mlflow.db", "update alembic_version set version_num = '451aebb31d03'"),
        *("mlflow-store", "fail", "is at 451aebb31d03, this MLflow expects"),
    ),
    Fault(
        "MLflow's store is no database",
        write_file(".ragloop/mlflow.db", "not a database " * 100),
        *("mlflow-store", "fail", "does not answer"),
        _WAIT_FOR_STORE,
    ),
    Fault(
        "Prefect's store is of an older Prefect",
        run_sql("prefect/prefect.db", "update alembic_version set version_num = '9725c1cbee35'"),
        *("prefect-store", "fail", "is at 9725c1cbee35, this Prefect expects"),
    ),
    Fault(
        "a ledger row was altered", alter_ledger, "ledger", "fail", "it was altered", ("champion",)
    ),
    Fault(
        "the last ledger row was cut off",
        cut_ledger,
        "ledger",
        "fail",
        "rows were removed",
        ("champion",),
    ),
    Fault(
        "ledger and its head were cut, MLflow knows better",
        run_sql(
            "mlflow.db",
            "insert into registered_model_tags (workspace, name, key, value) "
            f"values ('default', 'ragloop', 'ragloop.ledger_head', '3:{'a' * 64}')",
        ),
        *("ledger", "fail", "which MLflow names as the last one written"),
    ),
    Fault(
        "a switch was cut short",
        write_file(
            ".ragloop/switch.json",
            json.dumps(
                {"alias": "champion", "version": "2", "before": "1", "row": {}, "switch_id": "s"}
            ),
        ),
        *("switch", "fail", "the switch to version 2 as champion was cut short"),
    ),
    Fault(
        "the champion was deleted in MLflow",
        run_sql("mlflow.db", "delete from model_versions where version = 2"),
        *("champion", "fail", "points at version 2, which is gone"),
        ("bundle", "index", "encoder", "leftovers"),
    ),
    Fault(
        "the alias was moved by hand",
        run_sql("mlflow.db", "update registered_model_aliases set version = 1"),
        *("champion", "fail", "version 1 is champion, the ledger says version 2"),
    ),
    Fault(
        "the alias was deleted by hand",
        run_sql("mlflow.db", "delete from registered_model_aliases"),
        *("champion", "fail", "no version is champion, the ledger says version 2"),
    ),
    Fault(
        "a file of the champion was altered",
        in_bundle(lambda bundle: (bundle / "data/retrieve/fusion.json").write_text("{} ")),
        *("bundle", "fail", "fusion.json of version 2 was altered"),
    ),
    Fault(
        "a file of the champion is missing",
        in_bundle(lambda bundle: (bundle / "data/retrieve/fusion.json").unlink()),
        *("bundle", "fail", "fusion.json of version 2 is missing"),
    ),
    Fault(
        "the champion's files are gone",
        lambda root: shutil.rmtree(champion_bundle(root)),
        *("bundle", "fail", "the files of version 2 are gone"),
        ("index", "encoder"),
    ),
    Fault(
        "the champion's index is gone",
        lambda root: shutil.rmtree(champion_index(root)),
        *("index", "fail", "is missing or incomplete"),
    ),
    Fault("the index was cut short", cut_index, "index", "fail", "is missing or incomplete"),
    Fault(
        "the champion names another index",
        run_sql(
            "mlflow.db",
            "update model_version_tags set value = (select value from model_version_tags "
            "where key = 'fingerprint' and version = 1) where key = 'fingerprint' and version = 2",
        ),
        *("index", "fail", "its vectors are those of"),
    ),
    Fault(
        "the encoder is another model now",
        other_weights,
        *("encoder", "fail", "left one with"),
    ),
    Fault(
        "ragloop up was killed",
        leave_lock("up.lock", what="ragloop up"),
        *("schedule", "fail", "ragloop up (pid 4194305"),
        ("locks",),
    ),
    Fault(
        "ragloop up was stopped and not started again",
        write_file(".ragloop/up.json", "{}"),
        *("schedule", "warn", "nothing serves"),
    ),
    Fault(
        "a run is called running",
        run_sql("mlflow.db", _RUNNING),
        "runs",
        "warn",
        "nothing works on it",
    ),
    Fault(
        "a lock of a dead process",
        leave_lock("lock"),
        "locks",
        "warn",
        "lock was left by ragloop run",
    ),
    Fault("a run that hangs", hang, "locks", "fail", "it hangs or is stopped"),
    Fault(
        "DVC's lock of a dead process",
        write_file(
            ".dvc/tmp/rwlock", json.dumps({"/data": {"write": {"pid": 4194305, "cmd": "dvc"}}})
        ),
        *("locks", "warn", "DVC's lock names process 4194305"),
    ),
    Fault("a stage without its parent", start_orphan, "processes", "fail", "has lost its parent"),
    Fault(
        "a stage output was edited",
        write_file("data/notes/a.txt", "tvo\n"),
        *("data", "fail", "data/notes is not what dvc.lock says"),
    ),
    Fault("a stage output is missing", remove_path("data/notes"), "data", "fail", "and missing"),
    Fault(
        "the data was neither pulled nor kept",
        neither_pulled_nor_kept,
        *("data", "fail", "data/raw/ is empty"),
    ),
    Fault("the remote is not mounted", remove_path("remote"), "remote", "fail", "which is missing"),
    Fault(
        "the remote does not answer",
        write_file(
            ".dvc/config",
            "[core]\n    remote = s\n['remote \"s\"']\n    url = s3://bucket/path\n"
            "    endpointurl = http://127.0.0.1:9\n",
        ),
        *("remote", "fail", "cannot be reached at 127.0.0.1:9"),
    ),
    Fault("the clock went back", date_in_future, "clock", "fail", "ledger.head is dated 36"),
    Fault(
        "MLflow is open to everybody", open_port, "listening", "fail", "MLflow listens on 0.0.0.0"
    ),
    Fault(
        "a password in params.yaml",
        set_params("index", kind="server", url="http://me:secret@127.0.0.1:9"),
        *("secrets", "fail", "index.url in params.yaml has credentials"),
        ("index",),  # nobody is there
    ),
    Fault(
        "a key in .dvc/config",
        write_file(
            ".dvc/config",
            "[core]\n    remote = s\n['remote \"s\"']\n    url = ../remote\n"
            "    secret_access_key = abc\n",
        ),
        *("secrets", "fail", "has the secret_access_key of remote.s"),
    ),
    Fault(
        "a pickle among the models",
        lambda root: (root / "data/models/reader/extra.bin").write_bytes(b"\x80\x04]") and None,
        *("models", "fail", "extra.bin is a pickle"),
    ),
    Fault(
        "an index of no release",
        lambda root: (state(root) / "index" / "0123456789abcdef").mkdir(),
        *("leftovers", "warn", "0123456789abcdef (0.0 MB) belongs to no release"),
    ),
    Fault(
        "a build that was killed",
        lambda root: (state(root) / "index" / "0123456789abcdef.tmp").mkdir(),
        *("leftovers", "warn", "was left by a process that was killed"),
    ),
    Fault("logs that grew", large_log, "growth", "warn", "logs takes 2,000 MB"),
    Fault(
        "a typing error in params.yaml",
        set_params("chunk", max_chunk_tokns=64),
        *("params", "fail", "max_chunk_tokns"),
        (
            *("weights", "mlflow-store", "champion", "bundle", "index", "encoder", "runs"),
            *("listening", "secrets", "models", "leftovers", "growth"),
        ),
    ),
)


def planted(fault: Fault, root: Path) -> AbstractContextManager[object]:
    """The fault is there within the block."""
    return fault.plant(root) or nullcontext()
