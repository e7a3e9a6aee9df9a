"""What searching with one kind of gallery loads, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("records", ("faiss", "tensorflow", "qdrant_client", "fastapi")),
        ("crops", ("faiss", "tensorflow", "qdrant_client", "fastapi")),
        ("qdrant_gallery", ("faiss", "tensorflow")),
        ("faiss_gallery", ("qdrant_client", "tensorflow")),
    ],
)
def test_a_module_loads_only_what_it_needs(module, unwanted):
    code = f"import sys, tf_reid.gallery.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & set(unwanted)


OPEN_QDRANT = """
import sys
from qdrant_client import QdrantClient
from tf_reid import search
from tf_reid.gallery import qdrant_gallery
qdrant_gallery.QdrantClient = lambda **_: QdrantClient(":memory:")
about = {"digest": "d", "distance": "cosine", "width": 2, "source": "runs/a"}
with search.open_gallery("qdrant://host/g", about) as gallery:
    assert len(gallery) == 0
print(*sys.modules)
"""


def test_opening_a_qdrant_gallery_loads_no_faiss():
    done = subprocess.run([sys.executable, "-c", OPEN_QDRANT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "qdrant_client" in done.stdout.split() and "faiss" not in done.stdout.split()
