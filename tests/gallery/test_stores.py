"""What every kind of gallery promises, on each of them: FAISS in a folder, Qdrant, PostgreSQL.

Qdrant is its client's local mode, and a server where TF_REID_QDRANT names one, such as qdrant://localhost:6333.
"""

import dataclasses
import os
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from people import ABOUT, FILTERS, WIDTH, people
from qdrant_client import QdrantClient

from tf_reid.config import ConfigError
from tf_reid.gallery import copying
from tf_reid.gallery.base import Gallery
from tf_reid.gallery.qdrant_gallery import QdrantGallery
from tf_reid.gallery.records import Filters, Record
from tf_reid.gallery.rejection import calibrate
from tf_reid.gallery.stores import open_gallery

KINDS = ["faiss", "qdrant_local", "postgres"] + (["qdrant"] if "TF_REID_QDRANT" in os.environ else [])
WITH_INDEX = "&options=-c%20enable_seqscan%3Doff"  # PostgreSQL else reads a small table without its index


@dataclasses.dataclass
class Store:
    """A place for one gallery: `open` makes it, or opens it without an argument; `opened` are closed at the end."""

    kind: str
    opener: Callable[[dict[str, Any] | None], Gallery]
    opened: list[Gallery] = dataclasses.field(default_factory=list)

    def open(self, about=None):
        self.opened.append(self.opener(about))
        return self.opened[-1]


@pytest.fixture
def make_store(request, tmp_path):
    """(kind) -> a `Store`."""
    stores = []

    def make(kind):
        name = f"g{uuid.uuid4().hex}"
        if kind == "qdrant_local":
            client = QdrantClient(":memory:")
            stores.append(Store(kind, lambda about=None: QdrantGallery(client, name, about, place=name)))
            return stores[-1]
        address = {
            "faiss": lambda: str(tmp_path / name),
            "postgres": lambda: f"{request.getfixturevalue('postgres')}&gallery={name}{WITH_INDEX}",
            "qdrant": lambda: f"{os.environ['TF_REID_QDRANT']}/{name}",
        }[kind]()
        stores.append(Store(kind, lambda about=None: open_gallery(address, about)))
        return stores[-1]

    yield make
    for store in stores:
        if store.kind == "qdrant" and store.opened:
            store.opened[0].client.delete_collection(store.opened[0].collection)
        for gallery in store.opened:
            gallery.close()


@pytest.fixture(params=KINDS)
def store(request, make_store):
    return make_store(request.param)


@pytest.fixture
def gallery(store):
    gallery = store.open(ABOUT)
    gallery.add(*people(300))
    return gallery


def expected(records, embeddings, query, keep, top, distance):
    """Paths and distances of the nearest images, each compared with each."""
    rows = [n for n, record in enumerate(records) if keep(record)]
    apart = 1 - embeddings[rows] @ query if distance == "cosine" else np.linalg.norm(embeddings[rows] - query, axis=1)
    order = np.argsort(apart, kind="stable")[:top]
    return [records[rows[n]] for n in order], apart[order]


# ------------------------------------------------------------------------ search


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_nearest_of_those_allowed_are_found(store, distance):
    gallery = store.open(ABOUT | {"distance": distance})
    records, embeddings = people(300)
    assert gallery.add(records, embeddings) == 300
    gallery.update_index(always=True)
    gallery.remove(["3.jpg", "299.jpg"])
    queries = people(5, seed=1)[1]
    for filters, keep in FILTERS:
        for exact in (False, True):
            answers = gallery.search(queries, 7, filters, exact)
            for query, matches in zip(queries, answers, strict=True):
                rows, distances = expected(
                    records,
                    embeddings,
                    query,
                    lambda record, keep=keep: keep(record) and record.path not in ("3.jpg", "299.jpg"),
                    7,
                    distance,
                )
                assert [match.record for match in matches] == rows
                np.testing.assert_allclose([match.distance for match in matches], distances, atol=1e-5)
    assert all(match.accepted is None for match in matches)


