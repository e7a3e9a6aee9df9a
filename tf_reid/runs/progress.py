"""How far a run is, as its checkpoints say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import checkpoints


class Progress:
    """A run's stage and step with its checkpoints, of which the last two are kept.

    Args:
        folder: the run's folder, from which checkpoints are read.
        model: built and compiled.
        write_to: where this process writes, if not into the run's folder; see `cluster.own_folder`.
        chosen: name -> state of what validation identities choose; see `selection.Selection.state`.
    """

    def __init__(
        self,
        folder: Path,
        model: ReIDModel,
        write_to: Path | None = None,
        chosen: Mapping[str, Any] | None = None,
    ) -> None:
        self.stage = tf.Variable(tf.constant(0, tf.int64), trainable=False)
        self.model = model
        # Keras tracks neither a dictionary of optimizers nor the states of dropout's random generators.
        seeds = [v.value for v in model.variables if v.path.endswith("seed_generator_state")]
        optimizers = {stage: dict(of_players) for stage, of_players in model.optimizers_of.items()}
        self.checkpoint = tf.train.Checkpoint(
            model=model, optimizers=optimizers, seeds=seeds, stage=self.stage, **(chosen or {})
        )
        self.folder = folder / "checkpoints"
        self.own = (write_to or folder) / "checkpoints"
        self.damaged: dict[int, str] = {}  # number of a checkpoint -> why it could not be read
        self.saved: tuple[int, int] | None = None  # the stage and step of the last checkpoint

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this step; remove the one before the last.

        Raises:
            NotSaved: it cannot be written; see `checkpoints.save`.
        """
        place = self._place()
        if place != self.saved:
            checkpoints.save(self.checkpoint, self.own, self.damaged)
            self.saved = place

    def restore(self, partially: bool = False) -> bool:
        """Load the last checkpoint; False if there is none. A damaged one is skipped, and printed.

        Args:
            partially: the model may lack what the checkpoint has, such as the optimizers of finished stages.

        Raises:
            ConfigError: no checkpoint can be read, or it is of another version; the message says what to do.
        """
        newest = checkpoints.newest(self.folder)
        if newest is None:
            if any((self.folder.parent / "networks").glob("*.weights.h5")):
                raise ConfigError(
                    f"There is no checkpoint in {self.folder}, though {self.folder.parent} holds trained networks. "
                    f"Restore one from a copy, or remove {self.folder.parent} to train the run anew."
                )
            return False
        path = self.folder / f"ckpt-{newest.number}"
        try:
            if partially:
                self._read_partially(newest.number)
            else:
                checkpoints.read(self.checkpoint, self.folder, newest.number).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"The checkpoint {path} does not fit the networks of this version ({checkpoints.reason(error)}); use "
                f"the version of tf_reid that trained it, or remove {self.folder.parent} to train the run anew."
            ) from None
        self.damaged, self.saved = newest.damaged, self._place()
        for number, problem in self.damaged.items():
            print(f"The checkpoint {self.folder / f'ckpt-{number}'} is damaged ({problem}) and is skipped.")
        if self.damaged:
            print(f"The one before is used: {path}, after step {self.saved[1]} of the stage.")
        return True

    def _read_partially(self, number: int) -> None:
        try:
            checkpoints.read(self.checkpoint, self.folder, number).expect_partial()
        except ValueError:  # an optimizer of networks that had another form: scoring needs none
            without_optimizers = tf.train.Checkpoint(model=self.model, stage=self.stage)
            checkpoints.read(without_optimizers, self.folder, number).expect_partial()

    def _place(self) -> tuple[int, int]:
        return int(self.stage), int(self.model.step.numpy())
