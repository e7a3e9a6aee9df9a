"""What names and tables say of images: labels in one way of writing, junk and distractors, rows and files."""

import re

import pytest

from tfds_builders import DatasetError, labels
from tfds_builders.listing import Named


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("1", "1"),
        ("0001", "1"),
        (" 7.0 ", "7"),
        ("7.", "7"),
        ("+7", "7"),
        ("-1.0", "-1"),
        ("-01", "-1"),
        ("0.0", "0"),
        ("-0", "0"),
        ("000", "0"),
        ("7.5", "7.5"),
        ("1e3", "1e3"),
        ("9" * 5000, "9" * 5000),
        ("0" * 5000 + "3", "3"),
        ("\u0663", "3"),
        ("e\u0301va", "\u00e9va"),
        ("\u5f20 \u4f1f", "\u5f20 \u4f1f"),
        ("two\n  lines", "two lines"),
        ("anna", "anna"),
        ("", None),
        (" \t", None),
        (None, None),
        ("a\udcff", r"a\xff"),
    ],
)
def test_a_label_is_written_in_one_way(written, normal):
    assert labels.normal(written) == normal


def test_labels_are_in_numerical_order_if_all_are_numbers_of_any_size():
    numbers = ["10", "9", "-2", "1" + "0" * 5000, str(2**63)]
    assert labels.in_order(numbers) == ["-2", "9", "10", str(2**63), "1" + "0" * 5000]
    assert labels.in_order(["10", "9", "x"]) == ["10", "9", "x"]


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("none", set()),
        (None, set()),
        ("", set()),
        (0, {"0"}),
        (0.0, {"0"}),
        ([1.0, 2.5], {"1", "2.5"}),
        ("000, x", {"0", "x"}),
        ([7, "8.0"], {"7", "8"}),
    ],
)
def test_settings_name_a_label_several_or_none(setting, found):
    assert labels.meaning(setting, "-1") == labels.Meaning(frozenset(found), frozenset({"-1"}))


def test_one_label_cannot_be_distractor_and_junk():
    with pytest.raises(DatasetError, match="the identity 0 cannot be both distractor and junk"):
        labels.meaning("0", "0000")


# --------------------------------------------------------------------- patterns


def rows_of(pattern, *names, marks=labels.STANDARD):
    sentences = []
    images = [Named(name, name) for name in names]
    rows = labels.by_pattern(re.compile(pattern), images, "here", sentences.append)
    return labels.without_junk(rows, marks, sentences.append), sentences


PATTERN = r"(?P<person>\d+)_c(?P<camera>\d+)"


@pytest.mark.parametrize("name", ["-1_c1s1.jpg", "gallery/-1_c1.jpg", "a_-1_c1.jpg", "x/-01_c1.jpg"])
def test_a_number_behind_a_minus_sign_that_the_pattern_does_not_take_is_junk(name):
    rows, sentences = rows_of(PATTERN, name, "1_c2.jpg")
    assert [row.file for row in rows] == ["1_c2.jpg"]
    assert sentences[0].startswith(
        f"1 of 2 images have a minus sign before their identity, such as {name}, which counts"
    )
    assert sentences[1].startswith("1 image is of identity -1: junk, which is left out")


@pytest.mark.parametrize("name", ["frame-1_c1.jpg", "2024-1_c1.jpg", "1_c1.jpg", "a-/1_c1.jpg"])
def test_a_hyphen_between_words_is_no_sign(name):
    rows, sentences = rows_of(PATTERN, name)
    assert rows[0].identity == "1" and not sentences


def test_a_number_with_a_sign_is_an_identity_where_it_is_no_junk():
    rows, _ = rows_of(PATTERN, "-1_c1.jpg", "1_c1.jpg", marks=labels.meaning(junk="none"))
    assert [row.identity for row in rows] == ["-1", "1"]


def test_images_that_do_not_match_are_counted_and_none_that_does_is_an_error():
    rows, sentences = rows_of(PATTERN, "cover.jpg", "0003_c04.jpg", "2\n.jpg")
    assert (rows[0].identity, rows[0].camera) == ("3", "4")
    assert sentences == ["2 of 3 images do not match the pattern and are left out, such as cover.jpg"]
    with pytest.raises(DatasetError, match=r"matches no image in here; one is co\\nver.jpg"):
        rows_of(PATTERN, "co\nver.jpg")


def test_distractors_stay_and_are_counted():
    rows, sentences = rows_of(PATTERN, "0000_c1.jpg", "0_c2.jpg", "1_c1.jpg")
    assert [row.identity for row in rows] == ["0", "0", "1"]
    (sentence,) = sentences
    assert sentence.startswith("2 images are of identity 0: distractors, which match no query; if it is one of your")
    assert sentence.endswith("set distractor to none")
    assert rows_of(PATTERN, "0_c2.jpg", marks=labels.meaning("none"))[1] == []


# --------------------------------------------------------------------- tables


@pytest.fixture
def root(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "elsewhere.jpg", "crops/back\\slash.jpg"):
        path = tmp_path / "root" / name if name != "elsewhere.jpg" else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


def rows_in(root, *lines, header="path,person,camera"):
    (root / "labels.csv").write_text("\n".join([header, *lines]))
    return labels.by_table(root / "labels.csv", root, {"path": ""})


def test_paths_are_relative_absolute_upwards_or_as_windows_writes_them(root):
    paths = ["a/../a/1.jpg", "a\\2.jpg", "../elsewhere.jpg", "crops/back\\slash.jpg"]
    rows = rows_in(root, *(f"{path},1.0,02" for path in paths))
    upwards = (root.parent / "elsewhere.jpg").as_posix()
    assert [row.file for row in rows] == ["a/1.jpg", "a/2.jpg", upwards, "crops/back\\slash.jpg"]
    assert all(row.path.is_file() and row.labels == ("1", "2", None, None, None) for row in rows)
    assert rows_in(root, f"{root / 'a/1.jpg'},1,1")[0].file == "a/1.jpg"


def test_equal_rows_are_one_and_rows_that_differ_are_both_named(root):
    (root / "link.jpg").symlink_to(root / "a/1.jpg")
    assert len(rows_in(root, "a/1.jpg,1,2", "./a/1.jpg, 001 ,2.0", "link.jpg,1,2")) == 1
    message = (
        r"row 3 of .* names link.jpg again, after row 2 of .*, with other labels: person 1 there, person 2 camera 3"
    )
    with pytest.raises(DatasetError, match=message):
        rows_in(root, "a/1.jpg,1,", "link.jpg,2,3")


def test_rows_without_a_file_are_named_by_their_number(root):
    with pytest.raises(DatasetError, match=r"row 3 of .*labels.csv has no path \(2 more rows are wrong\)"):
        rows_in(root, "a/1.jpg,1,1", ",1,1", "C:\\data\\1.jpg,1,1", "a,1,1")
    with pytest.raises(DatasetError, match=r"row 2 of .* which does not exist"):
        rows_in(root, "a/none.jpg,1,1")
    with pytest.raises(DatasetError, match=r"row 2 of .*root/a, which is no file"):
        rows_in(root, "a,1,1")
    with pytest.raises(DatasetError, match=r"row 2 of .* which does not exist"):
        rows_in(root, "a" * 5000 + ".jpg,1,1")


def test_one_table_serves_training_and_search(root):
    header = "time,PATH,person,modality,split,camera"
    (row,) = rows_in(root, "2026-11-22T10:00,a/1.jpg,anna,infrared,query,door", header=header)
    assert row.labels == ("anna", "door", "query", "infrared", "2026-11-22T10:00")
