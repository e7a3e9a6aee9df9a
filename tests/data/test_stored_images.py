"""Images of large data sets stay in TFDS's files; nothing else about them differs."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import SIZE, extract_roles, make_records, stage_of
from odd_images import exif, picture, saved, stored, with_exif

from tf_reid.data import pipeline, records, samplers
from tf_reid.data.joined_records import joined
from tf_reid.data.plain_images import ImagesOfFiles, plain_images
from tf_reid.data.stored_images import StoredImages, records_of
from tf_reid.evaluation import extraction
from tf_reid.evaluation.feature_store import Store
from tf_reid.metrics.protocols import Trial
from tfds_builders import DatasetError, base

COUNT, TURNED = 41, 4  # images, and which of them need a change to be plain


def encoded(index):
    image = picture(*SIZE, seed=index)
    if index < TURNED:  # as an earlier version stored them
        return with_exif(saved(stored(image, 6), "JPEG", quality=98, subsampling=0), exif(6))
    return saved(image, "PNG" if index % 3 else "JPEG")


class Many(base.PedestrianBuilder, skip_registration=True):
    name = "many"
    pkg_dir_path = Path(base.__file__).parent  # TFDS looks for a package's files

    def read(self, folder):
        of = [
            base.Record(1 + index // 4, 1 + index % 2, f"{index}.jpg", None, "train" if index < 29 else "query")
            for index in range(COUNT)
        ]
        return of, {"market": {"kind": "market"}}

    def encoded(self, record):
        return encoded(int(record.file.split(".")[0]))


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    builder = Many(config="images", data_dir=tmp_path_factory.mktemp("data"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return builder


@pytest.fixture(scope="module")
def in_memory(builder):
    return records.load_records(builder)


@pytest.fixture
def in_files(builder, monkeypatch):
    monkeypatch.setattr(records, "IN_MEMORY", builder.info.dataset_size - 1)
    return records.load_records(builder)


def test_records_are_the_same_and_in_the_same_order(builder, in_memory, in_files):
    assert isinstance(in_memory.images, np.ndarray) and isinstance(in_files.images, StoredImages)
    assert len(in_files.images.files) == 6 and len(in_files) == len(in_memory) == COUNT
    for column in ("identity", "camera", "modality", "file", "split"):
        np.testing.assert_array_equal(getattr(in_files, column), getattr(in_memory, column))
    assert in_files.images.tolist() == in_memory.images.tolist()
    assert records.content(in_files) == records.content(in_memory)
    numbers = [int(name.split(".")[0]) for name in in_files.file]
    assert in_files.images.plain.tolist() == [number >= TURNED for number in numbers]
    assert numbers != sorted(numbers)  # TFDS shuffles them over its files
    for chosen in (in_files.identity == 2, np.array([5, 3, 3]), slice(2, 30, 7)):
        some = in_files.take(chosen)
        assert isinstance(some.images, StoredImages)
        assert some.images.tolist() == list(some.images) == in_memory.take(chosen).images.tolist()
    assert in_files.images[np.int64(7)] == in_files.images[7] == in_memory.images[7]


@pytest.mark.parametrize("kept", [0, 2**28])
def test_batches_are_bit_identical(kept, in_memory, in_files, monkeypatch):
    """Of a source in files and a target in memory, decoded when drawn and once for all."""
    monkeypatch.setattr(pipeline, "DECODED_BYTES", kept)
    other = make_records(np.arange(6), np.ones(6, np.int64))
    options = {"seed": 3, "stage": 0, "start": 2, "steps": 9, "image_size": SIZE, "flip": True, "pad": 3, "grey": 0.2}
    found = []
    for source in (in_memory, in_files):
        domains = {"source": source, "target": other}
        sampler = samplers.pairs_of_two_domains(source, stage_of(8), other)
        found.append(list(pipeline.training_batches(domains, sampler, **options).as_numpy_iterator()))
    assert len(found[0]) == len(found[1]) == 7
    for one, same in zip(*found, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], same[name])


def test_evaluated_images_and_kept_features_are_the_same(in_memory, in_files, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "READ_AT_ONCE", 7)
    images = pipeline.all_images(in_memory, SIZE)
    np.testing.assert_array_equal(pipeline.all_images(in_files, SIZE), images)
    trials = [Trial("", np.arange(9), np.arange(20, COUNT), False)]
    expected, _ = extract_roles({"image": encoder}, in_memory, trials, store=Store(tmp_path))
    monkeypatch.setattr(extraction, "feature_batches", None)  # nothing is extracted again
    found, _ = extract_roles({"image": encoder}, in_files, trials, store=Store(tmp_path))
    np.testing.assert_array_equal(found, expected)


def test_bytes_are_read_when_they_are_asked_for(in_files, monkeypatch):
    """No list of all bytes is made, and the graph holds none."""
    read, original = [], StoredImages.__getitem__

    def watched(self, chosen):
        if isinstance(chosen, int | np.integer):
            read.append(int(chosen))
        return original(self, chosen)

    monkeypatch.setattr(StoredImages, "__getitem__", watched)
    plain = plain_images(in_files)
    assert isinstance(plain, ImagesOfFiles) and len(plain) == COUNT and len(read) == TURNED
    read.clear()
    blobs = tf.function(pipeline._blobs(plain), input_signature=[tf.TensorSpec((None,), tf.int64)])
    assert blobs(tf.constant([8, 2, 8], tf.int64)).numpy().tolist() == [in_files.images[i] for i in (8, 2, 8)]
    assert read[:3] == [8, 2, 8]
    assert (
        blobs.get_concrete_function().graph.as_graph_def().ByteSize() < 5000
        and not blobs.get_concrete_function().captured_inputs
    )


def test_joined_data_sets_stay_in_files_where_they_are_large_together(builder, in_memory, in_files, monkeypatch):
    monkeypatch.setattr(records, "IN_MEMORY", builder.info.dataset_size)
    assert not records.stay_in_files([builder]) and records.stay_in_files([builder, builder])
    some = np.array([7, 3, 30])
    both = joined([in_files, records.load_records(builder, in_files=True).take(some)])
    assert isinstance(both.images, StoredImages) and len(both.images.files) == 12
    assert records.content(both) == records.content(joined([in_memory, in_memory.take(some)]))
    np.testing.assert_array_equal(both.images.plain[COUNT:], in_files.images.plain[some])


def test_a_damaged_image_is_refused_before_a_batch_is_made(in_files):
    damaged = make_records([1, 1], [1, 2], name="street/2.0.0")
    cut = with_exif(saved(picture(), "JPEG"), exif(6))[:-40]
    path = in_files.images.files[0].parent / "cut"
    path.write_bytes(cut)
    column = np.zeros(2, np.int64)
    cut_images = StoredImages([path], column, column, column + len(cut), np.array([True, False]))
    damaged = records.replace(damaged, images=cut_images)
    with pytest.raises(
        DatasetError, match=r"street/2\.0\.0: the image 1\.png is damaged: .*: build the data set again"
    ):
        pipeline.image_batches(damaged, SIZE, 2)
    path.write_bytes(cut[:-1])
    with pytest.raises(DatasetError, match=r"cut has become shorter since it was opened: build the data set again"):
        cut_images[0]


def test_the_records_of_a_tfrecord_file_are_found(tmp_path):
    contents = [b"", b"a" * 300, b"\0" * 7]
    with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
        for content in contents:
            writer.write(content)
    whole = (tmp_path / "file").read_bytes()
    assert [whole[start : start + size] for start, size in records_of(tmp_path / "file")] == contents
    (tmp_path / "empty").touch()
    assert records_of(tmp_path / "empty").shape == (0, 2)
