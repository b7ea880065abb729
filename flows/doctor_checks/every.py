"""Every check by name, in the order of the print: the ground before what stands on it."""

from __future__ import annotations

from flows.doctor_checks import (
    data,
    exposure,
    index,
    machine,
    project,
    releases,
    room,
    schedule,
    software,
)
from flows.doctor_checks.finding import Check

CHECKS: tuple[Check, ...] = (
    Check("versions", "installed packages against the pins", software.look_at_versions),
    Check("params", "params.yaml is valid", project.look_at_params),
    Check("repository", "git and DVC are set up", project.look_at_repository),
    Check("weights", "models are here, bundled ones unaltered", software.look_at_weights),
    Check("mlflow-store", "it answers and is migrated", project.look_at_mlflow_store),
    Check("prefect-store", "it is there and migrated", project.look_at_prefect_store),
    Check("ledger", "its chain is whole to the last row", releases.look_at_ledger),
    Check("switch", "no switch was cut short", releases.look_at_switch),
    Check("champion", "alias, version and ledger agree", releases.look_at_champion),
    Check("bundle", "the champion's files are unaltered", releases.look_at_bundle),
    Check("index", "the champion's index is whole", index.look_at_index),
    Check("encoder", "questions meet the encoder of the passages", index.look_at_encoder),
    Check("schedule", "served, planned and fired", schedule.look_at_schedule),
    Check("runs", "none is called running that is dead", schedule.look_at_runs),
    Check("locks", "free, or held by the living", machine.look_at_locks),
    Check("processes", "none has lost its parent", machine.look_at_processes),
    Check("data", "stage outputs are what dvc.lock says", data.look_at_data),
    Check("remote", "DVC's remote is set and reachable", data.look_at_remote),
    Check("disk", "room for more releases", machine.look_at_disk),
    Check("memory", "memory to work in", machine.look_at_memory),
    Check("clock", "agrees with files, ledger and Prefect", machine.look_at_clock),
    Check("listening", "no port is open to others", exposure.look_at_listening),
    Check("secrets", "no credentials in files that git keeps", exposure.look_at_secrets),
    Check("models", "no file runs code when it is loaded", software.look_at_models),
    Check("leftovers", "no half-made folder, no index without a release", room.look_at_leftovers),
    Check("growth", "logs and old releases are kept small", room.look_at_growth),
)
