"""What is known of the classifier of a finished run, from the run's own settings."""

from pathlib import Path
from typing import Any

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.networks.strong import StrongClassifier


def form_of(run: str) -> dict[str, Any]:
    """The settings of a run of `strong` that its weights do not show: `last_stride` and `bnneck`.

    Args:
        run: the run's folder, or a file of its folder `networks`. Where there is no config.yaml, the defaults.
    """
    folder = Path(run) if Path(run).is_dir() else Path(run).parent.parent
    path = folder / "config.yaml"
    method = configuration.read(str(path)).get("method", {}) if path.is_file() else {}
    return {"last_stride": method.get("last_stride", 1), "bnneck": method.get("bnneck", True)}


def check_form(run: str, setting: str, network: Any, last_stride: int) -> None:
    """Make sure that a strong classifier is built as it was in its run. All else the weights themselves show.

    Args:
        setting: the method's setting that names the run. network: of any kind. last_stride: of its backbone.

    Raises:
        ConfigError: the run had another last stride, or no batch-norm neck.
    """
    if not isinstance(network, StrongClassifier):
        return
    form = form_of(run)
    if not form["bnneck"]:
        raise ConfigError(f"method.{setting}: {run} was trained with method.bnneck=false; name a run with the neck.")
    trained = form["last_stride"]
    if trained != last_stride:
        raise ConfigError(f"method.{setting}: {run} was trained with method.last_stride={trained}; set it here too.")
