"""How far a run is, and its checkpoints."""

from pathlib import Path

import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel


class Progress:
    """A run's stage and step with its checkpoints, of which the last two are kept.

    Args:
        folder: the run's folder, from which checkpoints are read.
        model: built and compiled.
        write_to: where this process writes, if not into the run's folder; see `strategy.own_folder`.
    """

    def __init__(self, folder: Path, model: ReIDModel, write_to: Path | None = None) -> None:
        self.stage = tf.Variable(tf.constant(0, tf.int64), trainable=False)
        self.model = model
        # Keras tracks neither a dictionary of optimizers nor the states of dropout's random generators.
        seeds = [v.value for v in model.variables if v.path.endswith("seed_generator_state")]
        optimizers = {stage: dict(of_players) for stage, of_players in model.optimizers_of.items()}
        self.checkpoint = tf.train.Checkpoint(model=model, optimizers=optimizers, seeds=seeds, stage=self.stage)
        self.folder = str(folder / "checkpoints")
        own = str((write_to or folder) / "checkpoints")
        self.manager = tf.train.CheckpointManager(self.checkpoint, own, max_to_keep=2)

    def save(self) -> None:
        """Write a checkpoint, and remove the one before the last."""
        self.manager.save()

    def restore(self, partially: bool = False) -> bool:
        """Load the last checkpoint; False if there is none.

        Args:
            partially: the model may lack what the checkpoint has, such as the optimizers of finished stages.

        Raises:
            ConfigError: the checkpoint cannot be read; the message says what to do.
        """
        latest = tf.train.latest_checkpoint(self.folder)
        if latest is None:
            return False
        try:
            status = self.checkpoint.restore(latest)
            status.expect_partial() if partially else status.assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"The checkpoint {latest} cannot be read ({str(error).splitlines()[0]}); remove its files, and name "
                "the checkpoint before it in the file 'checkpoint' beside them."
            ) from None
        return True
