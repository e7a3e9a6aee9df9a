"""The training loop: stage by stage, from the last checkpoint on."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_reid import config as configuration
from tf_reid import files
from tf_reid.data import balancing, samplers
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import cluster, validation
from tf_reid.runs.callbacks import (
    Checkpoints,
    Evaluations,
    EverySteps,
    Losses,
    NotFinite,
    Pictures,
    Stop,
    check_weights,
    curves,
)
from tf_reid.runs.checkpoints import NotSaved, reason
from tf_reid.runs.event_files import EVERY_START, forget_after
from tf_reid.runs.progress import Progress
from tf_reid.runs.selection import Selection
from tf_reid.runs.stage_batches import augmented_batches, unaugmented_batches
from tf_reid.runs.stopping import Requested, StopRequests
from tf_reid.runs.strategy import on_devices
from tf_reid.settings import Config

__all__ = ["NotFinite", "NotSaved", "Unfinished", "check_batches", "train"]

PICTURED = 3  # rows of a batch in a grid


class Unfinished(RuntimeError):
    """TensorFlow reported the end of the data before a stage's last step."""


def check_batches(model: ReIDModel, config: Config, records: dict[str, Records]) -> None:
    """Make sure that every stage that has steps can draw its batches.

    Raises:
        ValueError: one cannot; the message says what to change.
    """
    for name, stage in config.stages.items():
        if stage.steps:
            balancing.sampler(config.data.balance, model.STAGES[name], stage, records)


def train(
    model: ReIDModel,
    config: Config,
    records: dict[str, Records],
    folder: Path,
    evaluate: Callable[[], Mapping[str, Mapping[str, Any]]],
    write_to: Path | None = None,
    held_out: Records | None = None,
    validate: Callable[[], Mapping[str, Mapping[str, Any]]] | None = None,
) -> None:
    """Train every stage that is not finished yet, from the run's last checkpoint on.

    Args:
        model: built and compiled inside its strategy's scope.
        records: the training images of `source` and `target`; see `splits.training_records`.
        folder: the run's folder, from whose last checkpoint training is resumed.
        evaluate: () -> representation -> metrics; logged as curves every `run.evaluate_every` steps.
        write_to: where this process writes, if not into the run's folder; see `cluster.own_folder`.
        held_out: the images of the validation identities, which stages that watch their loss need.
        validate: as `evaluate`, on the validation identities, every `run.validate_every` steps.

    Raises:
        NotFinite: a loss or a weight is NaN or infinite. The last checkpoint was saved before that.
        ConfigError: no checkpoint can be read, there are too few validation identities, or several workers do not
            share the run's folder.
        NotSaved: a file cannot be written. The last checkpoint stands.
        ValueError: such a stage lacks `held_out`.
        KeyboardInterrupt, SystemExit: the training was stopped by a signal, and has saved a checkpoint.
    """
    checked = validation.batches_of_stages(model, config, held_out)
    selection = Selection(model, config)
    progress = Progress(folder, model, write_to, selection.state())
    resumed = progress.restore()
    cluster.check_same_step(model.distribute_strategy, int(progress.stage), int(model.step.numpy()))
    folder = write_to or folder
    forget_after(folder / "tensorboard", list(config.stages), int(progress.stage), int(model.step.numpy()))
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with curves(writer, folder, step=0):
        tf.summary.text(EVERY_START, f"```yaml\n{configuration.dump(config)}```")
    with StopRequests(model.distribute_strategy) as stop:
        for number, (name, stage) in enumerate(config.stages.items()):
            if number < int(progress.stage):
                continue
            model.begin(name)
            start = int(model.step.numpy())
            if resumed and start:
                print(f"Resuming stage {name} at step {start} of {stage.steps}.")
            try:
                if start < stage.steps and not selection.has_ended(stage):
                    sampler = balancing.sampler(config.data.balance, model.STAGES[name], stage, records)
                    if repeated := samplers.repetition(model.STAGES[name], stage, records["source"]):
                        print(repeated)
                    batches = augmented_batches(config, number, records, sampler, start, stage.steps)
                    callbacks = _callbacks(model, config, records, number, folder, evaluate, progress, writer, stop)
                    losses = _losses(callbacks)
                    # Before evaluations: where one of them is stopped, a checkpoint holds what was chosen at this step.
                    callbacks[1:1] = validation.callbacks(
                        model, config, name, checked.get(name), validate, selection, losses
                    )
                    _train_stage(model, batches, stage.steps, callbacks)
                last = int(model.step.numpy())
                check_weights(model, last)
                model.finish()
                if kept := selection.finish(name, stage, last):
                    _write_kept(folder, name, kept)
                if stage.steps:
                    _save_networks(model, folder / "networks")
                progress.stage.assign(number + 1)
                model.step.assign(0)
                selection.clear()
                with curves(writer, folder, step=0):
                    writer.flush()  # before the checkpoint: what it holds is not logged again
                progress.save()
                stop.check()
            except Requested:
                step = int(model.step.numpy())
                finished = int(progress.stage) > number
                where = f"the end of stage {name}" if finished else f"stage {name} at step {step} of {stage.steps}"
                raise stop.end(where) from None


