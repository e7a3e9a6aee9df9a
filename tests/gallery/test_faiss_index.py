"""An approximate index finds the images that filters leave, also where these are few and far from the query."""

import numpy as np

from tf_reid.gallery import faiss_index
from tf_reid.gallery.faiss_index import FaissIndex


def test_the_search_is_wider_where_filters_leave_few_images(monkeypatch):
    monkeypatch.setattr(faiss_index, "FLAT_UP_TO", 10)
    count, width, rng = 2000, 8, np.random.default_rng(0)
    embeddings = rng.normal(size=(count, width)).astype(np.float32)
    ids = np.arange(1, count + 1)
    index = FaissIndex.build([(ids, embeddings)], count, width, "euclidean", count)
    assert index.is_hnsw
    query = np.full((1, width), 2.0, np.float32)
    apart = np.linalg.norm(embeddings - query, axis=1)
    far = np.sort(ids[np.argsort(apart)[-40:]])
    distances, numbers = index.search(query, far, top=10)
    expected = far[np.argsort(apart[far - 1])[:10]]
    assert numbers[0].tolist() == expected.tolist()
    np.testing.assert_allclose(distances[0], apart[expected - 1], rtol=1e-5)
