"""TensorBoard's files of a resumed run: every point once, also where their writer was killed."""

import tensorflow as tf

from tf_reid.runs.event_files import forget_after

STAGES = ["first", "second"]


def log(folder, points):
    """A file with these points, (tag, step)."""
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for tag, step in points:
            tf.summary.scalar(tag, float(step), step=step)
    writer.close()


def logged(folder):
    points = []
    for path in sorted(folder.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            points += [(value.tag, event.step) for value in event.summary.value]
    return points


def test_what_was_logged_after_the_checkpoint_is_removed(tmp_path):
    folder = tmp_path / "[a] *"
    log(folder, [("configuration", 0), ("first/loss", 2), ("first/loss", 4), ("second/loss", 2)])
    log(folder, [("second/loss", 4), ("second/evaluation/raw/mAP", 4), ("second/loss", 6)])
    (path,) = (path for path in folder.glob("events*") if ("second/loss", 6) in of_file(path))
    path.write_bytes(path.read_bytes()[:-5])  # as a killed writer leaves it
    (folder / ".unfinished_events").touch()
    untouched = [("first/loss", 2), ("first/loss", 4)]
    forget_after(folder, STAGES, 1, 4)
    assert logged(folder) == [*untouched, ("second/loss", 2), ("second/loss", 4), ("second/evaluation/raw/mAP", 4)]
    forget_after(folder, STAGES, 1, 0)
    assert logged(folder) == untouched and not (folder / ".unfinished_events").exists()
    forget_after(folder, STAGES, 0, 2)
    assert logged(folder) == untouched[:1]
    forget_after(folder, STAGES, 2, 0)
    assert logged(folder) == untouched[:1]
    forget_after(tmp_path / "nowhere", STAGES, 0, 0)


def test_all_later_stages_are_removed_where_a_damaged_checkpoint_was_skipped(tmp_path):
    log(tmp_path, [("first/loss", 2), ("second/loss", 2), ("third/loss", 2)])
    forget_after(tmp_path, [*STAGES, "third"], 0, 4)
    assert logged(tmp_path) == [("first/loss", 2)]


def of_file(path):
    events = tf.compat.v1.train.summary_iterator(str(path))
    return [(value.tag, event.step) for event in events for value in event.summary.value]
