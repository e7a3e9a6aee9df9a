"""The command: its table, a build, and its one-sentence errors."""

import pytest

from tfds_builders import DATASETS
from tfds_builders.__main__ import main


def test_table_lists_every_data_set_and_what_is_built(tmp_path, capsys, write_image):
    assert main(["--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0].split("/")[0] for line in lines[1:]} == set(DATASETS)
    viper = next(line for line in lines if line.startswith("viper "))
    assert viper.split()[1] == "no"
    assert "VIPeR.v1.0.zip" in viper and "research" in viper
    needs = {line.split()[0]: line.split()[2] for line in lines if line.startswith("msmt17/")}
    assert needs == {
        f"msmt17/{version}{val}": f"MSMT17_{version.upper()}.zip"
        for version in ("v1", "v2")
        for val in ("", "_trainval")
    }
    assert sum(line.split()[0] == "market1501" for line in lines) == 1
    assert any(line.startswith("market1501/multi_query ") for line in lines)


def test_build_of_a_folder(tmp_path, capsys, write_image):
    for identity in (1, 2):
        for camera in (1, 2):
            write_image(tmp_path / f"images/{identity}_c{camera}.jpg")
    arguments = ["build", "folder", "--root", str(tmp_path / "images"), "--data-dir", str(tmp_path / "data")]
    assert main([*arguments, "--pattern", r"(?P<person>\d)_c(?P<camera>\d)"]) == 0
    assert "train: 2\nquery: 1\ngallery: 1\n" in capsys.readouterr().out
    assert len(list((tmp_path / "data/folder").glob("images-images-*"))) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["build", "vipr"], "did you mean viper?"),
        (["build", "viper"], "put VIPeR.v1.0.zip"),
        (["build", "folder", "--root", "."], "give root and pattern, or csv"),
    ],
)
def test_error_is_one_sentence_and_code_1(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error and "Traceback" not in error


def test_wrong_usage_is_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["build", "viper", "--kind", "quadruplets"])
    assert stopped.value.code == 2


def test_interrupt_is_code_130(tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfds_builders.__main__.prepare", interrupted)
    assert main(["build", "viper", "--data-dir", str(tmp_path)]) == 130
    assert "nothing half-built" in capsys.readouterr().err
