"""How few labels suffice: a run that is trained on some of the training identities alone."""

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.settings import Config


def chosen(config: Config, identities: np.ndarray) -> np.ndarray:
    """Those of the source's training identities whose images are trained on, int64 [N].

    `run.seed` draws them, so that the spread over seeds contains the choice. Fewer of them are among more of them.

    Args:
        identities: all that there are, int64 [M].

    Raises:
        ConfigError: there are not so many.
    """
    count = config.data.labelled_identities
    if not count:
        return identities
    if count > len(identities):
        raise ConfigError(
            f"data.labelled_identities is {count}, but there are {len(identities)} training identities; set fewer, or "
            "0 for all."
        )
    return np.random.default_rng([config.run.seed, 25]).permutation(np.sort(identities))[:count]
