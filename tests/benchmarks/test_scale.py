"""The page on scale holds what its command prints, and the command's arithmetic is right."""

from pathlib import Path

import pytest

from benchmarks import scale

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


def test_the_page_holds_the_tables_that_the_command_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scale"])
    scale.main()
    printed = capsys.readouterr().out
    for part in printed.strip().split("\n\n"):
        assert part in PAGE, part


def test_every_figure_is_measured_by_a_command_or_published_at_an_address():
    for given in (*scale.EMBEDDING.values(), *scale.SEARCHES.values(), *scale.RECALL, *scale.PUBLISHED):
        begins = {"measured": "`python -m benchmarks.", "published": "<https://"}[given.kind]
        assert given.source.startswith(begins), given


def test_the_arithmetic():
    assert scale.embedding_hours(36_000, 10) == 1
    assert scale.embedding_bytes(10, 256, 2) == 5120
    assert scale.hnsw_memory(1, 256) == 1024 + 256
    assert scale.qdrant_memory(1000, 1024) == 6_144_000  # the example of Qdrant's page, a thousandth of it
    assert scale.pgvector_storage(1, 3) == 20
    assert scale.ivf_pq_memory(10**9, 256) == 40 * 10**9 + (2**20 + 256) * 1024
    assert round(scale.ivf_pq_memory(10**5, 256) / 10**5) == 56  # as measured
    assert [scale.lists(n) for n in (10**5, 10**6, 10**7, 10**8)] == [1265, 2**16, 2**18, 2**20]
    assert [scale.shards(memory, 64e9) for memory in (1, 64e9, 65e9)] == [1, 1, 2]
    assert scale.flat_queries(10**6, 512) == pytest.approx(scale.SEARCHES["flat"].value / 20)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0892, "0.089"), (8.93, "8.9"), (1.02, "1"), (89.3, "89"), (893, "890"), (7306, "7,300")]
)
def test_amounts_have_two_digits(value, text):
    assert scale.amount(value) == text


@pytest.mark.parametrize(("count", "text"), [(999, "1,000 B"), (25.6e6, "26 MB"), (1.28e12, "1.3 TB")])
def test_sizes_have_a_unit(count, text):
    assert scale.size(count) == text
