"""Which identities and images are on a page, and where."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records

from tf_reid.evaluation import pages
from tf_reid.evaluation.comparison import Comparison
from tf_reid.metrics.protocols import trials
from tf_reid.pictures import curves
from tf_reid.pictures.grids import TILE_HEIGHT
from tf_reid.pictures.page import CaptionedImages, Page

IDENTITY, CAMERA = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5], [1, 2] * 5
RECORDS = make_records(IDENTITY, CAMERA, ["query", "gallery"] * 5)
(TRIAL,) = trials(RECORDS.identity, RECORDS.camera, RECORDS.split, {"kind": "market"}, file=RECORDS.file)


def identities_of(captioned):
    return [caption.split(",")[0] for caption in captioned.captions]


def test_queries_are_shown_beside_their_identities_or_beside_others():
    first, second = pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, count=2, same_identities=True)
    assert identities_of(first) == identities_of(second) and len(set(identities_of(first))) == 2
    assert {caption.split()[-1] for caption in first.captions} == {"1"}
    first, others = pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, count=2)
    assert not set(identities_of(first)) & set(identities_of(others)) and len(others.images) == 2
    index = [round((float(image[0, 0, 0]) + 1) * 127.5) for image in first.images]  # red is the index
    assert [f"identity {IDENTITY[i]}, camera {CAMERA[i]}" for i in index] == first.captions


def test_identities_are_named_in_order():
    first, _ = pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, identities=[4, 2], same_identities=True)
    assert identities_of(first) == ["identity 4", "identity 2"]
    with pytest.raises(ValueError, match=r"--identities: identity 9 has no query"):
        pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, identities=[9])


def test_random_queries_are_those_that_have_a_match():
    lonely = 40  # queries whose identity is not in the gallery, beside one that is
    identity, split = [*range(1, lonely + 2), lonely + 1], ["query"] * (lonely + 1) + ["gallery"]
    records = make_records(identity, [1] * (lonely + 1) + [2], split)
    (trial,) = trials(records.identity, records.camera, records.split, {"kind": "market"})
    features = np.eye(len(identity), dtype=np.float32)
    drawn = pages.rank_list(Comparison(features, features, "cosine"), records, trial, SIZE, seed=0)
    assert len(drawn) < 2 * TILE_HEIGHT  # one row
    queries, gallery = pages.queries_and_gallery_images(records, trial, SIZE, seed=0, same_identities=True)
    assert identities_of(queries) == identities_of(gallery) == [f"identity {lonely + 1}"]


def test_other_identities_of_the_gallery_repeat_where_there_are_fewer_than_queries():
    queries, gallery = pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, count=3)
    first, second, third = identities_of(gallery)
    assert first == third != second and not {first, second} & set(identities_of(queries))
    everyone = len(np.unique(RECORDS.identity))
    with pytest.raises(ValueError, match=r"no other identity; choose a smaller --count"):
        pages.queries_and_gallery_images(RECORDS, TRIAL, SIZE, seed=0, count=everyone)


def test_a_page_is_drawn_with_its_titles():
    row = tf.zeros((2, *SIZE, 3))
    plain, titled = (pages.draw_page(Page([row, row], *titles)) for titles in (([], []), (["a", "b"], ["c", "d\ne"])))
    assert titled.shape[0] > plain.shape[0] and titled.shape[1] > plain.shape[1]


def test_attention_is_red_where_maps_are_strong():
    strength = np.zeros((1, 4, 2, 3), np.float32)
    strength[0, 0, 0] = [-3.0, 4.0, 0.0]  # its sign does not matter
    images = keras.Input((*SIZE, 3))
    maps = keras.Model(
        images, keras.layers.Lambda(lambda x: tf.repeat(tf.constant(strength), tf.shape(x)[0], 0))(images)
    )
    shown = CaptionedImages(tf.zeros((1, *SIZE, 3)), ["identity 1"])
    heat = pages._heat(np.full((*SIZE, 3), 128, np.uint8), np.linalg.norm(strength[0], axis=-1)).astype(int)
    assert heat[2, 2, 0] > heat[2, 2, 2] + 50 and heat[-2, -2, 2] > heat[-2, -2, 0] + 50
    image, faint = np.full((*SIZE, 3), 128, np.uint8), np.linalg.norm(strength[0], axis=-1) / 1000
    np.testing.assert_array_equal(pages._heat(image, faint), heat)  # the colours are those of each image
    page = pages.attention({"image": maps}, shown, shown).astype(int)
    assert ((page[..., 0] - page[..., 2]) > 50).any() and ((page[..., 2] - page[..., 0]) > 50).any()


def test_attention_takes_each_sides_own_encoder():
    images = keras.Input((*SIZE, 3))
    left, right = np.zeros((2, 1, 4, 2, 1), np.float32)
    left[:, :, 0], right[:, :, 1] = 1.0, 1.0
    maps = {
        role: keras.Model(
            images, keras.layers.Lambda(lambda x, where=where: tf.constant(where) + 0.0 * x[:, :4, :2, :1])(images)
        )
        for role, where in (("probe", left), ("gallery", right))
    }
    shown = CaptionedImages(tf.zeros((1, *SIZE, 3)), ["identity 1"])
    page = pages.attention(maps, shown, shown)
    both = pages.attention({"image": maps["probe"]}, shown, shown)
    half = len(page) // 2
    np.testing.assert_array_equal(page[:half], both[:half])
    assert (page[half:] != both[half:]).any()


def test_points_are_where_they_belong_in_their_groups_colour():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    picture = curves.scatter(points, np.array(["camera 1", "camera 2", "others"]), "title", "component").astype(int)
    low, high = (
        picture[curves.HEIGHT - curves.MARGIN, curves.MARGIN],
        picture[curves.MARGIN, curves.HEIGHT - curves.MARGIN],
    )
    assert np.ptp(low) > 100 and np.ptp(high) > 100 and (low != high).any()
    assert np.ptp(picture[curves.HEIGHT // 2, curves.HEIGHT // 2]) == 0  # grey
    points[2] = points[1]
    for last in ("a name longer than theirs", "b"):
        picture = curves.scatter(points, np.array(["camera 1", last, "others"]), "title", "component").astype(int)
        assert np.ptp(picture[curves.MARGIN, curves.HEIGHT - curves.MARGIN]) > 100  # the others lie below


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_plane_keeps_apart_what_is_apart(method):
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(20, 8)), rng.normal(size=(20, 8)) + 50.0])
    plane = pages._plane(features, method, 0)
    assert plane.shape == (40, 2)
    inside, across = np.ptp(plane[:20], axis=0).max(), np.linalg.norm(plane[:20].mean(0) - plane[20:].mean(0))
    assert across > inside


def test_the_map_has_a_panel_a_representation_above_and_below():
    features = {"pixels": np.eye(10, dtype=np.float32), "raw": np.arange(20.0).reshape(10, 2)}
    picture = pages.feature_map(features, np.array(["camera 1"] * 10), RECORDS.identity, "pca", 0)
    assert picture.shape == (2 * curves.HEIGHT, 2 * curves.WIDTH, 3)


def test_identities_of_several_images_alone_have_a_colour_in_the_map(monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "scatter", lambda points, groups, *_: drawn.append(list(groups)) or np.zeros((1, 1, 3)))
    groups, identities = np.array(["camera 1"] * 6), np.array([1, 1, 2, 0, 0, -1])
    pages.feature_map({"raw": np.eye(6, dtype=np.float32)}, groups, identities, "pca", 0)
    assert drawn == [["camera 1"] * 6, ["identity 1", "identity 1", *["others"] * 4]]


def test_a_map_by_t_sne_says_what_takes_long(capsys, monkeypatch):
    monkeypatch.setattr(pages, "_plane", lambda features, *_: features[:, :2])
    features = {"pixels": np.eye(10, dtype=np.float32), "raw": np.arange(20.0).reshape(10, 2)}
    for method, said in (("tsne", True), ("pca", False)):
        pages.feature_map(features, np.array(["camera 1"] * 10), RECORDS.identity, method, 0)
        assert ("t-SNE of 10 images: 100%" in capsys.readouterr().err) == said


def test_features_of_queries_and_of_gallery_images_are_told_apart():
    query, gallery = np.zeros((10, 3), np.float32), np.ones((10, 3), np.float32)
    images, is_query = pages.sample(TRIAL, 0, 4)
    found = pages.features_of(Comparison(query, gallery, "cosine"), images, is_query)
    assert is_query.tolist() == [True, True, False, False] and found[:, 0].tolist() == [0, 0, 1, 1]
    assert set(RECORDS.split[images[is_query]]) == {"query"}
