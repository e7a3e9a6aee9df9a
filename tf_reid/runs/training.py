"""The training loop: one `fit` a stage, with checkpoints, a progress bar, TensorBoard and pictures."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_reid import config as configuration
from tf_reid.config import Config
from tf_reid.data import pipeline, samplers
from tf_reid.methods.base import ReIDModel
from tf_reid.pictures import grids
from tf_reid.runs.run_folder import Progress

PICTURED = 3  # rows of a batch in a grid


class NotFinite(RuntimeError):
    """A loss became NaN or infinite; the message names it and the step."""


def train(model, config: Config, records, folder: Path, evaluate: Callable[[], dict], write_to: Path | None = None):
    """Train every stage of the method that is not finished yet, going on from the run's last checkpoint.

    Args:
        model: built and compiled inside its strategy's scope.
        records: what may be trained on, of `source` and `target`; see `splits.training_records`.
        folder: the run's folder, whose last checkpoint is gone on from.
        evaluate: () -> representation -> metrics; drawn as curves every `run.evaluate_every` steps.
        write_to: where this process writes, if not into the run's folder; see `run_folder.own_folder`.

    Raises:
        NotFinite: a loss is NaN or infinite. The last checkpoint is from before that.
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
            print(f"Going on with stage {name} at step {start} of {stage.steps}.")
        kind, augment = model.STAGES[name], config.data.augment
        place = {"seed": config.run.seed, "stage": number, "image_size": config.data.image_size}
        if start < stage.steps:
            losses = Losses(model, stage.steps, start, config.run.log_every, writer)
            callbacks = [losses, Checkpoints(progress, losses, config.run.checkpoint_every)]
            if config.run.pictures_every and type(model).pictures is not ReIDModel.pictures:
                sampler = samplers.of_stage(
                    kind, stage.model_copy(update={"batch_size": PICTURED * samplers.ROW[kind.sampler]}), records
                )
                shown = pipeline.training_batches(
                    records, sampler, start=0, steps=1, flip=False, pad=0, grey=0.0, **place
                )
                callbacks.append(Pictures(model, next(iter(shown)), config.run.pictures_every, folder, writer))
            if config.run.evaluate_every:
                callbacks.append(Evaluations(model, evaluate, config.run.evaluate_every, writer))
            sampler = samplers.of_stage(kind, stage, records)
            batches = pipeline.training_batches(
                records, sampler, start=start, steps=stage.steps, **augment.model_dump(), **place
            )
            model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        check_weights(model, stage.steps)
        model.finish()
        trained = {id(variable) for player in kind.players for variable in model.variables_of(player)}
        for network, weights in model.networks().items():
            if trained.isdisjoint(map(id, weights.trainable_variables)):
                continue
            path = folder / "networks" / f"{network}.weights.h5"
            path.parent.mkdir(exist_ok=True)
            beside = path.with_name(f"unfinished_{path.name}")
            weights.save_weights(beside)
            beside.replace(path)
        progress.stage.assign(number + 1)
        model.step.assign(0)
        progress.save()


def check_weights(model, step):
    """Raise `NotFinite` if a player of the present stage has weights that are NaN or infinite.

    A loss says so only one step later, and after a stage's last step nobody asks for it.
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
    """Several workers must go on from the same step: others would train apart, then wait for each other for ever."""
    if strategy.cluster_resolver is None:
        return

    @tf.function
    def sums():
        place = tf.constant([stage, step, stage**2, step**2], tf.int64)
        return strategy.reduce("SUM", strategy.run(lambda: place), axis=None)

    total = sums().numpy()
    if (strategy.num_replicas_in_sync * total[2:] != total[:2] ** 2).any():
        raise ValueError(
            f"This worker's run folder stands at stage {stage}, step {step}, another's elsewhere; --run must lie on "
            "storage that all workers share."
        )


class _EverySteps(keras.callbacks.Callback):
    """Calls `act(step)` after every n-th step of the stage, and after its last."""

    def __init__(self, model, every, start=None):
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

    def act(self, step):
        raise NotImplementedError


class Losses(_EverySteps):
    """Shows every loss's mean since the last look, on the progress bar and in TensorBoard; stops at NaN or infinity."""

    def __init__(self, model, steps, start, every, writer):
        super().__init__(model, every, start)
        self.writer, self.waiting = writer, []
        self.bar = tqdm(total=steps, initial=start, desc=model.stage, unit="step", dynamic_ncols=True, mininterval=0.5)

    def on_train_batch_end(self, batch, logs=None):
        self.waiting.append(logs)
        super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self.bar.close()

    def act(self, step):
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
    """Saves every n steps, never a state with a loss or a weight that is not finite."""

    def __init__(self, progress, losses, every):
        super().__init__(progress.model, every)
        self.progress, self.losses = progress, losses

    def on_train_end(self, logs=None):
        pass  # the training loop saves when a stage is finished

    def act(self, step):
        self.losses.act(step)
        check_weights(self.progress.model, step)
        self.progress.save()


class Pictures(_EverySteps):
    """Grids of the method's pictures of one fixed batch, in TensorBoard and as PNG files."""

    def __init__(self, model, batch, every, folder, writer):
        super().__init__(model, every)
        self.batch, self.folder, self.writer = batch, folder, writer

    def act(self, step):
        with self.method.averaged():
            drawn = self.method.pictures(self.batch)
        for title, (columns, images) in drawn.items():
            rows = np.stack([pipeline.to_uint8(column) for column in images], axis=1)
            grid = grids.grid(rows, column_titles=columns)
            name = f"{self.method.stage}_{title.replace(' ', '_')}_{step:06d}.png"
            grids.write_png(self.folder / "pictures" / name, grid)
            with self.writer.as_default(step=step):
                tf.summary.image(f"{self.method.stage}/{title}", grid[None])


class Evaluations(_EverySteps):
    """Scores of every representation as curves."""

    def __init__(self, model, evaluate, every, writer):
        super().__init__(model, every)
        self.evaluate, self.writer = evaluate, writer

    def act(self, step):
        with self.method.averaged():
            scores = self.evaluate()
        with self.writer.as_default(step=step):
            for representation, metrics in scores.items():
                for name in ("rank1", "rank5", "rank10", "mAP", "mINP"):
                    tf.summary.scalar(f"{self.method.stage}/evaluation/{representation}/{name}", metrics[name])
