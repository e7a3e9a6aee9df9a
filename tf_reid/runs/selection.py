"""What the validation identities choose in a run: where a stage ends, its learning rates, the weights that are kept."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_reid.methods.base import ReIDModel
from tf_reid.runs.plateau import Plateau
from tf_reid.settings import Config, StageSettings

CHOOSES = "mAP"  # the score whose highest value decides which weights are kept


class Selection:
    """The choices of a run. Their state is part of its checkpoints, so that a resumed run chooses alike."""

    def __init__(self, model: ReIDModel, config: Config) -> None:
        self.model = model
        watching = {key for stage in config.stages.values() for key in stage.watched}
        self.end = Plateau() if "early_stop" in watching else None
        self.rates = Plateau() if "plateau" in watching else None
        self.best = Best(model) if config.run.keep == "best" else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; nothing of a run in which nothing is chosen, as in those of older versions."""
        parts: dict[str, Any] = {}
        if self.end is not None:
            parts["plateau"] = self.end
        if self.rates is not None:
            parts["rate_plateau"] = self.rates
        if self.best is not None:
            parts["best"] = self.best.state()
        return parts

    def take(self, stage: StageSettings, values: Mapping[str, float], step: int) -> None:
        """Choose by the values after a step of the present stage, in which the model has the weights that had them.

        Args:
            values: "loss", or the scores by name.
        """
        if self.end is not None and stage.early_stop is not None and stage.early_stop.watch in values:
            self.end.add(_should_fall(stage.early_stop.watch, values))
            if self.end.ends(stage.early_stop):
                self.model.stop_training = True  # the training loop reads it after this step
        if self.rates is not None and stage.plateau is not None and stage.plateau.watch in values:
            self.rates.add(_should_fall(stage.plateau.watch, values))
            if self.rates.ends(stage.plateau):
                self.rates.waited.assign(0)
                self.model.rate_factor.assign(self.model.rate_factor * stage.plateau.factor)
        if self.best is not None and CHOOSES in values:
            self.best.take(values[CHOOSES], step)

    def has_ended(self, stage: StageSettings) -> bool:
        """Whether the present stage has come to an early end."""
        return self.end is not None and self.end.ends(stage.early_stop)

    def finish(self, name: str, stage: StageSettings, last: int) -> dict[str, Any]:
        """After the last step of a stage: give the model the weights that are kept, and print what was chosen.

        Returns:
            The step of the kept weights and their score; nothing where no score has chosen them.
        """
        if self.end is not None and stage.early_stop is not None and last < stage.steps:
            print(f"Stage {name} ends early, at step {last}: {self.end.shown(stage.early_stop.watch)}.")
        if self.best is None or not int(self.best.step):
            return {}
        self.best.give_back()
        step, score = int(self.best.step), float(self.best.score)
        print(f"Stage {name}: the weights after step {step} of {last} are kept; {CHOOSES} on validation {score:.1f}.")
        return {"step": step, CHOOSES: score}

    def clear(self) -> None:
        """Begin another stage."""
        if self.end is not None:
            self.end.clear()
        if self.rates is not None:
            self.rates.clear()
            self.model.rate_factor.assign(1.0)
        if self.best is not None:
            self.best.clear()


class Best:
    """A copy of the weights with the highest score of the present stage so far, in the computer's memory.

    A checkpoint holds it, so that its weights and its score are always of one step, wherever a process is killed.

    Attributes:
        score: float32 scalar. step: int64 scalar, 0: there is none yet.
        weights: of everything that a stage trains and that is scored.
    """

    def __init__(self, model: ReIDModel) -> None:
        networks: list[keras.Model] = [network for of_player in model.players().values() for network in of_player]
        for representation in model.representations().values():
            networks += representation.networks
        self._own = list({id(one): one for network in networks for one in network.weights}.values())
        with tf.device("CPU:0"):
            self.weights = [tf.Variable(one.numpy(), trainable=False) for one in self._own]
            self.score = tf.Variable(-np.inf, trainable=False, dtype=tf.float32)
            self.step = tf.Variable(0, trainable=False, dtype=tf.int64)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"score": self.score, "step": self.step, "weights": self.weights}

    def take(self, score: float, step: int) -> None:
        """Copy the model's weights if this score is higher than every one before."""
        if np.float32(score) > self.score.numpy():
            self.score.assign(score)
            self.step.assign(step)
            for copy, own in zip(self.weights, self._own, strict=True):
                copy.assign(own.numpy())

    def give_back(self) -> None:
        """Assign the copied weights to the model."""
        for copy, own in zip(self.weights, self._own, strict=True):
            own.assign(copy.numpy())

    def clear(self) -> None:
        """Begin another stage."""
        self.score.assign(-np.inf)
        self.step.assign(0)


def _should_fall(watched: str, values: Mapping[str, float]) -> float:
    """A loss as it is, a score times -1."""
    return values[watched] if watched == "loss" else -values[watched]