def test_as_many_are_found_as_there_are_whatever_the_filters_leave(gallery):
    query = people(1, seed=2)[1]
    assert len(gallery.search(query, 300)[0]) == len(gallery.search(query, 10**30)[0]) == 300
    assert len(gallery.search(query, 290, Filters(since=1290.0))[0]) == 10
    assert gallery.search(people(2)[1], 5, Filters(cameras=("none",))) == [[], []]
    assert gallery.search(people(2)[1], 5, Filters(since=1150.0, until=1100.0)) == [[], []]


@pytest.mark.parametrize("top", [0, -1, 1.5, True, None])
def test_a_number_of_matches_that_cannot_be_is_refused(gallery, top):
    with pytest.raises(ValueError, match=r"top must be a whole number from 1 on, not "):
        gallery.search(people(1)[1], top)


def test_an_empty_gallery_answers_with_nothing(store):
    gallery = store.open(ABOUT)
    gallery.update_index()
    assert len(gallery) == 0 and gallery.search(people(2)[1]) == [[], []]
    assert gallery.add([], np.zeros((0, WIDTH))) == 0 and gallery.remove(["1.jpg"], "p1", 2000.0) == 0
    assert gallery.contained([]) == set() and gallery.mend_index() is None
    assert gallery.paths_and_embeddings()[1].shape == gallery.read(["1.jpg"])[1].shape == (0, WIDTH)
    assert gallery.identified(5)[0] == [] and calibrate(gallery, 0.1) is None
    assert gallery.summary() == {"images": 0, "cameras": [], "rejection": None} and gallery.stats()["images"] == 0


# --------------------------------------------------------------------------- add


def test_an_image_is_there_once_and_stays_as_it_was(gallery):
    (records, embeddings), (new, of_new) = people(300), people(2, start=300)
    records, embeddings = records + new, np.concatenate([embeddings, of_new])
    assert gallery.contained(["0.jpg", "301.jpg"]) == {"0.jpg"}
    others = [record._replace(identity="other") for record in records]
    assert gallery.add(others, embeddings[::-1]) == 2 and gallery.add(others, embeddings) == 0 and len(gallery) == 302
    assert gallery.read(["7.jpg", "301.jpg"])[0] == [records[7], others[301]]
    assert gallery.search(embeddings[7:8], 1)[0][0].record == records[7]
    twice = [Record("new.jpg"), Record("new.jpg")]
    gallery.add(twice, embeddings[:2])
    assert len(gallery) == 303


@pytest.mark.parametrize(
    "embeddings", [np.zeros((1, 5)), np.full((1, WIDTH), np.nan), np.full((1, WIDTH), np.inf), np.zeros((2, WIDTH))]
)
def test_embeddings_that_do_not_fit_are_refused(gallery, embeddings):
    with pytest.raises(ValueError, match="Embeddings must be"):
        gallery.add([Record("x.jpg")], embeddings)
    with pytest.raises(ValueError, match="Embeddings must be"):
        gallery.search(embeddings[:1, :5])


def test_an_image_without_a_path_is_refused_and_none_beside_it_is_added(gallery):
    records, embeddings = people(10, start=1000)
    for path in (None, ""):
        with pytest.raises(ValueError, match=r"Every image needs a path\."):
            gallery.add([*records[:5], Record(path), *records[6:]], embeddings)
    assert len(gallery) == 300


PATHS = [
    "ä/ö ü.jpg",
    "日本/カメラ.png",
    'it\'s "quoted".jpg',
    "back\\slash.jpg",
    "100%s {x}.jpg",
    "two\nlines.jpg",
    "😀",
    "x" * 1000,
]


def test_any_path_and_what_is_not_known_come_back_as_they_were(store):
    gallery = store.open(ABOUT)
    records = [Record(path, path[:9], f"c'{n}", 1e9 + n / 7) for n, path in enumerate(PATHS)]
    records += [Record("unknown.jpg"), Record("half known.jpg", None, "c", float("nan"))]
    embeddings = people(len(records))[1]
    gallery.add(records, embeddings)
    kept = [*records[:-1], Record("half known.jpg", None, "c", None)]
    assert gallery.read([record.path for record in records])[0] == kept
    assert gallery.contained(PATHS) == set(PATHS)
    assert {match.record for match in gallery.search(embeddings[:1], 20)[0]} == set(kept)
    assert len(gallery.search(embeddings[:1], 20, Filters(not_cameras=("c'1", "c")))[0]) == len(PATHS)
    assert len(gallery.search(embeddings[:1], 20, Filters(since=0.0))[0]) == len(PATHS)
    assert gallery.summary()["cameras"] == sorted({"c", *(f"c'{n}" for n in range(len(PATHS)))})
    assert gallery.remove([PATHS[2]], PATHS[4][:9]) == 2


