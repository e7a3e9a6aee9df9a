"""Files appear whole or not at all."""

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
