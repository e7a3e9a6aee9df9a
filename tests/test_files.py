"""Files appear whole or not at all; images are listed, and what is left out is printed."""

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