def test_two_that_add_the_same_images_at_once_add_each_once(store):
    if store.kind == "qdrant_local":
        pytest.skip("Qdrant's local mode is for one thread")
    records, embeddings = people(200)
    galleries = [store.open(ABOUT) for _ in range(2)]

    def add(gallery, order):
        for part in np.array_split(order, 4):
            gallery.add([records[n] for n in part], embeddings[part])

    together([lambda: add(galleries[0], np.arange(200)), lambda: add(galleries[1], np.arange(200)[::-1])])
    assert len(galleries[0]) == 200 and {path for page in galleries[1].paths() for path in page} == {
        record.path for record in records
    }


def together(functions):
    """Run functions at once; what one of them raises is raised here."""
    errors = []

    def run(function):
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# ------------------------------------------------------------------------- remove


def test_images_are_removed_by_path_folder_identity_and_time(gallery):
    paths = ["a/1.jpg", "a/2.jpg", "a/b/3.jpg", "ab/4.jpg", "a0", "A/5.jpg"]
    gallery.add([Record(path) for path in paths], people(6)[1])
    assert gallery.remove(["a", "5.jpg", "nowhere"]) == 4 and gallery.contained(paths) == set(paths[3:])
    theirs = sum(record.identity == "p3" for record in people(300)[0] if record.path != "5.jpg")
    assert gallery.remove(identity="p3") == theirs > 0 and gallery.remove(identity="p3") == 0
    assert all(match.record.identity != "p3" for match in gallery.search(people(1)[1], 300)[0])
    left = [record for record in people(300)[0] if record.path != "5.jpg" and record.identity != "p3"]
    assert gallery.remove(until=1099.0) == sum(record.time <= 1099 for record in left)
    assert len(gallery) == sum(record.time > 1099 for record in left) + 3 and gallery.remove() == 0
    gallery.erase()
    assert gallery.add([Record("new.jpg", "p3")], people(1)[1]) == 1
    assert gallery.search(people(1)[1], 1)[0][0].record == Record("new.jpg", "p3")


def test_an_empty_path_does_not_stand_for_all_images(gallery):
    gallery.add([Record("/a/1.jpg")], people(1)[1])
    before = len(gallery)
    with pytest.raises(ValueError, match="Every image needs a path"):
        gallery.remove(["/a", ""])
    assert len(gallery) == before


def test_several_kinds_of_removal_are_one(gallery):
    assert gallery.remove(["299.jpg"], "p3", 1009.0) == len(
        {record.path for record in people(300)[0] if record.identity == "p3" or record.time <= 1009.0} | {"299.jpg"}
    )


# -------------------------------------------------------------- opening and about


def test_a_removal_after_an_erasure_waits_for_another_one(gallery):
    if gallery.stats()["index"] == "Qdrant":
        pytest.skip("the server clears its own files")
    for path in ("0.jpg", "1.jpg"):
        gallery.remove([path])
        assert gallery.stats()["removed_images"] == "still in the files; run remove again"
        gallery.erase()
        assert gallery.stats()["removed_images"] == "erased"


def test_another_models_embeddings_and_a_newer_version_are_refused(store):
    with pytest.raises(ConfigError, match="There is no "):
        store.open()
    gallery = store.open(ABOUT)
    gallery.add(*people(3))
    assert len(store.open()) == len(store.open(ABOUT)) == 3 and store.open().about.items() >= ABOUT.items()
    with pytest.raises(ConfigError, match=r"built by model d1 \(runs/a\), and this is d2 .* cannot be compared"):
        store.open(ABOUT | {"digest": "d2", "source": "runs/b"})
    gallery.write_about({"format": 3})
    with pytest.raises(ConfigError, match=r"has gallery format 3, .* made by a newer version"):
        store.open()
    gallery.write_about({"format": 2, "distance": "unheard of"})
    with pytest.raises(ConfigError, match="is damaged: what it keeps of its encoder cannot be"):
        store.open()


