"""RegDB on a tiny tree in the official layout."""

import re
import shutil
import zipfile

import pytest

import tfds_builders
from tfds_builders.doctor import examine
from tfds_builders.regdb.regdb_dataset_builder import Builder

TRIALS = {1: [2, 10], 2: [1, 3]}  # who is tested
IDENTITIES = (1, 2, 3, 10)
SHOTS = 2


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    root = tmp_path / "manual/RegDB"
    for part, letter in (("Visible", "v"), ("Thermal", "t")):
        for identity in IDENTITIES:
            for shot in range(SHOTS):
                write_image(root / f"{part}/{identity}/male_back_{letter}_0{identity}_{shot}.bmp")
        for trial, identities in TRIALS.items():
            lines = [
                f"{part}/{identity}/male_back_{letter}_0{identity}_{shot}.bmp {label}"
                for label, identity in enumerate(identities)
                for shot in range(SHOTS)
            ]
            (root / "idx").mkdir(exist_ok=True)
            (root / f"idx/test_{part.lower()}_{trial}.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(Builder, "COUNTS", {"Visible": 8, "Thermal": 8})
    monkeypatch.setattr(Builder, "TRIALS", 2)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 2)
    return tmp_path


def build(tiny):
    return tfds_builders.prepare(tfds_builders.builder("regdb", data_dir=tiny / "data"), tiny / "manual")


def test_official_counts():
    assert Builder.COUNTS == {"Visible": 412 * 10, "Thermal": 412 * 10}
    assert (Builder.TRIALS, Builder.TEST_IDENTITIES) == (10, 206)


def test_identities_come_from_the_folders_and_modalities_from_the_cameras(tiny, read_back):
    splits = read_back(build(tiny))
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 8, "query": 4, "gallery": 4}
    assert {(e["identity"], e["camera"], e["modality"]) for e in splits["query"].values()} == {(2, 1, 0), (10, 1, 0)}
    assert {(e["identity"], e["camera"], e["modality"]) for e in splits["gallery"].values()} == {(2, 2, 1), (10, 2, 1)}
    assert {e["identity"] for e in splits["train"].values()} == {1, 3}
    assert splits["gallery"]["Thermal/10/male_back_t_010_1.bmp"]["image"].startswith(b"\x89PNG")


def test_both_directions_have_the_official_trials(tiny):
    metadata = build(tiny).info.metadata
    assert metadata["default_protocol"] == "visible_to_thermal"
    cameras = {
        name: (protocol["query_cameras"], protocol["gallery_cameras"])
        for name, protocol in metadata["protocols"].items()
    }
    assert cameras == {"visible_to_thermal": ([1], [2]), "thermal_to_visible": ([2], [1])}
    for protocol in metadata["protocols"].values():
        assert protocol["kind"] == "trials"
        assert protocol["test_identities"] == [[2, 10], [1, 3]]
        assert protocol["shots"] is None


def test_archive_reads_like_its_folder(tiny, tmp_path_factory, read_back):
    unpacked = read_back(build(tiny))
    elsewhere = tmp_path_factory.mktemp("zipped")
    shutil.make_archive(elsewhere / "RegDB", "zip", tiny / "manual", "RegDB")
    builder = tfds_builders.builder("regdb", data_dir=elsewhere / "data")
    assert read_back(tfds_builders.prepare(builder, elsewhere)) == unpacked


def test_lists_that_name_different_identities_are_an_error(tiny):
    idx = tiny / "manual/RegDB/idx"
    (idx / "test_thermal_2.txt").write_text((idx / "test_thermal_1.txt").read_text())
    with pytest.raises(tfds_builders.DatasetError, match=r"two lists of trial 2 in .*idx name different identities"):
        build(tiny)


def test_list_of_too_few_identities_is_an_error(tiny):
    (tiny / "manual/RegDB/idx/test_visible_1.txt").write_text("Visible/2/male_back_v_02_0.bmp 0\n")
    with pytest.raises(tfds_builders.DatasetError, match=r"test_visible_1\.txt names 1 identities, not 2"):
        build(tiny)


def test_missing_list_is_named(tiny):
    (tiny / "manual/RegDB/idx/test_thermal_2.txt").unlink()
    with pytest.raises(tfds_builders.DatasetError, match=r"there is no list .*test_thermal_2\.txt"):
        build(tiny)


def test_damaged_list_is_named(tiny):
    (tiny / "manual/RegDB/idx/test_visible_2.txt").write_bytes(b"\xff\xfeVisible")
    with pytest.raises(
        tfds_builders.DatasetError, match=r"the list .*test_visible_2\.txt is damaged or may not be read"
    ):
        build(tiny)


@pytest.mark.parametrize("damaged", ["bytes", "checksum", "encrypted"])
def test_damaged_list_in_an_archive_is_named_by_the_doctor(tiny, tmp_path_factory, damaged):
    elsewhere = tmp_path_factory.mktemp("zipped")
    archive = elsewhere / "RegDB.zip"
    shutil.make_archive(elsewhere / "RegDB", "zip", tiny / "manual", "RegDB")
    with zipfile.ZipFile(archive) as packed:
        info = packed.getinfo("RegDB/idx/test_thermal_1.txt")
    data = bytearray(archive.read_bytes())
    if damaged == "bytes":  # zlib's
        start = info.header_offset + 30 + len(info.filename)
        data[start : start + 20] = b"\xff" * 20
    else:  # in the table of contents: the entry is 46 bytes long, and then comes the file's name
        entry = data.rfind(info.filename.encode()) - 46
        data[entry + (16 if damaged == "checksum" else 8)] ^= 0xFF if damaged == "checksum" else 1
    archive.write_bytes(data)
    problems = examine("regdb", data_dir=elsewhere / "data", manual_dir=elsewhere).problems
    assert any(re.search(r"the list .*test_thermal_1\.txt is damaged or may not be read", one) for one in problems)


def test_folder_that_names_no_identity_is_an_error(tiny):
    (tiny / "manual/RegDB/Visible/10").rename(tiny / "manual/RegDB/Visible/ten")
    with pytest.raises(tfds_builders.DatasetError, match="Visible/ten is not named by its person"):
        build(tiny)
