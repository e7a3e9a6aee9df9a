"""The search command from images to ranked crops, through an exported model."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE

from tf_reid import search
from tf_reid.config import ConfigError
from tf_reid.encoders import loading
from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.servable import Servable
from tf_reid.gallery import crops


@pytest.fixture
def model(tmp_path, encoder):
    """An exported model, version 2 of two; its digest is that of version 1 but for one letter."""
    for version in (1, 2):
        servable = Servable(encoder, SIZE, False, unit=True)
        folder = tmp_path / "models" / "reid" / str(version)
        tf.saved_model.save(servable, str(folder), signatures=servable.signatures())
        about = {"digest": f"d{version}", "role": "image", "distance": "cosine", "width": 5}
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "model.json").write_text(json.dumps(about))
    return tmp_path / "models" / "reid"


@pytest.fixture
def folder(tmp_path):
    """Ten persons before three cameras: each of one colour, with some noise."""
    rng = np.random.default_rng(0)
    (tmp_path / "crops").mkdir()
    for identity in range(1, 11):
        colour = rng.integers(256, size=3)
        for camera in range(3):
            image = np.clip(colour + rng.normal(0, 8, (*SIZE, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "crops" / f"{identity:02d}_c{camera}_2026-11-2{camera}T10.png"), image)
    return tmp_path / "crops"


PATTERN = r"(?P<person>\d+)_c(?P<camera>\d)_(?P<time>[\dT-]+)"


@pytest.fixture
def built(tmp_path, model, folder):
    place = ["--index", str(tmp_path / "gallery")]
    search.main(
        ["build", *place, "--model", str(model), str(folder), "--pattern", PATTERN, "--false-accept-rate", "0.2"]
    )
    return place


def test_a_gallery_is_built_searched_and_described(built, folder, capsys):
    capsys.readouterr()
    query = str(folder / "04_c1_2026-11-21T10.png")
    (matches,) = search.main(["query", *built, query, "--not-cameras", "01", "--top", "4"])
    assert matches[0].record.identity == "4" and {match.record.camera for match in matches} == {"0", "2"}
    printed = capsys.readouterr().out
    assert "04_c1" in printed and "identity      4" in printed and "2026-11-20 10:00" in printed
    (matches,) = search.main(["query", *built, query, "--since", "2026-11-21", "--until", "2026-11-21T23:59", "--json"])
    assert matches[0].record.path == query and {match.record.camera for match in matches} == {"1"}
    answer = json.loads(capsys.readouterr().out)
    assert (
        answer[0]["matches"][0]["rank"] == 1 and answer[0]["unknown"] is False and answer[0]["matches"][0]["accepted"]
    )
    stats = search.main(["stats", *built])
    assert stats["images"] == 30 and stats["identities"] == 10 and stats["cameras"] == 3 and stats["digest"] == "d2"
    printed = capsys.readouterr().out
    assert "since                 2026-11-20 10:00" in printed and "false accept rate     20 %" in printed


def test_what_is_there_is_not_embedded_again(built, folder, model, monkeypatch, capsys):
    cv2.imwrite(str(folder / "11_c0_2026-11-20T10.png"), np.zeros((*SIZE, 3), np.uint8))
    (folder / "12_c0_2026-11-20T10.png").write_text("no image")
    seen = []
    own = Encoder.embed

    def embed(self, images, *args, **kwargs):
        seen.extend(images)
        return own(self, images, *args, **kwargs)

    monkeypatch.setattr(Encoder, "embed", embed)
    search.main(["add", *built, str(folder), "--pattern", PATTERN])
    printed = capsys.readouterr().out
    assert len(seen) == 2 and "Left out: " in printed and "12_c0_2026-11-20T10.png is not a JPEG" in printed
    assert "Images added to" in printed and ": 1. The gallery holds 31." in printed
    assert "Already there and left unchanged: 30" in printed and "at a false accept rate of 20 %" in printed


def test_an_identity_and_a_path_can_be_removed(built, folder, capsys):
    assert search.main(["remove", *built, "--identity", "0003"]) == {"removed": 3, "images": 27}
    assert search.main(["remove", *built, str(folder / "04_c1_2026-11-21T10.png")])["removed"] == 1
    assert search.main(["stats", *built])["images"] == 26
    with pytest.raises(ConfigError, match="Nothing was removed"):
        search.main(["remove", *built, "--identity", "03"])
    with pytest.raises(ConfigError, match="remove needs paths, --identity or --until"):
        search.main(["remove", *built])


@pytest.mark.parametrize("kind", ["html", "png"])
def test_ranked_crops_are_drawn(built, folder, tmp_path, kind):
    page = tmp_path / f"page.{kind}"
    (tmp_path / "aim").write_text("of somebody else")
    page.symlink_to(tmp_path / "aim")
    search.main(["query", *built, str(folder / "04_c1_2026-11-21T10.png"), "--top", "3", "--page", str(page)])
    assert (tmp_path / "aim").read_text() == "of somebody else" and not page.is_symlink()
    if kind == "png":
        assert cv2.imread(str(page)).shape[1] > 300
    else:
        text = page.read_text()
        assert text.count("data:image/jpeg") == 4 and 'class="accepted"' in text and "identity 4" in text
        assert "within the rejection threshold" in text and "false accept rate 20 %" in text
    with pytest.raises(ConfigError, match=r"must end in \.html or \.png"):
        search.main(["query", *built, str(folder), "--page", str(tmp_path / "page.pdf")])


def test_another_version_of_the_model_is_refused(built, folder, model):
    for command in (["query", *built, str(folder)], ["add", *built, str(folder)]):
        with pytest.raises(ConfigError, match=r"was built by model d2 .* and this is d1"):
            search.main([*command, "--model", str(model / "1")])


def test_build_needs_a_model_and_others_a_gallery(tmp_path, folder):
    place = ["--index", str(tmp_path / "none")]
    with pytest.raises(ConfigError, match="build needs --run or --model"):
        search.main(["build", *place, str(folder)])
    with pytest.raises(ConfigError, match="There is no gallery in"):
        search.main(["query", *place, str(folder)])
    with pytest.raises(ConfigError, match=r"is no exported model .*or export one with python -m export"):
        search.main(["build", *place, str(folder), "--model", str(folder)])


def test_a_model_for_one_role_does_not_embed_for_another(model):
    path = model / "2" / "assets.extra" / "model.json"
    path.write_text(path.read_text().replace('"image"', '"probe"'))
    one = loading.of_model(model)
    with pytest.raises(ConfigError, match="embeds probe images, not gallery or image or rgb images"):
        one.embed([b""], one.gallery_role)
    errors = []
    one.embed([b"x"], one.query_role, errors=errors.append)
    assert [error.reason for error in errors] == ["is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"]


def test_an_image_whose_header_alone_is_right_is_left_out(model):
    noise = np.random.default_rng(0).integers(256, size=(90, 90, 3), dtype=np.uint8)
    good = cv2.imencode(".jpg", noise)[1].tobytes()
    errors = []
    found, readable = loading.of_model(model).embed([good, good[:-3000], good], errors=errors.append)
    assert [(error.index, error.reason) for error in errors] == [(1, "is damaged: Premature end of JPEG file")]
    assert readable.tolist() == [True, False, True] and len(found) == 2
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_the_model_that_built_a_gallery_stays_its_model(built, folder, model, tmp_path):
    """A newer version of the exported model does not take over."""
    (model / "3").mkdir()
    shutil.copytree(model / "2", model / "3", dirs_exist_ok=True)
    path = model / "3" / "assets.extra" / "model.json"
    path.write_text(path.read_text().replace('"d2"', '"d3"'))
    (matches,) = search.main(["query", *built, str(folder / "04_c1_2026-11-21T10.png"), "--top", "1"])
    assert matches[0].record.identity == "4"


def test_the_false_accept_rate_stays_as_it_was_set(built, folder):
    before = search.main(["stats", *built])["rejection"]["false_accept_rate"]
    cv2.imwrite(str(folder / "11_c0_2026-11-20T10.png"), np.zeros((*SIZE, 3), np.uint8))
    search.main(["add", *built, str(folder), "--pattern", PATTERN])
    assert search.main(["stats", *built])["rejection"]["false_accept_rate"] == before == 0.2
    for rate in ("0", "5", "x"):
        with pytest.raises(SystemExit):
            search.arguments(["add", *built, "--false-accept-rate", rate])


def test_a_folder_can_be_removed_and_no_other_that_begins_like_it(built, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cv2.imwrite(str(tmp_path / "elsewhere" / "1.png"), np.zeros((*SIZE, 3), np.uint8))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert search.main(["add", *built, str(folder)])["added"] == 1
    with pytest.raises(ConfigError, match="Nothing was removed"):
        search.main(["remove", *built, str(folder)[:-1]])
    assert search.main(["remove", *built, str(folder)]) == {"removed": 31, "images": 0}


def test_a_pattern_without_the_names_is_refused(built, folder):
    for pattern in (r"(\d+)_c(\d+)", r"(?P<perso>\d+)_c(?P<camera>\d+)"):
        with pytest.raises(ConfigError, match="must name its groups"):
            search.main(["add", *built, str(folder), "--pattern", pattern])


def test_a_table_that_names_a_missing_file_is_refused(built, tmp_path):
    (tmp_path / "crops.csv").write_text("path,person\nnone.png,1\n")
    with pytest.raises(ConfigError, match=r"row 2 of .*crops\.csv names the file .*none\.png, which does not exist"):
        search.main(["add", *built, "--csv", str(tmp_path / "crops.csv")])


def test_a_mistake_in_build_leaves_no_gallery(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no"):
        search.main(["build", "--index", str(tmp_path / "new"), "--model", str(model), str(tmp_path / "nowhere")])
    assert not (tmp_path / "new").exists()


def test_a_camera_that_is_not_there_and_an_unreadable_query_are_refused(built, folder, tmp_path):
    query = str(folder / "04_c1_2026-11-21T10.png")
    for option in ("--cameras", "--not-cameras"):
        with pytest.raises(ConfigError, match="has no camera 77; its cameras are 0, 1, 2"):
            search.main(["query", *built, query, option, "77"])
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ConfigError, match="None of these images can be read"):
        search.main(["query", *built, str(tmp_path / "text.png")])
    search.main(["remove", *built, str(folder)])
    with pytest.raises(ConfigError, match="holds no image yet"):
        search.main(["query", *built, query])


def test_images_up_to_a_time_can_be_removed(built):
    assert search.main(["remove", *built, "--until", "2026-11-20T12:00"])["removed"] == 10


def test_values_that_cannot_be_are_refused_with_their_option(built, folder, capsys):
    for option, value in (("--since", "soon"), ("--until", "1700000000000"), ("--top", "0"), ("--top", "x")):
        with pytest.raises(SystemExit):
            search.main(["query", *built, str(folder), option, value])
        assert f"argument {option}: {value!r} is not a time" in (message := capsys.readouterr().err) or (
            f"argument {option}: {value} is not 1 or more" in message
        )


def test_matches_are_accepted_up_to_the_threshold_and_no_match_is_unknown(built, folder, capsys):
    query = str(folder / "04_c1_2026-11-21T10.png")
    threshold = search.main(["stats", *built])["rejection"]["threshold"]
    (matches,) = search.main(["query", *built, query, "--top", "30"])
    assert [match.accepted for match in matches] == [match.distance <= threshold for match in matches]
    assert matches[0].accepted and not matches[-1].accepted
    capsys.readouterr()
    search.main(["query", *built, query, "--since", "2027-01-01", "--json"])
    assert json.loads(capsys.readouterr().out) == [{"query": query, "unknown": True, "matches": []}]


def test_junk_and_a_file_that_vanishes_are_left_out_and_the_rest_goes_on(built, folder, monkeypatch, capsys):
    for name in ("-1_c0_2026-11-20T10.png", "00_c0_2026-11-20T10.png", "12_c0_2026-11-20T10.png"):
        shutil.copy(folder / "04_c1_2026-11-21T10.png", folder / name)
    listed = crops.named_images

    def vanishing(*arguments):
        found = listed(*arguments)
        (folder / "12_c0_2026-11-20T10.png").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(crops, "named_images", vanishing)
    assert search.main(["add", *built, str(folder), "--pattern", PATTERN, "--batch", "2"])["added"] == 1
    printed = capsys.readouterr()
    assert "12_c0_2026-11-20T10.png cannot be read: No such file or directory" in printed.out
    assert "Note: 1 image is of identity -1: junk, which is left out; " in printed.err
    assert "Note: 1 image is of identity 0: a distractor, which matches no query; " in printed.err
    assert search.main(["stats", *built])["identities"] == 10


def test_labels_that_are_no_identity_can_be_named(folder):
    for name in ("-1_c0_2026-11-20T10.png", "00_c0_2026-11-20T10.png"):
        shutil.copy(folder / "04_c1_2026-11-21T10.png", folder / name)
    command = ["add", "--index", "any", str(folder), "--pattern", PATTERN, "--distractor", "none", "--junk", "4,x"]
    identities = {crop.record.identity for crop in search._named_crops(search.arguments(command), None)}
    assert identities == {"-1", "0", "1", "2", "3", "5", "6", "7", "8", "9", "10"}


def test_a_gallery_of_somebody_else_does_not_choose_the_model(built, folder, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of_another_user"))
    query = str(folder / "04_c1_2026-11-21T10.png")
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", lambda source: pytest.fail(f"{source} was opened"))
        for command in (["query", *built, query], ["add", *built, query], ["serve", *built]):
            with pytest.raises(ConfigError, match=r"built by the model .*reid/2, which you have not named"):
                search.main(command)
        with pytest.raises(ConfigError, match="which you have not named"):
            search.main(["query", *built, "run:gallery"])
    named = search.main(["query", *built, query, "--model", str(model)])
    assert search.main(["query", *built, query]) == named  # once named, it is known


def test_a_damaged_index_is_made_anew_and_that_is_said(built, folder, capsys):
    query = ["query", *built, str(folder / "04_c1_2026-11-21T10.png")]
    before = search.main(query)
    (index,) = Path(built[1]).glob("index_*.faiss")
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    assert search.main(["stats", *built])["index"].startswith("not used: ")
    capsys.readouterr()
    after = search.main(query)
    assert "its digest is not the one that was kept; it was made anew" in capsys.readouterr().err
    assert [match.record for match in after[0]] == [match.record for match in before[0]]
    assert search.main(["stats", *built])["index"] == "flat"


def test_a_file_too_large_or_with_a_hostile_name_is_left_out(built, folder, capsys):
    hostile = folder / "13_c0_2026-11-20T10\x1b[2J.png"
    with hostile.open("wb") as file:
        file.truncate(3 * 2**30)
    capsys.readouterr()
    search.main(["add", *built, str(folder), "--pattern", PATTERN])
    assert r"13_c0_2026-11-20T10\x1b[2J.png has 3221225472 bytes; 268435456 are allowed." in capsys.readouterr().out
    (matches,) = search.main(["query", *built, str(hostile), str(folder / "04_c1_2026-11-21T10.png")])
    printed = capsys.readouterr()
    assert matches[0].record.identity == "4" and r"\x1b[2J.png has 3221225472 bytes" in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_removing_again_finishes_what_was_killed(built, folder, monkeypatch):
    content = next(Path(built[1]).glob("index_*.faiss")).read_bytes()
    with search.open_gallery(built[1]) as gallery:
        assert gallery.remove(identity="3") == 3  # and the process ends
    with pytest.raises(
        ConfigError, match=r"Nothing was removed: .* Its files keep nothing of images that were removed"
    ):
        search.main(["remove", *built, "--identity", "3"])
    (index,) = Path(built[1]).glob("index_*.faiss")
    assert len(index.read_bytes()) < len(content) and search.main(["stats", *built])["removed_images"] == "erased"


def test_a_gallery_moves_to_another_store(built, folder, postgres, capsys):
    address = f"{postgres.replace('postgres:@', 'postgres:secret@')}&gallery=moved_{os.getpid()}"
    query = str(folder / "04_c1_2026-11-21T10.png")
    (before,) = search.main(["query", *built, query, "--not-cameras", "1"])
    capsys.readouterr()
    assert search.main(["copy", built[1], address]) == search.main(["copy", built[1], address]) == 30
    (after,) = search.main(["query", "--index", address, query, "--not-cameras", "1"])
    assert [(m.record, m.accepted) for m in after] == [(m.record, m.accepted) for m in before]
    assert search.main(["add", "--index", address, str(folder), "--pattern", PATTERN])["added"] == 0
    assert search.main(["remove", "--index", address, "--identity", "3"]) == {"removed": 3, "images": 27}
    stats, printed = search.main(["stats", "--index", address]), capsys.readouterr()
    assert stats["removed_images"] == "erased" and stats["rejection"]["false_accept_rate"] == 0.2
    assert f"Images of {built[1]} in postgresql://postgres@/postgres?" in printed.out
    assert "secret" not in printed.out + printed.err
    for place in (built[1], address):
        with pytest.raises(ConfigError, match="is on no Qdrant server, which alone makes snapshots"):
            search.main(["snapshot", "--index", place])
