"""What the client does with files that cannot be sent: they are named, and the others are embedded."""

import os

import cv2
import numpy as np

from export import client

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
