"""Checkpoints on the disk: found in any folder, checked before they are used, removed when they are old."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.runs import checkpoints

NAMES = ["run[1]", "[ab]*", "what?", "back\\slash", "100 % of é #1", "plain"]


@pytest.fixture
def saved(tmp_path):
    """(folder with ckpt-2 and ckpt-3, what was saved there): the value of `v` is the number of its checkpoint."""
    checkpoint, folder = tf.train.Checkpoint(v=tf.Variable([0.0] * 50)), tmp_path / "run" / "checkpoints"
    for number in (1, 2, 3):
        checkpoint.v.assign([float(number)] * 50)
        checkpoints.save(checkpoint, folder, {})
    return folder, checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files_of(*numbers):
    return sorted(f"ckpt-{number}.{part}" for number in numbers for part in ("index", "data-00000-of-00001"))


def test_checkpoints_are_found_and_removed_in_a_folder_of_any_name(tmp_path):
    for name in NAMES:
        folder = tmp_path / name / "checkpoints"
        checkpoint = tf.train.Checkpoint(v=tf.Variable(0))
        for number in (1, 2, 3):
            checkpoint.v.assign(number)
            checkpoints.save(checkpoint, folder, {})
        assert names(folder) == files_of(2, 3)
        assert checkpoints.newest(folder) == (3, {})
        again = tf.train.Checkpoint(v=tf.Variable(0))
        checkpoints.read(again, folder, 2).assert_consumed()
        assert int(again.v) == 2


def emptied(path):
    path.write_bytes(b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("damage", [emptied, cut_off, flipped, lambda path: path.unlink()])
def test_the_sound_one_before_a_damaged_one_is_used(saved, part, damage):
    folder, checkpoint = saved
    damage(folder / f"ckpt-3.{part}")
    (folder / "checkpoint").write_text("")  # where older versions named the last one
    number, damaged = checkpoints.newest(folder)
    assert number == 2 and list(damaged) == [3] and damaged[3]
    checkpoints.read(checkpoint, folder, number)
    assert checkpoint.v.numpy()[0] == 2
    checkpoints.save(checkpoint, folder, damaged)
    assert [one for one in names(folder) if one != "checkpoint"] == files_of(2, 4)  # the damaged one is none of the two


def test_a_run_without_a_sound_checkpoint_does_not_start_anew(saved):
    folder, _ = saved
    emptied(folder / "ckpt-2.index")
    (folder / "ckpt-3.index").unlink()
    sentence = r"cannot be read \(ckpt-3: ckpt-3\.index is missing; ckpt-2: .+\)\. Restore one .* or remove .*run to"
    with pytest.raises(ConfigError, match=sentence):
        checkpoints.newest(folder)
    for path in folder.iterdir():
        path.unlink()
    assert checkpoints.newest(folder) is None
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-3"')
    with pytest.raises(ConfigError, match="all their files are missing"):
        checkpoints.newest(folder)


def test_what_a_killed_save_left_is_no_checkpoint_and_is_removed(saved):
    folder, checkpoint = saved
    shutil.copy(folder / "ckpt-3.data-00000-of-00001", folder / "ckpt-4.data-00000-of-00001")  # has its name already
    shutil.copy(folder / "ckpt-3.index", folder / "unfinished_ckpt-4.index")
    for left in ("ckpt-5_temp", "unfinished_ckpt-6_temp"):
        (folder / left).mkdir()
        (folder / left / "part-00000-of-00001.data-00000-of-00001").touch()
    assert checkpoints.newest(folder) == (3, {})
    checkpoints.clean(folder)
    assert names(folder) == files_of(2, 3)
    checkpoints.save(checkpoint, folder, {})
    assert names(folder) == files_of(3, 4)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_disk_that_is_full_leaves_the_checkpoints_before_it(saved, call, monkeypatch):
    folder, checkpoint = saved
    really = checkpoint.write

    def full(path):
        really(path)
        # TensorFlow calls a file that is too large "out of range", as it calls the end of the data.
        raise tf.errors.OutOfRangeError(None, None, f"{path}: File too large [Op:MergeV2Checkpoints] name:")

    def failing(path):
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(checkpoint, "write", full)
    else:
        monkeypatch.setattr(checkpoints.files, "sync", failing)
    with pytest.raises(checkpoints.NotSaved, match=r"cannot be written to .*checkpoints \(.*(too large|No space left)"):
        checkpoints.save(checkpoint, folder, {})
    assert names(folder) == files_of(2, 3) and checkpoints.newest(folder) == (3, {})


def test_checkpoints_of_older_versions_are_read(tmp_path):
    folder, values = tmp_path / "checkpoints", np.arange(3.0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(values)), str(folder), max_to_keep=2)
    for _ in range(3):
        manager.save()
    assert checkpoints.newest(folder) == (3, {})
    again = tf.train.Checkpoint(v=tf.Variable(np.zeros(3)))
    checkpoints.read(again, folder, 3).assert_existing_objects_matched()
    np.testing.assert_array_equal(again.v.numpy(), values)
    checkpoints.save(again, folder, {})
    assert names(folder) == ["checkpoint", *files_of(3, 4)]
