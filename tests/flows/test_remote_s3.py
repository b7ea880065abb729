"""A remote on S3, against a server on this machine: pip install "ragloop[s3]" "moto[s3,server]"."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from flows import remote
from flows.snapshot import take_snapshot
from rag.artifacts import Artifacts
from rag.params import parse_params

pytest.importorskip("dvc_s3")
moto = pytest.importorskip("moto.server")

pytestmark = pytest.mark.integration
SECRET = "not to be written anywhere"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a bucket; address and credentials are in the environment alone."""
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="ferries")
    yield "ferries"
    server.stop()


def test_data_goes_to_s3_and_comes_back(dvc_project: Artifacts, bucket: str) -> None:
    params = parse_params({"data": {"remote": f"s3://{bucket}/ragloop"}})
    (dvc_project.root / "dvc.lock").write_text("schema: '2.0'\n")
    (dvc_project.root / "dvc.yaml").write_text("stages: {}\n")
    dvc_project.state.mkdir()
    dvc_project.raw.mkdir(parents=True)
    (dvc_project.raw / "a.md").write_text("A ferry.\n")
    taken = take_snapshot(dvc_project)
    remote.configure(dvc_project, params)
    assert remote.push(dvc_project, params) == "2 files pushed"
    for folder in (dvc_project.raw, dvc_project.root / ".dvc" / "cache"):
        shutil.rmtree(folder)
    fetched = take_snapshot(dvc_project)
    assert (fetched.data_hash, fetched.detail) == (taken.data_hash, "fetched from the remote")
    assert (dvc_project.raw / "a.md").read_text() == "A ferry.\n"
    files = [path for path in dvc_project.root.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
