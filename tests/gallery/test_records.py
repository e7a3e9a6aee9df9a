"""The checks that every gallery makes, and what the gallery's modules load, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_reid.config import ConfigError
from tf_reid.gallery import records

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("records", ("faiss", "tensorflow", "qdrant_client", "fastapi", "psycopg")),
        ("crops", ("faiss", "tensorflow", "qdrant_client", "fastapi", "psycopg")),
        ("copying", ("faiss", "tensorflow", "qdrant_client", "psycopg")),
        ("stores", ("faiss", "tensorflow", "qdrant_client", "psycopg", "numpy")),
        ("qdrant_gallery", ("faiss", "tensorflow", "psycopg")),
        ("faiss_gallery", ("qdrant_client", "tensorflow", "psycopg")),
        ("postgres_gallery", ("faiss", "qdrant_client", "tensorflow")),
    ],
)
def test_a_module_loads_only_what_it_needs(module, unwanted):
    code = f"import sys, tf_reid.gallery.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & set(unwanted)


def test_embeddings_become_contiguous_float32():
    embeddings = records.checked_embeddings(np.ones((3, 4))[:, ::2], 2, 3)
    assert embeddings.dtype == np.float32 and embeddings.flags.c_contiguous and embeddings.shape == (3, 2)


@pytest.mark.parametrize(
    ("embeddings", "count", "message"),
    [
        (np.ones(4), None, r"must be \[N, 4\], not \[4\]"),
        (np.ones((2, 3)), None, r"must be \[N, 4\], not \[2, 3\]"),
        (np.ones((2, 4)), 3, r"must be \[3, 4\], not \[2, 4\]"),
        (np.full((1, 4), np.inf), None, "must be finite numbers"),
    ],
)
def test_other_embeddings_are_refused(embeddings, count, message):
    with pytest.raises(ValueError, match=message):
        records.checked_embeddings(embeddings, 4, count)


def test_the_model_and_the_format_must_be_the_gallerys():
    about = {"digest": "d1", "source": "runs/a", "format": records.FORMAT}
    records.check_same_model(about, {"digest": "d1", "source": "models/a"}, "here")
    records.check_format(about, "here")
    with pytest.raises(ConfigError, match=r"here was built by model d1 \(runs/a\), and this is d2 \(runs/b\)"):
        records.check_same_model(about, {"digest": "d2", "source": "runs/b"}, "here")
    with pytest.raises(ConfigError, match="here has gallery format 1, and this version reads format 2"):
        records.check_format({"digest": "d1"}, "here")
