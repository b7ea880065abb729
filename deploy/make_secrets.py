"""Secrets of a new deployment: .env and deploy/secrets/, readable by their owner only.

    python deploy/make_secrets.py HOST

HOST is the name that people and programs will use. The certificate is signed by itself, for trials;
put your own in its place. What is there already is never written over.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "secrets"
VARIABLES = (
    "POSTGRES_PASSWORD",
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_COOKIE_KEY",
    "STORAGE_SECRET_KEY",
    "QDRANT_API_KEY",
)
_MLFLOW_AUTH = """[mlflow]
default_permission = READ
database_uri = postgresql://ragloop:{password}@postgres/mlflow_users
auth_cache_ttl_seconds = 60
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def make(host: str, root: Path = ROOT) -> list[Path]:
    """Writes every file, all or none; returns their paths. FileExistsError where one is there."""
    folder = root / FOLDER.relative_to(ROOT)
    paths = [root / ".env", folder / "mlflow_auth.ini", folder / "tls.crt", folder / "tls.key"]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already: move it away to make new secrets")
    # Hexadecimal, so that each is at home in a URL, a file of YAML and a header.
    values = {name: secrets.token_hex(24) for name in VARIABLES}
    values["PREFECT_AUTH"] = f"ragloop:{secrets.token_hex(24)}"
    values["RAGLOOP_HOST"] = host
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write(paths[0], "".join(f"{name}={value}\n" for name, value in sorted(values.items())))
    _write(paths[1], _MLFLOW_AUTH.format(password=values["POSTGRES_PASSWORD"]))
    _certify(host, paths[2], paths[3])
    return paths


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _certify(host: str, certificate: Path, key: Path) -> None:
    _write(key, "")  # so that the key is never readable by others, not even for a moment
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *(
            "-nodes",
            "-days",
            "365",
            "-subj",
            f"/CN={host}",
            "-addext",
            f"subjectAltName=DNS:{host}",
        ),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/make_secrets.py HOST")
    try:
        for made in make(sys.argv[1]):
            print(made)
    except FileExistsError as error:
        sys.exit(f"error: {error}")
