"""What the client does with files that cannot be sent: they are named, and the others are embedded."""

import os

import numpy as np

from export import client


class Refusing:
    """A server that refuses what is not sound."""

    def embed(self, files):
        for file in files:
            if file.read_bytes() != b"sound":
                raise client.ServerError("no image", refused=True)
            yield np.zeros(2, np.float32)


def test_files_that_vanished_or_are_refused_are_named_and_the_others_embedded(tmp_path, capsys):
    files = [tmp_path / name for name in ("a", "gone", "b", "bad\n", os.fsdecode(b"\xff"))]
    for file in files:
        file.write_bytes(b"sound" if file.name != "bad\n" else b"bad")
    files[1].unlink()
    embedded = client.embed_or_leave_out(Refusing(), files)
    assert [file for file, _ in embedded] == [files[0], files[2], files[4]]
    printed = capsys.readouterr().out
    assert f"Left out: {tmp_path}/gone: [Errno 2] No such file" in printed
    assert f"Left out: {tmp_path}/bad\\n: no image" in printed
