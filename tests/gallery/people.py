"""Made-up people for the tests of galleries: records, embeddings, filters."""

import numpy as np

from tf_reid.gallery.records import Filters, Record

WIDTH = 8
ABOUT = {"digest": "d1", "distance": "cosine", "width": WIDTH, "source": "runs/a"}
FILTERS = [  # and which records each keeps
    (Filters(), lambda record: True),
    (Filters(cameras=("c1",)), lambda record: record.camera == "c1"),
    (Filters(not_cameras=("c1", "c2")), lambda record: record.camera == "c0"),
    (Filters(since=1100.0, until=1150.0), lambda record: 1100 <= record.time <= 1150),
]


def people(count, seed=0, start=0):
    """Records of 20 identities and 3 cameras; unit embeddings [count, WIDTH] that lie around their identity's."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, WIDTH))
    identities = rng.integers(20, size=count)
    embeddings = centres[identities] + 0.3 * rng.normal(size=(count, WIDTH))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    records = [
        Record(f"{start + n}.jpg", f"p{identity}", f"c{n % 3}", 1000.0 + n)
        for n, identity in enumerate(identities.tolist())
    ]
    return records, embeddings.astype(np.float32)
