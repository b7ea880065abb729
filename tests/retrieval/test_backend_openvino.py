"""rag/retrieval/backend_openvino.py against sentence-transformers on the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.errors import InputError, ModelError
from rag.params import RetrieverParams
from rag.retrieval.encoder import Encoder, FloatMatrix
from tests.retrieval.test_encoder import TEXTS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def reference(encoder: Encoder) -> FloatMatrix:
    """What PyTorch gives for TEXTS."""
    return encoder.encode(TEXTS, "passage")


class TestOpenVino:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("openvino", reason="needs the extra: pip install ragloop[openvino]")

    @pytest.mark.parametrize(
        ("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.999), ("int8", 0.99)]
    )
    def test_gives_the_vectors_of_sentence_transformers(
        self, precision: str, least: float, cache: Path, reference: FloatMatrix
    ) -> None:
        params = RetrieverParams.model_validate({"backend": "openvino", "precision": precision})
        vectors = Encoder(params, cache).encode(TEXTS, "passage")
        assert vectors.dtype == np.float32
        assert (vectors * reference).sum(axis=1).min() > least
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)

    def test_an_export_is_made_once_and_kept(self, tmp_path: Path) -> None:
        params = RetrieverParams(backend="openvino")
        first = Encoder(params, tmp_path).encode(TEXTS, "query")
        [kept] = tmp_path.glob("openvino-*/model.xml")
        written = kept.stat().st_mtime_ns
        second = Encoder(params, tmp_path).encode(TEXTS, "query")
        assert kept.stat().st_mtime_ns == written
        np.testing.assert_array_equal(first, second)

    def test_an_export_that_is_not_the_model_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A quantiser that ruins the weights: the export must not be kept."""
        import torch

        from rag.retrieval import backend_openvino

        def ruin(model: torch.nn.Module) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.randn_like(parameter))

        monkeypatch.setattr(backend_openvino, "quantise_linears", ruin)
        encoder = Encoder(RetrieverParams(backend="openvino", precision="int8"), tmp_path)
        with pytest.raises(ModelError, match=r"gives other vectors \(cosine .*backend to torch"):
            encoder.encode(["dog"], "query")
        assert not list(tmp_path.glob("openvino-*"))

    def test_its_telemetry_is_never_loaded(self) -> None:
        """In a process of its own: this one may have loaded anything."""
        code = (
            "import sys\n"
            "from rag.retrieval.backend_openvino import import_openvino\n"
            "import_openvino().convert_model\n"
            "assert sys.modules['openvino_telemetry'] is None\n"
            "assert 'openvino.tools.ovc.telemetry_stub' in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_that_is_not_installed_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "openvino":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    encoder = Encoder(RetrieverParams(backend="openvino"), cache)
    with pytest.raises(InputError, match=r"openvino is not installed\n.*ragloop\[openvino\]"):
        encoder.encode(["dog"], "query")
