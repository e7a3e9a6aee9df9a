"""Training on some of the training identities."""

import numpy as np
import pytest
from conftest import make_records, stage_configs

from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import splits
from tf_reid.settings import Config, Data, Run

IDENTITY = np.repeat(np.arange(1, 13), 2)
SPLIT = np.where(IDENTITY <= 9, "train", np.tile(["query", "gallery"], 12))


def trained_on(count, seed=0, **data):
    config = Config(
        data=Data(source="a", labelled_identities=count, **data),
        method={"name": "identity"},
        stages=stage_configs(METHODS["identity"]),
        run=Run(seed=seed),
    )
    domains = {"source": make_records(IDENTITY, np.tile([1, 2], 12), SPLIT)}
    seen = splits.training_records(config, domains)["source"]
    assert len(splits.fair_trials(config, domains["source"], {"source": seen})) == 1
    identities, images = np.unique(seen.identity, return_counts=True)
    assert set(images) == {2}
    return set(identities.tolist())


def test_the_seed_draws_the_identities_that_are_trained_on_and_fewer_are_among_more():
    assert trained_on(0) == set(range(1, 10))
    assert trained_on(3) == trained_on(3) < trained_on(5) < trained_on(9) == trained_on(0)
    assert [len(trained_on(count)) for count in (3, 5)] == [3, 5]
    assert len({tuple(sorted(trained_on(3, seed))) for seed in range(4)}) > 1
    assert trained_on(7, validation=2) == set(range(1, 8))  # 8 and 9 are held out
    with pytest.raises(ConfigError, match=r"data\.labelled_identities is 10, but there are 9 training identities"):
        trained_on(10)
