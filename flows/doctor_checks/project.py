"""The project's own ground: valid parameters, a git repository, DVC, both stores migrated."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flows.doctor_checks.finding import Finding, Site, fail, ok, warn, worst

_INIT = "ragloop init"


def look_at_params(site: Site) -> Finding:
    """params.yaml is there and valid."""
    if site.valid_params is None:
        problems = [fail(problem, "edit params.yaml") for problem in site.params_problems]
        return worst(problems, "")
    return ok(f"{len(site.valid_params.flat())} parameters are valid")


def look_at_repository(site: Site) -> Finding:
    """The folder is in a git repository, and DVC keeps data beside it."""
    root = site.artifacts.root
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
        inside = subprocess.run(
            ["git", "rev-parse", "--git-dir"], cwd=root, capture_output=True, check=False, timeout=5
        )
    except FileNotFoundError:
        return fail("git is not installed", "apt-get install git")
    if inside.returncode != 0:
        start = "git init && git add -A && git commit -m 'Start'"
        return fail(f"{root} is in no git repository", start)
    problems = []
    if not (root / ".dvc" / "config").is_file():
        problems.append(fail("there is no DVC repository: .dvc/config is missing", _INIT))
    if not (root / "dvc.yaml").is_file():
        problems.append(fail("dvc.yaml is missing", "git checkout dvc.yaml"))
    if not found.stdout.strip():
        remedy = "git add -A && git commit -m 'Start'"
        problems.append(warn("nothing is committed, so a run can name no code", remedy))
    return worst(problems, f"commit {found.stdout[:10]}, DVC beside it")


def look_at_mlflow_store(site: Site) -> Finding:
    """The MLflow store answers and its schema is the one of the MLflow that is installed."""
    from rag.errors import ReleaseError
    from rag.release.redaction import without_credentials
    from rag.release.store import SQLITE, tracking_uri
    from rag.release.store_facts import (
        migrations_of,
        read_store,
        schema_heads,
        schema_revision,
    )

    uri = tracking_uri(site.artifacts, site.params)
    where = without_credentials(uri)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        if not site.artifacts.ledger.exists():
            return warn("there is no MLflow store yet", _INIT)
        remedy = f"put {uri.removeprefix(SQLITE)} back from a backup"
        return fail(f"{where} is gone, and the ledger tells of releases in it", remedy)
    try:
        if not uri.startswith("http"):
            schema = schema_revision(uri)
            heads = schema_heads(migrations_of("mlflow", "store", "db_migrations", "versions"))
            if schema is None or schema not in heads:
                found = f"is at {schema}" if schema else "has no schema"
                expected = ", ".join(sorted(heads))
                return fail(
                    f"{where} {found}, this MLflow expects {expected}",
                    f"mlflow db upgrade {where}" if schema else _INIT,
                )
        facts = read_store(site.artifacts, site.params)
    except ReleaseError as error:
        return fail(str(error), "check tracking.uri in params.yaml, and that its server runs")
    return ok(f"{where}: {len(facts.versions)} versions, {len(facts.runs)} runs of this project")


def look_at_prefect_store(site: Site) -> Finding:
    """Prefect's own database is there and at the schema of the Prefect that is installed."""
    from rag.errors import ReleaseError
    from rag.release.redaction import without_credentials
    from rag.release.store import SQLITE
    from rag.release.store_facts import migrations_of, schema_heads, schema_revision

    environment = site.environment
    if environment.get("PREFECT_API_URL"):
        return ok(f"Prefect is at {without_credentials(environment['PREFECT_API_URL'])}")
    named = next(
        (
            environment[name]
            for name in (
                "PREFECT_SERVER_DATABASE_CONNECTION_URL",
                "PREFECT_API_DATABASE_CONNECTION_URL",
            )
            if environment.get(name)
        ),
        None,
    )
    home = Path(environment.get("PREFECT_HOME") or site.artifacts.state.resolve() / "prefect")
    uri = named or f"{SQLITE}{home / 'prefect.db'}"
    uri = uri.replace("+aiosqlite", "").replace("+asyncpg", "")
    kind = "postgresql" if uri.startswith("postgres") else "sqlite"
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return warn("there is no Prefect store yet", _INIT)
    try:
        schema = schema_revision(uri)
    except ReleaseError as error:
        return fail(str(error), "check PREFECT_SERVER_DATABASE_CONNECTION_URL and its server")
    folder = migrations_of("prefect", "server", "database", "_migrations", "versions", kind)
    heads = schema_heads(folder)
    where = without_credentials(uri)
    if schema not in heads:
        expected = ", ".join(sorted(heads))
        found = f"is at {schema}" if schema else "has no schema"
        return fail(
            f"{where} {found}, this Prefect expects {expected}",
            f"PREFECT_HOME={home} prefect server database upgrade --yes",
        )
    return ok(f"{where} is at {schema}")
