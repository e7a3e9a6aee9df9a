"""An encoder in Python: what evaluation keeps and what is served, whatever way an image comes in."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import METHODS, SIZE, build, make_records

from tf_reid import config as configuration
from tf_reid.encoders import loading
from tf_reid.encoders.encoder import Encoder, unit_length
from tf_reid.encoders.image_checks import ImageError
from tf_reid.evaluation import extraction
from tf_reid.metrics import similarity
from tfds_builders.images import MOST_BYTES

RECORDS = make_records([1, 1, 2, 2, 3, 3, 4], [1, 2, 1, 2, 1, 2, 1], size=(40, 30))
IMAGES = RECORDS.images.tolist()


def settings(name, **evaluate):
    changes = ["data.image_size=[32, 16]", *(f"evaluate.{key}={value}" for key, value in evaluate.items())]
    return configuration.load(f"configs/{name}.yaml", changes, METHODS)


def of_method(name, **evaluate) -> Encoder:
    return loading.of_networks(build(name).encoders(), settings(name, **evaluate), Path("runs/here"))


@pytest.fixture
def one_sided(encoder):
    return loading.of_networks({"image": encoder}, settings("identity"), Path("runs/here"))


@pytest.fixture(scope="module")
def two_sided():
    return of_method("view_adaptation")


def pixels_of(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("flip", ["true", "false"])
def test_embeddings_are_the_bits_that_evaluation_keeps(distance, flip):
    found = of_method("identity", distance=distance, flip=flip).embed(IMAGES)
    kept = extraction.extract(build("identity").encoders()["image"], RECORDS, SIZE, flip=flip == "true")
    assert found.dtype == np.float32 and found.shape == kept.shape
    np.testing.assert_array_equal(found, unit_length(kept) if distance == "cosine" else kept)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_distances_are_the_bits_that_evaluation_compares_by(encoder, distance):
    config = settings("identity", distance=distance, flip="false")
    opened = loading.of_networks({"image": encoder}, config, Path("runs/here"))
    kept = extraction.extract(encoder, RECORDS, SIZE)
    found = opened.distances(IMAGES[:3], IMAGES[3:])
    np.testing.assert_array_equal(found, similarity.distances(kept[:3], kept[3:], distance)(slice(None)))
    assert found.dtype == np.float32 and found.shape == (3, 4)
    assert opened.distance(IMAGES[0], IMAGES[3]) == pytest.approx(found[0, 0], rel=1e-5)
    np.testing.assert_array_equal(opened.distances(IMAGES, IMAGES), opened.distances(IMAGES, list(IMAGES)))


def test_unit_length():
    found = unit_length(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 0.0]] and found.dtype == np.float32


@pytest.mark.parametrize("name", METHODS)
def test_every_method_compares_two_images_in_one_line(name):
    opened = of_method(name)
    roles = ("ir", "rgb") if name == "cmgan" else None
    assert opened.roles == tuple(build(name).encoders())
    distance = opened.distance(IMAGES[0], IMAGES[1], roles)
    assert isinstance(distance, float) and distance >= 0
    role = None if opened.roles == ("image",) else opened.roles[1]
    assert opened.embed(IMAGES, role).shape == (7, opened.width)


def test_paths_bytes_arrays_and_mixtures_give_the_same_bits(one_sided, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(IMAGES))]
    for path, content in zip(paths, IMAGES, strict=True):
        path.write_bytes(content)
    by_bytes = one_sided.embed(IMAGES)
    arrays = [pixels_of(content) for content in IMAGES]
    mixture = [str(paths[0]), paths[1], IMAGES[2], arrays[3], bytearray(IMAGES[4]), memoryview(IMAGES[5]), arrays[6]]
    for images in (paths, arrays, np.stack(arrays), mixture, RECORDS.images, (image for image in IMAGES)):
        np.testing.assert_array_equal(one_sided.embed(images), by_bytes)


@pytest.mark.parametrize("size", [(1, 1), SIZE, (300, 20), (20, 300), (33, 17)])
def test_an_array_of_any_size_is_resized_as_a_lossless_file_is(one_sided, size):
    image = np.random.default_rng(1).integers(256, size=(*size, 3), dtype=np.uint8)
    content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(one_sided.embed([image]), one_sided.embed([content]))
    np.testing.assert_array_equal(one_sided.embed([image[::-1, ::-1]]), one_sided.embed([image[::-1, ::-1].copy()]))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_any_batch_size_embeds_all_images_in_order(one_sided, batch_size):
    np.testing.assert_allclose(one_sided.embed(IMAGES, batch_size=batch_size), one_sided.embed(IMAGES), atol=1e-6)


def test_no_image_gives_no_row(one_sided):
    assert one_sided.embed([]).shape == (0, 5) and one_sided.embed([]).dtype == np.float32
    features, readable = one_sided.embed(iter([]), errors="skip")
    assert features.shape == (0, 5) and readable.shape == (0,) and readable.dtype == bool
    assert one_sided.distances([], IMAGES).shape == (0, 7) and one_sided.distances(IMAGES, []).shape == (7, 0)


def test_of_a_generator_two_batches_are_held_at_once(one_sided, monkeypatch):
    drawn, ahead = [], []
    own = one_sided.by_role["image"]
    monkeypatch.setitem(one_sided.by_role, "image", lambda pixels: ahead.append(len(drawn)) or own(pixels))

    def generated():
        for image in IMAGES:
            drawn.append(image)
            yield image

    assert len(one_sided.embed(generated(), batch_size=2)) == 7 and ahead == [4, 6, 7, 7]


CUT = cv2.imencode(".jpg", np.random.default_rng(0).integers(256, size=(90, 90, 3), dtype=np.uint8))[1].tobytes()[
    :-3000
]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"text", "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        (CUT, "is damaged: Premature end of JPEG file"),
        ("nowhere/a.png", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_read_is_named_or_left_out(one_sided, bad, reason):
    images = [IMAGES[0], IMAGES[1], bad, IMAGES[2]]
    with pytest.raises(ImageError) as raised:
        one_sided.embed(images)
    path = Path(bad) if isinstance(bad, str) else None
    assert (raised.value.index, raised.value.path, raised.value.reason) == (2, path, reason)
    assert str(raised.value) == f"Image 2{f' ({bad})' if path else ''} {reason}."
    errors = []
    for option in ("skip", errors.append):
        features, readable = one_sided.embed(images, batch_size=2, errors=option)
        assert readable.tolist() == [True, True, False, True]
        np.testing.assert_allclose(features, one_sided.embed(IMAGES[:3]), atol=1e-6)
    assert [error.index for error in errors] == [2]
    features, readable = one_sided.embed([bad], errors="skip")
    assert features.shape == (0, 5) and readable.tolist() == [False]


def test_an_image_of_too_many_pixels_is_refused_and_a_large_file_is_not(one_sided):
    large = cv2.imencode(".bmp", np.zeros((1700, 1700, 3), np.uint8))[1].tobytes()
    assert len(large) > MOST_BYTES and one_sided.embed([large]).shape == (1, 5)
    many_pixels = cv2.imencode(".png", np.zeros((5001, 5000), np.uint8))[1].tobytes()
    with pytest.raises(ImageError, match="5000 x 5001 pixels; 25000000 are allowed"):
        one_sided.embed([many_pixels])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"Image 1 is an array float32 \[4, 4, 3\]; .* uint8 \[H, W, 3\] in RGB"),
        (np.zeros((4, 4), np.uint8), r"Image 1 is an array uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"Image 1 is an array uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"Image 1 is an array uint8 \[0, 4, 3\]"),
        (7, "Image 1 is a int; give a path, an encoded image's bytes, or an array"),
        (None, "Image 1 is a NoneType"),
    ],
)
def test_what_is_no_image_at_all_is_a_mistake_that_is_never_skipped(one_sided, image, message):
    for errors in ("raise", "skip"):
        with pytest.raises((TypeError, ValueError), match=message) as raised:
            one_sided.embed([IMAGES[0], image], errors=errors)
        assert not isinstance(raised.value, ImageError)


@pytest.mark.parametrize("image", ["a.jpg", Path("a.jpg"), IMAGES[0], np.zeros((4, 4, 3), np.uint8)])
def test_one_image_in_place_of_several_is_refused(one_sided, image):
    with pytest.raises(TypeError, match=r"put it into a list: embed\(\[image\]\)"):
        one_sided.embed(image)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8"])
def test_a_batch_size_that_is_none_is_refused(one_sided, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number from 1 on, not {batch_size!r}"):
        one_sided.embed(IMAGES, batch_size=batch_size)


def test_another_word_for_errors_is_refused(one_sided):
    with pytest.raises(ValueError, match='errors must be "raise", "skip", or a function of an ImageError, not \'ignor'):
        one_sided.embed(IMAGES, errors="ignore")


def test_two_sides_need_a_role_and_take_their_own_in_distances(two_sided):
    with pytest.raises(ValueError, match=r"No role was given: .* the roles probe, gallery"):
        two_sided.embed(IMAGES)
    with pytest.raises(ValueError, match=r"There is no role 'image': .* the roles probe, gallery"):
        two_sided.embed(IMAGES, role="image")
    probes, gallery = two_sided.embed(IMAGES[:2], role="probe"), two_sided.embed(IMAGES, role="gallery")
    assert not np.allclose(probes, gallery[:2])
    np.testing.assert_allclose(two_sided.distances(IMAGES[:2], IMAGES), two_sided.distances(probes, gallery), atol=1e-5)
    assert (two_sided.query_role, two_sided.gallery_role) == ("probe", "gallery")
    among = two_sided.distances(IMAGES, IMAGES, roles=("gallery", "gallery"))
    np.testing.assert_allclose(np.diag(among), 0, atol=1e-3)


def test_two_modalities_need_their_roles():
    opened = of_method("cmgan")
    with pytest.raises(ValueError, match=r"the roles rgb, ir: say which role .* such as roles=\(\"ir\", \"rgb\"\)"):
        opened.distance(IMAGES[0], IMAGES[1])
    for roles in ("ir", ("ir",)):
        with pytest.raises(ValueError, match="roles must be two"):
            opened.distance(IMAGES[0], IMAGES[1], roles)
    with pytest.raises(ValueError, match=r"There is no role 'probe': .* rgb, ir"):
        opened.distances(IMAGES, IMAGES, roles=("probe", "rgb"))
    assert (opened.query_role, opened.gallery_role) == ("rgb", "rgb")


def test_embeddings_can_be_compared_in_place_of_images(one_sided):
    embeddings = one_sided.embed(IMAGES)
    found = one_sided.distances(embeddings[:2], IMAGES)
    np.testing.assert_allclose(found, one_sided.distances(IMAGES[:2], embeddings), atol=1e-6)
    assert one_sided.distance(embeddings[0], IMAGES[1]) == pytest.approx(one_sided.distance(IMAGES[0], IMAGES[1]), 1e-5)
    for wrong in (embeddings[:, :4], np.zeros((2, 4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match=r"holds neither images, .* nor embeddings .* float32 \[N, 5\]"):
            one_sided.distances(wrong, IMAGES)
    with pytest.raises(ValueError, match="NaN"):
        one_sided.distances(np.full((1, 5), np.nan, np.float32), embeddings)


def test_boxes_are_cut_to_the_frame(one_sided):
    frame = np.random.default_rng(2).integers(256, size=(48, 64, 3), dtype=np.uint8)
    boxes = [[10, 5, 30, 45], [-8.5, -1, 20.2, 30.5], [50, 40, 900, 900]]
    crops = [frame[5:45, 10:30], frame[0:31, 0:21], frame[40:48, 50:64]]
    expected = one_sided.embed(crops)
    np.testing.assert_array_equal(one_sided.embed_boxes(frame, boxes), expected)
    np.testing.assert_array_equal(one_sided.embed_boxes(frame, np.array(boxes, np.float32)), expected)
    bgr = frame[..., ::-1].copy()
    np.testing.assert_array_equal(one_sided.embed_boxes(bgr[..., ::-1], boxes), expected)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), np.int64)])
def test_no_box_gives_no_row(one_sided, boxes):
    assert one_sided.embed_boxes(np.zeros((48, 64, 3), np.uint8), boxes).shape == (0, 5)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([30, 5, 30, 45], "which has no pixel in the frame of 64 x 48 pixels"),
        ([30, 5, 10, 45], "which has no pixel in the frame"),
        ([64, 0, 90, 40], "which has no pixel in the frame"),
        ([0, -20, 40, -2], "which has no pixel in the frame"),
        ([0, 0, float("nan"), 9], "numbers that are not finite"),
    ],
)
def test_a_box_without_a_pixel_is_named(one_sided, box, reason):
    with pytest.raises(ImageError, match=reason) as raised:
        one_sided.embed_boxes(np.zeros((48, 64, 3), np.uint8), [[0, 0, 9, 9], box])
    assert raised.value.index == 1 and raised.value.path is None


def test_boxes_and_frames_of_other_shapes_are_refused(one_sided):
    frame = np.zeros((48, 64, 3), np.uint8)
    for boxes in ([1, 2, 3, 4], [[1, 2, 3]], [[1, 2], [3]], [["a", "b", "c", "d"]]):
        with pytest.raises(ValueError, match=r"The boxes must be numbers \[N, 4\]"):
            one_sided.embed_boxes(frame, boxes)
    for wrong in (frame / 255.0, frame[..., 0], "frame.png"):
        with pytest.raises(ValueError, match=r"The frame is an? .*array.* uint8 \[H, W, 3\] in RGB"):
            one_sided.embed_boxes(wrong, [[0, 0, 9, 9]])


def test_threads_may_share_an_encoder():
    opened = of_method("identity")
    expected = [opened.embed(IMAGES[number:]) for number in range(6)]
    fresh, wrong = of_method("identity"), []

    def ask(number):
        for _ in range(5):
            if not np.array_equal(fresh.embed(IMAGES[number:]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
