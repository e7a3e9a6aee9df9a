"""docs/evaluation.md explains every key of metrics.json, and names no other."""

import re
from pathlib import Path

import numpy as np

from tf_reid.evaluation import baselines
from tf_reid.metrics import ranking, verification

PAGE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
IDENTITY, CAMERA = np.repeat([1, 2, 3, 4], 2), np.tile([1, 2], 4)


def keys_under(head: str) -> list[str]:
    """What stands in backticks in the first column of the table with this head."""
    table = PAGE.split(f"| {head} |")[1].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def similarity(_block):
    return np.random.default_rng(0).uniform(size=(8, 8)).astype(np.float32)


def test_every_key_of_a_representation_is_explained():
    scored = ranking.score(similarity, IDENTITY, CAMERA, IDENTITY, CAMERA, same_camera_ignored=True)
    written = ranking.average([scored]).keys() | {"protocol", "description", "verification"}
    explained = keys_under("key | meaning")
    assert sorted(explained) == sorted(written)


def test_every_key_of_a_verification_is_explained():
    pairs = verification.pairs(similarity, IDENTITY, CAMERA, IDENTITY, CAMERA)
    verified = verification.verify(pairs, pairs, rates=(0.5,))
    assert sorted(keys_under("key of `verification` | meaning")) == sorted(verified)
    for key in verified["thresholds"][0]:
        assert f"`{key}`" in PAGE, key


def test_the_baselines_are_those_of_the_code():
    explained = keys_under("name | what it is")
    assert explained == ["pixels", "colour_histogram", "colour_covariance", "adaptive_batch_norm"]
    assert all(hasattr(baselines, name) for name in ("small_pixels", "colour_histogram", "adaptive_batch_norm"))
