"""What happens every few steps of a training: checkpoints, curves, pictures, evaluations, a stop."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_reid.data import pipeline
from tf_reid.methods.base import ReIDModel
from tf_reid.pictures import grids
from tf_reid.runs.checkpoints import NotSaved, reason
from tf_reid.runs.progress import Progress
from tf_reid.runs.stopping import StopRequests


class NotFinite(RuntimeError):
    """A loss or a weight became NaN or infinite; the message names it and the step."""


@contextlib.contextmanager
def curves(writer: Any, folder: Path, step: int) -> Iterator[None]:
    """In this context summaries go to TensorBoard's file.

    Raises:
        NotSaved: it cannot be written. Keras would take TensorFlow's error, "out of range", for the end of the data.
    """
    try:
        with writer.as_default(step=step):
            yield
    except tf.errors.OpError as error:
        raise NotSaved(
            f"The curves cannot be written to {folder / 'tensorboard'} ({reason(error)}); the last checkpoint stands. "
            "Make room there, or raise the limit on the size of files (ulimit -f); then the same command resumes the "
            "training."
        ) from None


def check_weights(model: ReIDModel, step: int) -> None:
    """Make sure that the weights of the present stage's players are finite after this step.

    The losses of a step are computed before its update, so they show only one step later that it broke a weight, and
    after a stage's last step not at all.

    Raises:
        NotFinite: a player has weights that are NaN or infinite.
    """
    for player in model.STAGES[model.stage].players:
        for network in model.players()[player]:
            for variable in network.weights:
                if variable.dtype.startswith("float") and not np.isfinite(variable.numpy()).all():
                    raise NotFinite(
                        f"The weights of {player} are no longer finite after step {step} of stage {model.stage}; the "
                        "checkpoint before it is kept. A lower learning rate of this player is the usual remedy."
                    )


def log_scores(writer: Any, folder: Path, step: int, title: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Log the metrics of representations as curves `TITLE/REPRESENTATION/METRIC`."""
    with curves(writer, folder, step):
        for representation, metrics in scores.items():
            for name in ("rank1", "rank5", "rank10", "mAP", "mINP"):
                tag = f"{title}/{representation}/{name}"
                tf.summary.scalar(tag, metrics[name], description=metrics.get("description"))


class EverySteps:
    """Calls `act(step)` after every n-th step of the stage, and after its last."""

    def __init__(self, model: ReIDModel, every: int) -> None:
        self.method, self.every = model, every

    def after(self, step: int) -> None:
        """So many steps of the stage are done."""
        if step % self.every == 0:
            self.act(step)

    def at_end(self, step: int) -> None:
        """This step was the stage's last."""
        if step % self.every:
            self.act(step)

    def act(self, step: int) -> None:
        raise NotImplementedError


