"""Files appear whole or not at all."""

import errno
import os
import time

import pytest

from tf_reid import files


def test_a_text_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "metrics.json"
    files.write_text(path, "old")
    seen = []

    def killed(beside, goal):
        seen.append((beside.read_text(), goal.read_text()))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_text(path, "new")
    assert seen == [("new", "old")] and path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new" and [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_private_file_is_the_users_alone_and_a_long_name_is_no_obstacle(tmp_path):
    path = tmp_path / ("é" * 120 + ".json")  # 245 bytes of the 255 that a name may have
    files.write_text(path, "x")
    files.write_bytes(path, b"secret", private=True)
    assert path.read_bytes() == b"secret" and path.stat().st_mode & 0o777 == 0o600


def test_no_link_is_followed(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "page.html").symlink_to("elsewhere")
    files.write_text(tmp_path / "page.html", "mine")
    assert not (tmp_path / "page.html").is_symlink()
    monkeypatch.setattr(files.secrets, "token_hex", lambda _bytes: "guessed")
    (tmp_path / ".unfinished_guessed").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        files.write_text(tmp_path / "page.html", "other")
    assert (tmp_path / "elsewhere").read_text() == "theirs" and (tmp_path / "page.html").read_text() == "mine"


def test_a_failed_write_names_its_file_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old.json").write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*old\.json'"):
        files.write_text(tmp_path / "old.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_now_stays(tmp_path):
    for name, age in (("1", 3600), ("2", 0)):
        (tmp_path / f".unfinished_{name}").touch()
        os.utime(tmp_path / f".unfinished_{name}", (time.time() - age,) * 2)
    files.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished_2"]