def test_what_one_writes_another_reads(gallery, store):
    reader = store.open()
    records, embeddings = people(1, seed=7, start=500)
    reader.search(embeddings)
    gallery.add(records, embeddings)
    gallery.write_about({"rejection": {"threshold": 0.5, "false_accept_rate": 0.1, "images": 3, "queries": 3}})
    match = reader.search(embeddings, 1)[0][0]
    assert match.record.path == "500.jpg" and match.accepted and reader.rejection == gallery.rejection
    gallery.write_about({"rejection": None})
    assert reader.search(embeddings, 1)[0][0].accepted is None and gallery.rejection is None
    assert gallery.summary()["images"] == reader.stats()["images"] == 301


def test_a_search_sees_what_stays_while_another_writes(gallery, store):
    if store.kind == "qdrant_local":
        pytest.skip("Qdrant's local mode is for one thread")
    queries, is_done = people(300)[1][:4], threading.Event()
    writer, readers = store.open(), [store.open() for _ in range(2)]

    def write():
        for part in range(8):
            records, embeddings = people(30, seed=part, start=1000 + 30 * part)
            writer.add(records, embeddings)
            writer.remove([record.path for record in records])
        is_done.set()

    def read(reader):
        while not is_done.is_set():
            for number, matches in enumerate(reader.search(queries, 400)):
                paths = [match.record.path for match in matches]
                assert paths[0] == f"{number}.jpg" and sum(int(path[:-4]) < 1000 for path in paths) == 300

    together([write, *(lambda reader=reader: read(reader) for reader in readers)])


def test_all_images_can_be_read_in_an_order_that_stays(gallery):
    records, embeddings = people(300)
    pages = list(gallery.paths())
    paths = [path for page in pages for path in page]
    assert sorted(paths) == sorted(record.path for record in records) and pages == list(gallery.paths())
    wanted = ["17.jpg", "nowhere", "5.jpg", "299.jpg"]
    read, vectors = gallery.read(wanted)
    assert read == [records[17], records[5], records[299]] and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, embeddings[[17, 5, 299]], atol=1e-7)
    names, vectors = gallery.paths_and_embeddings()
    assert names == paths and vectors.shape == (300, WIDTH)


# --------------------------------------------------------- the rejection threshold


def test_an_unknown_identity_is_accepted_at_the_rate_that_was_set(gallery, store):
    rejection = calibrate(gallery, 0.1)
    records, embeddings = people(300)
    nearest = [
        min(1 - embeddings[[n for n, r in enumerate(records) if r.identity != record.identity]] @ own)
        for record, own in zip(records, embeddings, strict=True)
    ]
    assert rejection["queries"] == 300 and rejection["images"] == 300 and rejection["false_accept_rate"] == 0.1
    assert rejection["threshold"] == pytest.approx(np.quantile(nearest, 0.1), abs=1e-5)
    assert np.mean(np.array(nearest) <= rejection["threshold"]) == pytest.approx(0.1, abs=0.02)
    own = gallery.search(embeddings[:1], 300)[0]
    assert own[0].accepted and not own[-1].accepted
    again = store.open()
    assert again.rejection == again.stats()["rejection"] == again.summary()["rejection"] == rejection


def test_identities_that_are_drawn_for_it_are_always_the_same_ones(gallery, store):
    gallery.add([Record(f"unknown {n}") for n in range(50)], people(50)[1])
    drawn = [opened.identified(40) for opened in (gallery, store.open())]
    assert drawn[0][0] == drawn[1][0] and len(drawn[0][0]) == len(drawn[0][1]) == 40 and None not in drawn[0][0]
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])