class Losses(EverySteps):
    """Shows the mean of every loss in the progress bar and in TensorBoard; raises `NotFinite` if one is not finite."""

    def __init__(self, model: ReIDModel, steps: int, start: int, every: int, writer: Any, folder: Path) -> None:
        super().__init__(model, every)
        self.writer, self.folder = writer, folder
        # The last step of each call that is not shown yet, and the losses of its steps, on the device.
        self.waiting: list[tuple[int, Mapping[str, tf.Tensor]]] = []
        self.also: dict[str, str] = {}  # what else the progress bar shows
        self.bar = tqdm(total=steps, initial=start, desc=model.stage, unit="step", dynamic_ncols=True, mininterval=0.5)

    def add(self, step: int, losses: Mapping[str, tf.Tensor]) -> None:
        """Losses of this step or of several up to it, as `StagedModel.advance` returns them; they are read in `act`."""
        self.waiting.append((step, losses))

    def act(self, step: int) -> None:
        if not self.waiting:
            return
        values = {name: self._series(name) for name in sorted({name for _, losses in self.waiting for name in losses})}
        self.waiting = []
        self.bar.update(step - self.bar.n)
        shown = {name.split("/")[-1]: f"{series.mean():.3g}" for name, series in values.items()}
        self.bar.set_postfix(shown | self.also)
        with curves(self.writer, self.folder, step):
            for name, series in values.items():
                tf.summary.scalar(f"{self.method.stage}/{name}", series.mean())
            for player, rate in self.method.learning_rates().items():
                tf.summary.scalar(f"{self.method.stage}/{player}/learning_rate", rate)

    def flush(self) -> None:
        """Hand over to the operating system what was logged."""
        with curves(self.writer, self.folder, step=0):
            self.writer.flush()

    def _series(self, name: str) -> np.ndarray:
        """The values of a loss at those waiting steps that have it, float64; a phase of a stage may lack it."""
        parts = []
        for last, losses in self.waiting:
            if name not in losses:
                continue
            part = np.atleast_1d(losses[name])
            if not np.isfinite(part).all():
                self.bar.close()
                place = int(np.flatnonzero(~np.isfinite(part))[0])
                raise NotFinite(
                    f"The loss {name} of stage {self.method.stage} is {part[place]} at step "
                    f"{last - len(part) + 1 + place}; the checkpoint before it is kept. A lower learning rate of its "
                    "player is the usual remedy."
                )
            parts.append(part)
        return np.hstack(parts).astype(np.float64)


class Checkpoints(EverySteps):
    """Saves a checkpoint every n steps, but none after a loss or a weight that is not finite."""

    def __init__(self, progress: Progress, losses: Losses, every: int) -> None:
        super().__init__(progress.model, every)
        self.progress, self.losses = progress, losses

    def at_end(self, step: int) -> None:
        pass  # the training loop saves when a stage is finished

    def act(self, step: int) -> None:
        self.losses.act(step)
        check_weights(self.progress.model, step)
        self.losses.flush()  # before the checkpoint: what it holds is not logged again
        self.progress.save()


class Pictures(EverySteps):
    """Grids of the method's pictures of one fixed batch, in TensorBoard and as PNG files."""

    def __init__(self, model: ReIDModel, batch: Mapping[str, tf.Tensor], every: int, folder: Path, writer: Any) -> None:
        super().__init__(model, every)
        self.batch, self.folder, self.writer = batch, folder, writer

    def act(self, step: int) -> None:
        with self.method.averaged():
            pictures = self.method.presentation().pictures(self.batch)
        for title, (columns, images) in pictures.items():
            rows = np.stack([pipeline.to_uint8(column) for column in images], axis=1)
            grid = grids.grid(rows, column_titles=columns)
            name = f"{self.method.stage}_{title.replace(' ', '_')}_{step:06d}.png"
            grids.write_png(self.folder / "pictures" / name, grid)
            with curves(self.writer, self.folder, step):
                tf.summary.image(f"{self.method.stage}/{title}", grid[None])


class Evaluations(EverySteps):
    """Logs the scores of every representation that the stage changes as curves."""

    def __init__(
        self,
        model: ReIDModel,
        evaluate: Callable[[], Mapping[str, Mapping[str, Any]]],
        every: int,
        writer: Any,
        folder: Path,
        stop: StopRequests,
    ) -> None:
        super().__init__(model, every)
        self.evaluate, self.writer, self.folder, self.stop = evaluate, writer, folder, stop

    def act(self, step: int) -> None:
        with self.method.averaged(), self.stop.interrupting():
            scores = self.evaluate()
        log_scores(self.writer, self.folder, step, f"{self.method.stage}/evaluation", scores)


class Stop(EverySteps):
    """Ends the training between two calls of steps where the process got a signal to stop.

    Several workers have to agree, which is checked only every n steps; one that trains alone stops at once.
    """

    def __init__(self, model: ReIDModel, stop: StopRequests, every: int) -> None:
        super().__init__(model, every)
        self.stop = stop

    def after(self, step: int) -> None:
        if not self.stop.several_workers or step % self.every == 0:
            self.stop.check()

    def at_end(self, step: int) -> None:
        pass  # the training loop checks after a stage
