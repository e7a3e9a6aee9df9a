"""Which files a folder gives: hidden ones, links, pipes, names of every kind."""

import os
import socket
import subprocess
import sys

import pytest

from tfds_builders import listing


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder):
    """-> the images, and the sentences about what is left out."""
    sentences = []
    return listing.images_below(folder, sentences.append), sentences


def test_images_of_all_folders_are_listed_in_order_by_their_suffix_in_any_case(root):
    names = ["a.JPG", "a/1.jpeg", "a/2.Png", "b.tif", "b/c/d.webp", "e.bmp", "f.TIFF", "g.gif"]
    touch(*(root / name for name in names), root / "labels.csv", root / "a/notes.txt", root / "jpg")
    images, sentences = listed(root)
    assert images == sorted(names)
    (sentence,) = sentences
    assert sentence == f"in {root} 3 files are left out, without an image's suffix, such as a/notes.txt"


def test_hidden_files_and_copies_are_left_out_but_not_the_folder_that_is_named(tmp_path):
    root = tmp_path / ".crops"
    copies = [".ipynb_checkpoints/1.jpg", "._1.jpg", ".DS_Store", "Thumbs.db", "__MACOSX/1.jpg", "a/@eaDir/1.jpg"]
    touch(root / "1.jpg", root / "a/2.jpg", *(root / name for name in copies))
    assert listed(root) == (["1.jpg", "a/2.jpg"], [])


def test_a_folder_is_a_folder_whatever_its_name_ends_in(root):
    touch(root / "0001_c1.jpg/img.jpg", root / "x.png/y.jpg/z.jpg")
    assert listed(root) == (["0001_c1.jpg/img.jpg", "x.png/y.jpg/z.jpg"], [])


def test_linked_folders_are_followed_and_each_folder_is_read_once(root, tmp_path):
    touch(root / "a/1.jpg", root / "own/2.jpg", tmp_path / "elsewhere/deep/3.jpg", tmp_path / "beside.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "before_own").symlink_to(root / "own")
    (root / "a/up").symlink_to(root)
    (root / "a/further_up").symlink_to(tmp_path)
    (tmp_path / "elsewhere/deep/circle").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to(tmp_path / "beside.jpg")
    images, sentences = listed(root)
    assert images == ["a/1.jpg", "b/deep/3.jpg", "file.jpg", "own/2.jpg"]
    assert sentences == [
        f"{root}/a/further_up is a link to a folder above it and is left out",
        f"{root}/a/up is a link to a folder above it and is left out",
        f"{root}/b/deep/circle is a link to a folder above it and is left out",
        f"{root}/before_own leads to a folder that is read already and is left out",
        f"{root}/c leads to a folder that is read already and is left out",
    ]


def test_pipes_sockets_and_links_that_lead_nowhere_are_named_and_never_opened(root):
    touch(root / "1.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "gone_folder").symlink_to(root / "nowhere")
    (root / "itself.jpg").symlink_to(root / "itself.jpg")
    (root / "device.jpg").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as end:
        here = os.getcwd()
        os.chdir(root)  # a socket's path must be short
        end.bind("socket.jpg")
        os.chdir(here)
    images, sentences = listed(root)
    assert images == ["1.jpg"]
    assert sentences[:4] == [
        f"{root}/device.jpg is no file but a pipe, socket or device and is left out",
        f"{root}/gone.jpg is a link that leads nowhere and is left out",
        f"{root}/gone_folder is a link that leads nowhere and is left out",
        f"{root}/itself.jpg is a link that leads nowhere and is left out",
    ]
    assert sentences[5] == f"1 more links, pipes or folders in {root} are left out"


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_listed(root, monkeypatch):
    touch(root / "1.jpg", root / "closed/2.jpg", root / "open/3.jpg")
    scandir = os.scandir

    def refuse(place):
        if os.path.basename(place) == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    images, sentences = listed(root)
    assert images == ["1.jpg", "open/3.jpg"]
    assert sentences == [f"the folder {root}/closed cannot be read and is left out: Permission denied"]


def test_names_in_any_script_stay_and_equal_looks_are_two_files(root):
    names = [
        "e\u0301.jpg",
        "\u00e9.jpg",
        "\u0430\u043d\u043d\u0430/1.jpg",
        "\u5f20.jpg",
        "two\nlines.jpg",
        "\x1b[2J.jpg",
        " .jpg",
        "a b.jpg",
    ]
    touch(*(root / name for name in names))
    assert listed(root) == (sorted(names), [])


def test_a_name_that_is_no_utf_8_is_listed_and_can_be_stored_and_shown(root):
    root.mkdir()
    (root / os.fsdecode(b"back\\slash_\xff.jpg")).touch()
    ((name,), _) = listed(root)
    assert (root / name).exists()
    assert listing.as_text(name) == r"back\\slash_\xff.jpg" and listing.as_text("back\\slash.jpg") == "back\\slash.jpg"
    listing.as_text("\ud800").encode()  # no file's name, but perhaps a text from elsewhere
    listing.shown(name).encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("gpj.\u202egpj", r"gpj.\u202egpj"),
        (
            "\u0430\u043d\u043d\u0430 \u5f20 \u0645\u06cc\u200c\u062e",
            "\u0430\u043d\u043d\u0430 \u5f20 \u0645\u06cc\u200c\u062e",
        ),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        (f"a{6000 * '/x'}.png", f"a{124 * '/x'}/…{123 * '/x'}.png"),
    ],
)
def test_a_name_is_shown_on_one_line_without_control_characters(name, shown):
    assert listing.shown(name) == shown


def test_a_file_that_is_named_is_taken_whatever_its_suffix_and_a_pipe_is_refused(root, tmp_path):
    touch(root / "a/1.jpg", tmp_path / "upload.tmp")
    sentences = []
    named = listing.named_images([tmp_path / "upload.tmp", root], sentences.append)
    assert named == [("upload.tmp", tmp_path / "upload.tmp"), ("a/1.jpg", root / "a/1.jpg")] and not sentences
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("pipe.jpg", "pipe.jpg is no file but a pipe, socket or device"),
        ("link.jpg", "There is no .*link.jpg: it is a link that leads nowhere"),
        ("nowhere", r"There is no .*nowhere\."),
        ("empty", "There is no image in .*empty"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            listing.named_images([tmp_path / name], sentences.append)


def test_reading_lists_and_tables_needs_the_standard_library_only():
    code = "import sys, tfds_builders.labels; print({'numpy', 'cv2', 'tensorflow_datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
