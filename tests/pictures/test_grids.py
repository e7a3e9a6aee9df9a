import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import ProjectorConfig, projector_plugin
from werkzeug.test import Client

from tf_reid import files
from tf_reid.pictures import grids

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(*colours, height=16, width=8):
    """One image a colour, uint8 [N, height, width, 3]."""
    return np.stack([np.full((height, width, 3), colour, np.uint8) for colour in colours])


def corner(picture, colour):
    """Row and column of the first pixel of a colour."""
    return tuple(np.argwhere(np.all(picture == colour, axis=-1))[0])


def test_grid_places_every_image():
    rows = np.stack([plain(RED, GREEN), plain(BLUE, RED)])
    picture = grids.grid(rows, ["input", "translated"], ["person 1", "person 2"], scale=3)
    assert picture.dtype == np.uint8
    for colour, tiles in ((RED, 2), (GREEN, 1), (BLUE, 1)):
        assert np.sum(np.all(picture == colour, axis=-1)) == tiles * (16 * 3) * (8 * 3)
    (red_y, red_x), (green_y, green_x), (blue_y, blue_x) = (corner(picture, c) for c in (RED, GREEN, BLUE))
    assert red_y == green_y and red_x == blue_x  # one row, one column
    assert green_x >= red_x + 24 and blue_y >= red_y + 48
    assert np.any(picture[:red_y] < 128) and np.any(picture[red_y:, :red_x] < 128)  # titles were drawn


def test_grid_enlarges_small_images_without_blurring_them():
    image = np.random.default_rng(0).integers(0, 255, (1, 4, 2, 3), np.uint8)
    picture = grids.grid([image])
    enlarged = np.repeat(np.repeat(image[0], 40, axis=0), 40, axis=1)  # to 160 pixels high
    np.testing.assert_array_equal(picture[8:168, 8:88], enlarged)


def test_grid_of_uneven_rows_and_of_a_smaller_scale():
    picture = grids.grid([plain(RED, RED, RED), plain(GREEN)], scale=0.5)
    assert np.sum(np.all(picture == RED, axis=-1)) == 3 * 8 * 4
    assert np.sum(np.all(picture == GREEN, axis=-1)) == 8 * 4


