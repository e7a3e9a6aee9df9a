"""The weights of a network of a finished run, for another run that takes it over."""

from pathlib import Path

import keras


def load(network: keras.Model, run: str, file: str, key: str, what: str):
    """Load them into a network of the same form.

    Args:
        run: the run's folder, or the file itself. file: its name in the run's folder `networks`.
        key: the setting that names the run. what: which network it must be and what else helps; both for the error.

    Raises:
        ValueError: they are the weights of another network.
    """
    path = Path(run) / "networks" / file if Path(run).is_dir() else Path(run)
    try:
        network.load_weights(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {path} does not hold the weights of {what} ({error}).") from error