def _train_stage(model: ReIDModel, batches: tf.data.Dataset, last: int, callbacks: list[EverySteps]) -> None:
    """Train from the present step of a stage to its last one; if it is to stop before, save a checkpoint.

    Several steps are one call, which ends where a callback acts.

    Raises:
        Requested: it was stopped.
        Unfinished: TensorFlow says that the data have ended.
    """
    losses = _losses(callbacks)
    saving = next(each for each in callbacks if isinstance(each, Checkpoints))
    step = int(model.step.numpy())
    model.stop_training = False  # a callback may set it
    try:
        batch_by_batch = iter(on_devices(model.distribute_strategy, batches))
        while step < last and not model.stop_training:
            until_one_acts = min(each.every - step % each.every for each in callbacks)
            done, of_steps = model.advance(batch_by_batch, min(last - step, until_one_acts))
            step += done
            losses.add(step, of_steps)
            for each in callbacks:
                each.after(step)
        for each in callbacks:
            each.at_end(step)
    except Requested:
        saving.act(step)
        raise
    except tf.errors.OutOfRangeError as error:
        raise Unfinished(
            f"Stage {model.stage} ended at step {step} of {last} ({reason(error)}). No weights are written, and the "
            "last checkpoint stands; the same command resumes there. TF_REID_VERBOSE=1 shows what TensorFlow logs."
        ) from error
    finally:
        losses.bar.close()


def _losses(callbacks: list[EverySteps]) -> Losses:
    return next(each for each in callbacks if isinstance(each, Losses))


def _callbacks(model, config, records, number, folder, evaluate, progress, writer, stop) -> list[EverySteps]:
    """What happens every few steps of the present stage; first the losses are taken."""
    run, (name, stage) = config.run, list(config.stages.items())[number]
    losses = Losses(model, stage.steps, int(model.step.numpy()), run.log_every, writer, folder)
    callbacks: list[EverySteps] = [losses]
    if run.pictures_every and model.presentation().has_pictures:
        kind = model.STAGES[name]
        few = stage.model_copy(update={"batch_size": PICTURED * samplers.images_in_a_row(kind.sampler, stage)})
        sampler = samplers.of_stage(kind, few, records)
        batches = unaugmented_batches(config, number, records, sampler, steps=1)
        callbacks.append(Pictures(model, next(iter(batches)), run.pictures_every, folder, writer))
    if run.evaluate_every:
        callbacks.append(Evaluations(model, evaluate, run.evaluate_every, writer, folder, stop))
    # After pictures and scores: a run that is killed between the two resumes before them, and makes them.
    return [*callbacks, Checkpoints(progress, losses, run.checkpoint_every), Stop(model, stop, run.log_every)]


def _write_kept(folder, stage, kept):
    """Note in validation.json which step's weights of a stage are kept, with their score."""
    path = folder / "validation.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    files.write_text(path, json.dumps(before | {stage: kept}, indent=2) + "\n")


def _save_networks(model, folder):
    """Save the weights of the networks that the present stage has trained, each written beside, then renamed."""
    players = model.STAGES[model.stage].players
    trained = {id(variable) for player in players for variable in model.variables_of(player)}
    for network, weights in model.networks().items():
        if trained.isdisjoint(map(id, weights.trainable_variables)):
            continue
        path = folder / f"{network}.weights.h5"
        beside = path.with_name(f"unfinished_{path.name}")
        try:
            folder.mkdir(exist_ok=True)
            files.reserve(beside, _size_of_weights(weights))  # where the disk is full, HDF5 ends the process
            weights.save_weights(beside)
            files.sync(beside)
            beside.replace(path)
            files.sync(folder)
        except (OSError, RuntimeError) as error:
            beside.unlink(missing_ok=True)
            raise NotSaved(f"{path} cannot be written ({reason(error)}); the last checkpoint stands.") from None


def _size_of_weights(network):
    """At least as many bytes as a network's file has: HDF5 adds less than this to each variable."""
    return (
        sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size + 4096 for variable in network.weights) + 2**16
    )
