"""What lies in a run's folder, for `benchmarks.kills`: how far it is, damages to it, and two runs compared."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf

from tf_reid.runs import checkpoints

DATA = "data-00000-of-00001"
STAGE, STEP = (f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("stage", "model/step"))
OWN = {"_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE"}  # of a checkpoint, not of a training


def is_writing(run: Path) -> bool:
    """Whether a file of a checkpoint or of a network's weights is there under a name for the time being."""
    names = [path.name for kind in ("checkpoints", "networks") for path in (run / kind).glob("*")]
    return any("temp" in name or "tmp" in name or name.startswith(("unfinished_", ".")) for name in names)


def reached(run: Path) -> tuple[int, int] | None:
    """The stage and step of the newest checkpoint that can be read; None: there is none."""
    folder = run / "checkpoints"
    for number in reversed(checkpoints.numbers(folder)):
        try:
            reader = tf.train.load_checkpoint(str(folder / f"ckpt-{number}"))
            return int(reader.get_tensor(STAGE)), int(reader.get_tensor(STEP))
        except (tf.errors.OpError, ValueError, IndexError, RuntimeError):  # removed or not yet whole
            continue
    return None


# --------------------------------------------------------------------- damages


def newest(folder: Path, suffix: str) -> Path:
    """A file of the newest checkpoint."""
    return folder / f"ckpt-{checkpoints.numbers(folder)[-1]}.{suffix}"


def cut_off(folder: Path) -> None:
    data = newest(folder, DATA)
    os.truncate(data, data.stat().st_size // 2)


def lose_index(folder: Path) -> None:
    newest(folder, "index").unlink()


def empty_state(folder: Path) -> None:
    (folder / "checkpoint").write_bytes(b"")  # which older versions wrote, to name the newest


def flip_a_bit(folder: Path) -> None:
    data = newest(folder, DATA)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def leave_temporary_files(folder: Path) -> None:
    number = checkpoints.numbers(folder)[-1]
    left = folder / f"ckpt-{number + 1}_temp"
    left.mkdir(exist_ok=True)
    (left / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half a save")


DAMAGES = {
    "data cut off": cut_off,
    "index removed": lose_index,
    "state emptied": empty_state,
    "bit flipped": flip_a_bit,
    "_temp left": leave_temporary_files,
}


# --------------------------------------------------------------------- comparison


def differences(reference: Path, run: Path, with_curves: bool = False) -> Iterator[str]:
    """What of a finished run is not, bit for bit, as in the reference, in words.

    Args:
        with_curves: compare what TensorBoard shows, too. A run that SIGTERM has stopped logs a point at its last step.
    """
    expected, found = names(reference), names(run)
    yield from (f"{name} is missing" for name in sorted(expected.keys() - found.keys()))
    yield from (f"{name} was left" for name in sorted(found.keys() - expected.keys()))
    for name in sorted(expected.keys() & found.keys()):
        both = expected[name], found[name]
        if name.endswith(".weights.h5"):
            yield from unequal(name, *map(weights, both))
        elif name.endswith(".index"):
            yield from unequal("the last checkpoint", *map(variables, both))
        elif (name == "metrics.json" or name.endswith(".npy")) and both[0].read_bytes() != both[1].read_bytes():
            yield f"{name} differs"
    if with_curves:
        yield from unequal("what is logged", logged(reference), logged(run))


def names(run: Path) -> dict[str, Path]:
    """The names of a run's files -> the files, of the checkpoints and features without what differs from run to run.

    TensorBoard begins a file for each start. `checkpoints/checkpoint` is of older versions, and is let be.
    """
    found = {}
    for path in sorted(run.rglob("*"), key=lambda path: (len(path.name), path.name)):  # ckpt-10 behind ckpt-9
        name = str(path.relative_to(run))
        name = re.sub(r"^checkpoints/ckpt-\d+", "checkpoints/ckpt-N", name)
        name = re.sub(r"_[0-9a-f]{8}\.npy$", ".npy", name)
        if not name.startswith("tensorboard") and name != "checkpoints/checkpoint":
            found[name] = path
    return found


def weights(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def variables(index: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(index.with_suffix("")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name not in OWN}


def logged(run: Path) -> dict[str, np.ndarray]:
    """Tag, step and number of every point that a run has logged -> its bytes; the second of a step has the number 2."""
    found: dict[str, np.ndarray] = {}
    for path in sorted((run / "tensorboard").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                place, number = f"{value.tag} {event.step}", 1
                while f"{place} {number}" in found:
                    number += 1
                found[f"{place} {number}"] = np.frombuffer(value.tensor.SerializeToString(), np.uint8)
    return found


def unequal(where: str, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Iterator[str]:
    """The names of the arrays that do not have the same bits, as one sentence."""
    wrong = sorted(expected.keys() ^ found.keys())
    for name in sorted(expected.keys() & found.keys()):
        a, b = np.asarray(expected[name]), np.asarray(found[name])
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            wrong.append(name)
    if wrong:
        yield f"{where}: {len(wrong)} of {len(expected)} arrays differ, such as {wrong[0]}"
