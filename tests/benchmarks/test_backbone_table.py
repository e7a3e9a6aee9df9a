"""The table of backbones: what it counts, what it times, and its picture."""

import cv2
import pytest

from benchmarks import backbones


def test_a_row_of_the_table_and_the_plot(tmp_path, capsys):
    picture = tmp_path / "speed.webp"
    common = ["--size", "32", "16", "--batches", "1", "2", "--rounds", "1"]
    backbones.main(["small", *common, "--served", "--plot", str(picture), "--scores", "small=12.5"])
    header, _, row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    name, width, weights, products, *speeds = [cell.strip() for cell in row.strip("|").split("|")]
    assert (name, width, weights) == ("small", "256", "1.23")
    assert products == "0.008"  # a block has about 1.8 million, the first one 2.4
    assert len(speeds) == 3 and all(float(speed) > 0 for speed in speeds) and "embeddings/s" in header
    assert cv2.imread(str(picture)).shape[0] == 480


def test_a_last_stride_of_one_makes_larger_maps(capsys):
    counts = []
    for stride in ("2", "1"):
        backbones.main(["small", "--size", "32", "16", "--batches", "1", "--rounds", "1", "--last-stride", stride])
        counts.append(float(capsys.readouterr().out.splitlines()[-1].split("|")[4]))
    assert counts[1] > counts[0] > 0


def test_a_plot_without_scores_is_refused(capsys):
    with pytest.raises(SystemExit):
        backbones.arguments(["--plot", "speed.webp"])
    assert "--scores NAME=RANK1" in capsys.readouterr().err
