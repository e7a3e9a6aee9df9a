"""TensorBoard's files of a run that is resumed: what was logged after its checkpoint is removed, and logged again.

TensorBoard itself would show these steps twice.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from tf_reid import files
from tf_reid.runs.checkpoints import NotSaved, reason

EVERY_START = "configuration"  # the tag of what is logged whenever a run is started


def forget_after(folder: Path, stages: Sequence[str], stage: int, step: int) -> None:
    """Remove what was logged after a step of a stage; call it where no other process writes these files.

    Args:
        folder: which holds TensorBoard's files; it need not exist.
        stages: the names of all stages, with which the tags of their curves and pictures begin.
        stage, step: the number of the stage and its step from which the run is resumed.

    Raises:
        NotSaved: a file cannot be written.
    """
    gone = {EVERY_START, *stages[stage + 1 :]}
    present = set(stages[stage : stage + 1])

    def stays(event: tf.compat.v1.Event) -> bool:
        begins = {value.tag.partition("/")[0] for value in event.summary.value}
        return not begins & gone and not (begins & present and event.step > step)

    if not folder.is_dir():
        return
    files.remove_unfinished(folder, one_writer=True)
    for path in sorted(folder.glob("events*")):
        beside = path.with_name(f"{files.UNFINISHED}{path.name}")
        try:
            changed = _copy(path, beside, stays)
            beside.replace(path) if changed else beside.unlink()
        except (tf.errors.OpError, OSError) as error:
            raise NotSaved(f"{path} cannot be written ({reason(error)}); the last checkpoint stands.") from None


def _copy(path: Path, to: Path, stays: Callable[[tf.compat.v1.Event], bool]) -> bool:
    """Copy the events that stay, up to where the file's writer was killed; whether the copy is another."""
    changed = False
    with tf.io.TFRecordWriter(str(to)) as writer:
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                content = record.numpy()
                if stays(tf.compat.v1.Event.FromString(content)):
                    writer.write(content)
                else:
                    changed = True
        except tf.errors.DataLossError:
            changed = True
    return changed
