"""The training loop: one `fit` a stage, with checkpoints, a progress bar, TensorBoard and pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_reid import config as configuration
from tf_reid.config import Config
from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.pictures import grids
from tf_reid.runs.progress import Progress

PICTURED = 3  # rows of a batch in a grid


class NotFinite(RuntimeError):
    """A loss or a weight became NaN or infinite; the message names it and the step."""


def train(
    model: ReIDModel,
    config: Config,
    records: dict[str, Records],
    folder: Path,
    evaluate: Callable[[], Mapping[str, Mapping[str, Any]]],
    write_to: Path | None = None,
) -> None:
    """Train every stage that is not finished yet, from the run's last checkpoint on.

    Args:
        model: built and compiled inside its strategy's scope.
        records: the training images of `source` and `target`; see `splits.training_records`.
        folder: the run's folder, from whose last checkpoint training is resumed.
        evaluate: () -> representation -> metrics; logged as curves every `run.evaluate_every` steps.
        write_to: where this process writes, if not into the run's folder; see `strategy.own_folder`.

    Raises:
        NotFinite: a loss or a weight is NaN or infinite. The last checkpoint was saved before that.
        ConfigError: the last checkpoint cannot be read.
        ValueError: several workers do not share the run's folder.
    """
    progress = Progress(folder, model, write_to)
    resumed = progress.restore()
    _check_that_workers_agree(model.distribute_strategy, int(progress.stage), int(model.step.numpy()))
    folder = write_to or folder
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default():
        tf.summary.text("configuration", f"```yaml\n{configuration.dump(config)}```", step=0)
    for number, (name, stage) in enumerate(config.stages.items()):
        if number < int(progress.stage):
            continue
        model.begin(name)
        start = int(model.step.numpy())
        if resumed and start:
            print(f"Resuming stage {name} at step {start} of {stage.steps}.")
        if start < stage.steps:
            callbacks = _callbacks(model, config, records, number, folder, evaluate, progress, writer)
            sampler = samplers.of_stage(model.STAGES[name], stage, records)
            batches = pipeline.training_batches(
                records,
                sampler,
                start=start,
                steps=stage.steps,
                **config.data.augment.model_dump(),
                **_seeds_and_size(config, number),
            )
            quiet: Any = 0  # Keras declares a string, and takes this
            model.fit(batches, epochs=1, shuffle=False, verbose=quiet, callbacks=callbacks)
        check_weights(model, stage.steps)
        model.finish()
        _save_networks(model, folder / "networks")
        progress.stage.assign(number + 1)
        model.step.assign(0)
        progress.save()


def _callbacks(model, config, records, number, folder, evaluate, progress, writer) -> list[keras.callbacks.Callback]:
    """What happens every few steps of the present stage."""
    run, (name, stage) = config.run, list(config.stages.items())[number]
    losses = Losses(model, stage.steps, int(model.step.numpy()), run.log_every, writer)
    callbacks: list[keras.callbacks.Callback] = [losses, Checkpoints(progress, losses, run.checkpoint_every)]
    if run.pictures_every and model.presentation().has_pictures:
        kind = model.STAGES[name]
        few = stage.model_copy(update={"batch_size": PICTURED * samplers.ROW[kind.sampler]})
        sampler = samplers.of_stage(kind, few, records)
        plain = {"flip": False, "pad": 0, "grey": 0.0}
        batches = pipeline.training_batches(
            records, sampler, start=0, steps=1, **plain, **_seeds_and_size(config, number)
        )
        callbacks.append(Pictures(model, next(iter(batches)), run.pictures_every, folder, writer))
    if run.evaluate_every:
        callbacks.append(Evaluations(model, evaluate, run.evaluate_every, writer))
    return callbacks


def _seeds_and_size(config, number):
    return {"seed": config.run.seed, "stage": number, "image_size": config.data.image_size}


def _save_networks(model, folder):
    """Save the weights of the networks that the present stage has trained, each written beside, then renamed."""
    players = model.STAGES[model.stage].players
    trained = {id(variable) for player in players for variable in model.variables_of(player)}
    for network, weights in model.networks().items():
        if trained.isdisjoint(map(id, weights.trainable_variables)):
            continue
        path = folder / f"{network}.weights.h5"
        folder.mkdir(exist_ok=True)
        beside = path.with_name(f"unfinished_{path.name}")
        weights.save_weights(beside)
        beside.replace(path)


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


def _check_that_workers_agree(strategy, stage, step):
    """Make sure that all workers resume from the same step; otherwise they would wait for each other for ever."""
    if strategy.cluster_resolver is None:
        return

    @tf.function
    def sums():
        place = tf.constant([stage, step, stage**2, step**2], tf.int64)
        return strategy.reduce("SUM", strategy.run(lambda: place), axis=None)

    total = sums().numpy()
    if (strategy.num_replicas_in_sync * total[2:] != total[:2] ** 2).any():
        raise ValueError(
            f"The last checkpoint that this worker sees is of stage {stage}, step {step}, and another worker sees "
            "another one; --run must lie on storage that all workers share."
        )


class _EverySteps(keras.callbacks.Callback):
    """Calls `act(step)` after every n-th step of the stage, and after its last."""

    def __init__(self, model: ReIDModel, every: int, start: int | None = None) -> None:
        super().__init__()
        self.method, self.every = model, every
        self.step = int(model.step.numpy()) if start is None else start

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0:
            self.act(self.step)

    def on_train_end(self, logs=None):
        if self.step % self.every:
            self.act(self.step)

    def act(self, step: int) -> None:
        raise NotImplementedError


class Losses(_EverySteps):
    """Shows the mean of every loss in the progress bar and in TensorBoard; raises `NotFinite` if one is not finite."""

    def __init__(self, model: ReIDModel, steps: int, start: int, every: int, writer: Any) -> None:
        super().__init__(model, every, start)
        self.writer = writer
        self.waiting: list[Any] = []  # losses of the steps that are not shown yet
        self.bar = tqdm(total=steps, initial=start, desc=model.stage, unit="step", dynamic_ncols=True, mininterval=0.5)

    def on_train_batch_end(self, batch, logs=None):
        self.waiting.append(logs)
        super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self.bar.close()

    def act(self, step: int) -> None:
        if not self.waiting:
            return
        values = {name: np.array([float(losses[name]) for losses in self.waiting]) for name in self.waiting[0]}
        first = step - len(self.waiting) + 1
        self.waiting = []
        for name, series in values.items():
            if not np.isfinite(series).all():
                self.bar.close()
                at = first + int(np.flatnonzero(~np.isfinite(series))[0])
                raise NotFinite(
                    f"The loss {name} of stage {self.method.stage} is {series[at - first]} at step {at}; the "
                    "checkpoint before it is kept. A lower learning rate of its player is the usual remedy."
                )
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix({name.split("/")[-1]: f"{series.mean():.3g}" for name, series in values.items()})
        with self.writer.as_default(step=step):
            for name, series in values.items():
                tf.summary.scalar(f"{self.method.stage}/{name}", series.mean())
            for player, rate in self.method.learning_rates().items():
                tf.summary.scalar(f"{self.method.stage}/{player}/learning_rate", rate)


class Checkpoints(_EverySteps):
    """Saves a checkpoint every n steps, but none after a loss or a weight that is not finite."""

    def __init__(self, progress: Progress, losses: Losses, every: int) -> None:
        super().__init__(progress.model, every)
        self.progress, self.losses = progress, losses

    def on_train_end(self, logs=None):
        pass  # the training loop saves when a stage is finished

    def act(self, step: int) -> None:
        self.losses.act(step)
        check_weights(self.progress.model, step)
        self.progress.save()


class Pictures(_EverySteps):
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
            with self.writer.as_default(step=step):
                tf.summary.image(f"{self.method.stage}/{title}", grid[None])


class Evaluations(_EverySteps):
    """Logs the scores of every representation as curves."""

    def __init__(
        self, model: ReIDModel, evaluate: Callable[[], Mapping[str, Mapping[str, Any]]], every: int, writer: Any
    ) -> None:
        super().__init__(model, every)
        self.evaluate, self.writer = evaluate, writer

    def act(self, step: int) -> None:
        with self.method.averaged():
            scores = self.evaluate()
        with self.writer.as_default(step=step):
            for representation, metrics in scores.items():
                for name in ("rank1", "rank5", "rank10", "mAP", "mINP"):
                    tf.summary.scalar(f"{self.method.stage}/evaluation/{representation}/{name}", metrics[name])
