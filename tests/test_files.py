"""Files appear whole or not at all; images are listed, and what is left out is printed."""

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


def test_where_one_process_alone_writes_all_that_is_unfinished_is_removed(tmp_path):
    for name in ("half_1", "kept"):
        (tmp_path / name).touch()
    (tmp_path / "half_2").mkdir()
    (tmp_path / "half_2" / "part").touch()
    files.remove_unfinished(tmp_path, "half_", one_writer=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_images_are_those_named_and_those_below_folders_and_what_is_left_out_is_printed(tmp_path, capsys):
    for name in (
        "crops/b.jpg",
        "crops/.hidden.jpg",
        "crops/a.jpg/1.PNG",
        "crops/notes.txt",
        "crops/more.txt",
        "upload",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = files.images_in([tmp_path / "upload", tmp_path / "crops"])
    assert [str(image.relative_to(tmp_path)) for image in images] == ["upload", "crops/a.jpg/1.PNG", "crops/b.jpg"]
    expected = f"Note: in {tmp_path}/crops 2 files are left out, without an image's suffix, such as more.txt.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ["run[1]", "[ab]*", "what?", "back\\slash", "]", "plain"])
def test_a_folder_whose_name_is_a_pattern_gets_another_path(tmp_path, name, monkeypatch):
    (tmp_path / name).mkdir()
    (tmp_path / name / "old").write_text("old")
    with files.without_pattern(tmp_path / name) as path:
        assert not set(str(path)) & set("[]*?\\") and (path / "old").read_text() == "old"
        (path / "new").write_text("new")
    assert (tmp_path / name / "new").read_text() == "new" and path.exists() == (name == "plain")
    monkeypatch.chdir(tmp_path / name)
    with files.without_pattern(files.Path()) as path:
        assert not set(str(path)) & set("[]*?\\") and (path / "old").exists()


def test_temporary_files_below_a_pattern_are_refused(tmp_path, monkeypatch):
    (tmp_path / "[tmp]").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "[tmp]"))
    with pytest.raises(ValueError, match="set TMPDIR"), files.without_pattern(tmp_path / "[tmp]"):
        pass
    assert list((tmp_path / "[tmp]").iterdir()) == []