def test_a_reduced_image_shows_all_its_pixels():
    chessboard = (np.indices((1, 16, 8, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = grids.grid([chessboard], scale=0.5)
    assert np.abs(picture[8:16, 8:12].astype(int) - 127).max() <= 1


def test_a_long_title_widens_its_column():
    rows = [plain(RED, GREEN)]
    narrow = grids.grid(rows, scale=1)
    wide = grids.grid(rows, ["reconstructed", "b"], scale=1)
    assert corner(wide, GREEN)[1] - corner(wide, RED)[1] > corner(narrow, GREEN)[1] - corner(narrow, RED)[1]


@pytest.mark.parametrize(
    ("rows", "titles", "message"),
    [
        ([plain(RED).astype(np.float32)], (), "uint8"),
        ([plain(RED)[0]], (), "uint8"),
        ([plain(RED), plain(RED, height=20)], (), "one size"),
        ([], (), "no image"),
        ([plain(RED)], ["a", "b"], "2 column titles for 1 columns"),
    ],
)
def test_grid_of_bad_input_says_what_is_wrong(rows, titles, message):
    with pytest.raises(ValueError, match=message):
        grids.grid(rows, titles)


def test_rank_list_frames_by_right_and_wrong():
    black, grey, white = (0, 0, 0), (90, 90, 90), (250, 250, 250)
    query, gallery = plain(black, black, height=160, width=80), plain(grey, white, height=20, width=10)
    order, correct = [[0, 1], [1, 0]], [[True, False], [False, False]]
    picture = grids.rank_list(query, gallery, order, correct, ["one", "two"], [["a\nb", "c"], ["d", "e"]])

    # Along the middle of each query: frame, image, frame, in the order of the ranking.
    frames = (grids.QUERY_FRAME, grids.RIGHT_FRAME, grids.WRONG_FRAME)
    images = (black, grey, white)
    seen = []
    for row in (1, 2):
        y = (picture.shape[0] * (2 * row - 1)) // 4
        line = [tuple(pixel) for pixel in picture[y].tolist()]
        runs = [pixel for pixel, before in zip(line, [None, *line], strict=False) if pixel != before]
        seen.append([pixel for pixel in runs if pixel in frames + images])
    blue, green, red = frames
    assert seen[0] == [blue, black, blue, green, grey, green, red, white, red]
    assert seen[1] == [blue, black, blue, red, white, red, red, grey, red]
    # Every frame is FRAME pixels wide on each side.
    area = (160 + 2 * grids.FRAME) * (80 + 2 * grids.FRAME) - 160 * 80
    counts = [np.sum(np.all(picture == frame, axis=-1)) for frame in frames]
    assert counts == [2 * area, area, 3 * area]


def test_rank_list_of_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`order` \[1, 2\] and `correct` \[1, 1\] must both be \[Q, K\]"):
        grids.rank_list(plain(RED), plain(RED, GREEN), [[0, 1]], [[True]])


def test_write_png_keeps_the_colours(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)
    path = tmp_path / "deeper" / "picture.png"
    grids.write_png(path, image)
    np.testing.assert_array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), image)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_write_cut_short_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    grids.write_png(path, plain(RED)[0])
    before = path.read_bytes()

    def cut(*_):
        raise OSError("the power went out")

    monkeypatch.setattr(files.os, "replace", cut)
    with pytest.raises(OSError, match="power"):
        grids.write_png(path, plain(GREEN)[0])
    assert path.read_bytes() == before


def write_five(log_dir, **labels):
    features = np.random.default_rng(0).normal(size=(5, 3))
    thumbnails = plain(RED, GREEN, BLUE, RED, GREEN)
    return features, thumbnails, grids.write_projector(log_dir, features, labels, thumbnails)


def test_projector_files(tmp_path):
    features, thumbnails, count = write_five(tmp_path, identity=np.arange(5), split=["a\tb", "c", "d", "e", "f"])
    assert count == 5
    np.testing.assert_allclose(np.loadtxt(tmp_path / "features.tsv"), features, rtol=1e-5)
    lines = (tmp_path / "metadata.tsv").read_text().splitlines()
    assert lines == ["identity\tsplit", "0\ta b", "1\tc", "2\td", "3\te", "4\tf"]
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    assert list(embedding.sprite.single_image_dim) == [16, 16]
    sprite = cv2.imread(str(tmp_path / embedding.sprite.image_path), cv2.IMREAD_UNCHANGED)
    assert sprite.shape == (48, 48, 4)  # 3 × 3 square cells for five images
    for number, image in enumerate(thumbnails):
        y, x = number // 3 * 16, number % 3 * 16 + 4  # 8 pixels wide, in the middle of 16
        np.testing.assert_array_equal(sprite[y : y + 16, x : x + 8, 2::-1], image)
    assert np.sum(sprite[..., 3] == 255) == 5 * 16 * 8


def test_a_single_label_has_no_header(tmp_path):
    write_five(tmp_path, identity=np.arange(5))
    assert (tmp_path / "metadata.tsv").read_text().splitlines() == ["0", "1", "2", "3", "4"]


def test_tensorboard_serves_what_was_written(tmp_path):
    features, _, _ = write_five(tmp_path / "run" / "embedding", identity=np.arange(5), camera=np.ones(5))
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = base_plugin.TBContext(data_provider=provider, logdir=str(tmp_path))
    apps = projector_plugin.ProjectorPlugin(context).get_plugin_apps()
    assert Client(apps["/runs"]).get("/").json == ["run/embedding"]
    where = "/?run=run/embedding&name=features"
    served = np.frombuffer(Client(apps["/tensor"]).get(where).data, np.float32).reshape(5, 3)
    np.testing.assert_allclose(served, features, rtol=1e-5)
    assert Client(apps["/metadata"]).get(where).text.splitlines()[0] == "identity\tcamera"
    assert Client(apps["/sprite_image"]).get(where).data.startswith(b"\x89PNG")


def test_projector_samples_what_the_sprite_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "SPRITE_SIZE", 32)  # 2 × 2 cells of 16
    features, thumbnails, count = write_five(tmp_path, identity=np.arange(5), other=np.arange(5))
    assert count == 4
    kept = [int(line.split("\t")[0]) for line in (tmp_path / "metadata.tsv").read_text().splitlines()[1:]]
    assert len(set(kept)) == 4
    np.testing.assert_allclose(np.loadtxt(tmp_path / "features.tsv"), features[kept], rtol=1e-5)
    sprite = cv2.imread(str(tmp_path / "sprite.png"))
    for cell, index in enumerate(kept):
        np.testing.assert_array_equal(sprite[cell // 2 * 16, cell % 2 * 16 + 8, ::-1], thumbnails[index, 0, 0])


def test_projector_of_lengths_that_differ(tmp_path):
    with pytest.raises(ValueError, match="There are 4 identity for 5 features"):
        write_five(tmp_path, identity=np.arange(4))
