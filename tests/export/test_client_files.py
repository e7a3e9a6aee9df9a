"""What the client does with files that cannot be sent: they are named, and the others are embedded."""

import os

import cv2
import numpy as np
import pytest
from odd_images import picture, saved

from export import client
from tf_reid.encoders.image_checks import ImageError

SOUND, REFUSED = (
    cv2.imencode(".png", np.full((8, 4, 3), value, np.uint8))[1].tobytes() for value in (0, 255)
)  # as a server may refuse one that the client can read


def ask(images):
    if REFUSED in images:
        raise client.ServerError("no image", refused=True)
    return np.zeros((len(images), 2), np.float32)


def test_files_that_vanished_or_are_refused_are_named_and_the_others_embedded(tmp_path, capsys):
    files = [tmp_path / name for name in ("a", "gone", "b", "refused\n", os.fsdecode(b"\xff"))]
    for file in files:
        file.write_bytes(REFUSED if file.name == "refused\n" else SOUND)
    files[1].unlink()
    one = client.Client("http://127.0.0.1:1", "none")
    one._ask = ask
    assert [file for file, _ in client.embed_or_leave_out(one, files)] == [files[0], files[2], files[4]]
    printed = capsys.readouterr().out
    assert f"Left out: {tmp_path}/gone: It cannot be read: No such file" in printed
    assert f"Left out: {tmp_path}/refused\\n: no image" in printed


@pytest.fixture
def sent():
    """A client, and a list of what it sends."""
    contents = []
    one = client.Client("localhost:1", "reid")
    one._ask = lambda images: contents.extend(images) or np.zeros((len(images), 4), np.float32)
    return one, contents


def test_files_that_not_every_server_reads_are_sent_as_png_and_others_as_they_are(sent, tmp_path):
    files = {kind: tmp_path / f"{kind}.jpg" for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP")}
    for kind, file in files.items():
        file.write_bytes(saved(picture(), kind))
    one, contents = sent
    assert len(list(one.embed(files.values()))) == 5
    assert contents[:2] == [files["JPEG"].read_bytes(), files["PNG"].read_bytes()]
    assert all(content.startswith(b"\x89PNG") for content in contents[1:])


def test_a_damaged_file_is_named_and_the_others_are_sent(sent, tmp_path, capsys):
    one, contents = sent
    files = [tmp_path / name for name in ("good.jpg", "cut.jpg", "text.jpg", "gone.jpg")]
    whole = saved(picture(), "JPEG")
    for file, content in zip(files, (whole, whole[:-40], b"text"), strict=False):
        file.write_bytes(content)
    with pytest.raises(ImageError, match=r"Image 1 \(.*cut\.jpg\) is damaged: Premature end of JPEG file"):
        list(one.embed(files[:3]))
    contents.clear()
    assert [file for file, _ in client.embed_or_leave_out(one, files)] == files[:1] and contents == [whole]
    printed = capsys.readouterr().out
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    with pytest.raises(ImageError, match=r"Image 0 \(.*pipe\.jpg\) is not a file"):
        list(one.embed([tmp_path / "pipe.jpg"]))
    for name, reason in (("cut", "is damaged"), ("text", "is not a JPEG"), ("gone", "cannot be read: No such file")):
        assert f"Left out: {tmp_path}/{name}.jpg: It {reason}" in printed


def test_frames_are_sent_without_loss_in_the_colours_that_they_have(sent):
    one, contents = sent
    frame = picture()
    frames = [frame, frame[:, ::-1], np.asfortranarray(frame)]
    list(one.embed_frames(frames))
    for content, expected in zip(contents, frames, strict=True):
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(bgr[..., ::-1], expected)
    in_rgb = contents.copy()
    contents.clear()
    list(one.embed_frames((frame[..., ::-1] for frame in frames), bgr=True))
    assert contents == in_rgb


def test_a_frame_that_is_no_rgb_is_named_by_its_number(sent):
    frame = picture()
    for wrong, reason in (
        (np.dstack([frame, frame[..., 0]]), "RGBA"),
        (frame / 255.0, "float64"),
        (frame[..., 0], "Grey"),
        (frame[:0], "no pixel"),
    ):
        with pytest.raises(ValueError, match=f"Frame 1 is an array .*{reason}"):
            list(sent[0].embed_frames([frame, wrong]))
    with pytest.raises(ValueError, match="Frame 0 is 1000001 x 1 pixels; a side may have 65535"):
        list(sent[0].embed_frames([np.zeros((1, 1_000_001, 3), np.uint8)]))


def test_a_batch_of_files_that_cannot_be_read_leaves_the_sound_ones(sent, tmp_path):
    one, contents = sent
    (tmp_path / "sound").write_bytes(SOUND)
    files = [*(tmp_path / f"gone_{number}" for number in range(1500)), tmp_path / "sound"]
    assert [file for file, _ in client.embed_or_leave_out(one, files)] == files[-1:] and contents == [SOUND]


@pytest.mark.parametrize("batch", ["0", "-1", "many"])
def test_a_batch_of_no_image_is_refused(batch, capsys):
    with pytest.raises(SystemExit):
        client.arguments(["localhost:1", "reid", "crops", "--to", "it.npz", "--batch", batch])
    assert f"argument --batch: {batch} is not 1 or more" in capsys.readouterr().err