def test_an_image_of_unknown_identity_may_show_the_query_itself_and_sets_no_threshold(store):
    gallery = store.open(ABOUT)
    known = np.eye(WIDTH)[[0, 1] * 10]
    gallery.add([Record(f"{n}", f"p{n % 2}") for n in range(20)], known)
    gallery.add([Record(f"unknown {n}") for n in range(20)], known)
    assert calibrate(gallery, 0.1)["threshold"] == pytest.approx(1.0)  # to the other identity


def test_a_rate_needs_images_of_which_it_is_one_at_least(store):
    gallery = store.open(ABOUT)
    gallery.add([Record(f"{n}", f"p{n % 2}") for n in range(9)], people(9)[1])
    assert calibrate(gallery, 0.1) is None
    gallery.add([Record("9", "p1")], people(1)[1])
    assert calibrate(gallery, 0.1)["queries"] == 10


def test_without_identities_nothing_is_calibrated(store):
    gallery = store.open(ABOUT)
    gallery.add([Record("a"), Record("b")], people(2)[1])
    assert calibrate(gallery, 0.1) is None and gallery.search(people(1)[1])[0][0].accepted is None


def test_other_identities_are_met_also_where_identities_have_many_images(store):
    gallery = store.open(ABOUT)
    rng = np.random.default_rng(0)
    near = np.eye(WIDTH)[np.repeat([0, 1], 70)] + 0.01 * rng.normal(size=(140, WIDTH))
    gallery.add([Record(f"{n}", f"p{n // 70}") for n in range(140)], near)
    assert calibrate(gallery, 0.1)["queries"] == 140


# --------------------------------------------------------------------------- copy


@pytest.mark.parametrize("kind_of_target", KINDS)
def test_a_copy_that_was_cut_short_goes_on_and_is_no_gallery_until_it_is_whole(
    store, make_store, kind_of_target, monkeypatch
):
    for module in ("faiss_gallery", "postgres_gallery", "qdrant_gallery"):
        name = "AT_ONCE" if module == "postgres_gallery" else "READ_AT_ONCE"
        monkeypatch.setattr(f"tf_reid.gallery.{module}.{name}", 70)
    source, target = store.open(ABOUT), make_store(kind_of_target)
    source.add(*people(300))
    rejection, about, copied = calibrate(source, 0.1), copying.about_of_copy(source), []

    def killed(images):
        copied.append(images)
        if len(copied) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copying.copy(source, target.open(about), killed)
    with pytest.raises(ConfigError, match=rf"unfinished copy of {re.escape(source.place)}: finish it with python -m"):
        target.open()
    half = target.open(about)
    assert len(half) == sum(copied) == 140
    gone = next(half.paths())[0]  # it was copied, and then leaves the source
    source.remove([gone])
    assert copying.copy(source, half) == 299
    copy = target.open()
    assert gone not in copy.contained([gone]) and copy.rejection == rejection and "unfinished" not in copy.about
    queries = people(4, seed=1)[1]
    for matches, others in zip(copy.search(queries, 9), source.search(queries, 9), strict=True):
        assert [match.record for match in matches] == [match.record for match in others]
        np.testing.assert_allclose([m.distance for m in matches], [m.distance for m in others], atol=1e-6)
    assert copying.copy(source, target.open(about)) == 299  # the same command once more
    source.remove(["7.jpg"])
    with pytest.raises(ConfigError, match=r"is a gallery, and no copy of .*: one holds 298 images, the other 299"):
        copying.copy(source, copy)


def test_what_differs_between_a_gallery_and_its_copy_is_named(gallery, make_store):
    copy = make_store("faiss").open(copying.about_of_copy(gallery))
    records, embeddings = people(300)
    copy.add([records[0], records[1]._replace(camera="c7")], embeddings[:2])
    with pytest.raises(ConfigError, match=r"is not yet a copy of .*: 1\.jpg is not the same in both\. If another"):
        copying.copy(gallery, copy)
    copy.remove(["0.jpg", "1.jpg"])
    copy.add([records[0], records[1]], embeddings[[1, 1]])
    with pytest.raises(ConfigError, match=r"the embedding of 0\.jpg is not the same in both"):
        copying.copy(gallery, copy)
    with pytest.raises(ConfigError, match="cannot be copied to itself"):
        copying.copy(copy, copy)
