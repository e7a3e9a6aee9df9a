"""Cost and size of galleries from 10^5 to 10^9 crops, computed from measured and published figures.

python -m benchmarks.scale [--width 256] [--memory 64]     prints the tables of docs/scale.md
python -m benchmarks.scale --measure 100000                measures what they need of FAISS's indexes on this machine

Every figure that goes into the tables is an `Input`: measured, with its command, or published, with its address. All
other cells are computed from them, by the formulas that the functions here are.
"""

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence

SIZES = [10**power for power in range(5, 10)]
LINKS = 32  # of HNSW, a node: tf_reid.gallery.faiss_index.LINKS
CODE = 32  # bytes of a product-quantised embedding
NUMBERED = 8  # bytes of an image's number in an inverted file


@dataclasses.dataclass(frozen=True)
class Input:
    """A figure that is not computed.

    Attributes:
        kind: "measured", by the command `source`; or "published", at the address `source`.
    """

    what: str
    value: float
    unit: str
    kind: str
    source: str


TWO_CORES = "two CPU cores with AVX512-bf16"
EMBEDDING = {
    "float32": Input(
        "ResNet-50 at 256x128 as served, JPEG, float32",
        1000 / 25.2,
        "images/s",
        "measured",
        f"`python -m benchmarks.serving forward --batches 1 8`, {TWO_CORES}",
    ),
    "int8": Input(
        "the same in int8, from pixels",
        1000 / 12.6,
        "images/s",
        "measured",
        f"`python -m benchmarks.serving forward --batches 1 8`, {TWO_CORES}",
    ),
}
SEARCHES = {
    "flat": Input(
        "a flat index of 100,000 x 256, one query at a time",
        1000 / 11.2,
        "queries/s",
        "measured",
        f"`python -m benchmarks.search`, {TWO_CORES}",
    ),
    "HNSW": Input(
        "an HNSW index of 100,000 x 256, one query at a time, recall 1.000",
        1000 / 1.5,
        "queries/s",
        "measured",
        f"`python -m benchmarks.search`, {TWO_CORES}",
    ),
}
RECALL = [
    Input(
        f"recall of the ten nearest of 100,000 x 256, {kind}",
        value,
        "",
        "measured",
        f"`python -m benchmarks.scale --measure 100000`, {TWO_CORES}",
    )
    for kind, value in (("float16", 1.0), ("int8", 1.0), (f"IVF-PQ, {CODE} bytes, 64 lists of 1,265 read", 0.913))
]
FLAT_MEASURED = (100_000, 256)  # images and width of the flat index above
WIKI = "https://github.com/facebookresearch/faiss/wiki"
PUBLISHED = [
    Input("FAISS's HNSW", 4, "bytes x width + 8 bytes x links", "published", f"<{WIKI}/Guidelines-to-choose-an-index>"),
    Input("FAISS's IVF-PQ, beside the code", NUMBERED, "bytes", "published", f"<{WIKI}/Indexing-1M-vectors>"),
    Input("Qdrant", 6, "bytes x width", "published", "<https://qdrant.tech/documentation/capacity-planning/>"),
    Input("pgvector, the column", 4, "bytes x width + 8 bytes", "published", "<https://github.com/pgvector/pgvector>"),
]  # of an image, memory or storage


# --------------------------------------------------------------------- formulas


def embedding_hours(images: int, images_a_second: float) -> float:
    """How long one worker embeds so many images; n workers take an n-th of it."""
    return images / images_a_second / 3600


def embedding_bytes(images: int, width: int, bytes_a_number: float) -> float:
    """Of the embeddings alone: 4 bytes a number in float32, 2 in float16, 1 in int8."""
    return images * width * bytes_a_number


def code_bytes(images: int) -> float:
    """Of the embeddings as product-quantised codes."""
    return images * CODE


def flat_memory(images: int, width: int) -> float:
    return embedding_bytes(images, width, 4)


def hnsw_memory(images: int, width: int) -> float:
    """FAISS: the vectors, and two links of four bytes for each of M."""
    return images * (4 * width + LINKS * 2 * 4)


def ivf_pq_memory(images: int, width: int) -> float:
    """FAISS: a code and a number for each image, the centroids of the lists, and 256 centroids of each code's byte."""
    return images * (CODE + NUMBERED) + (lists(images) + 256) * 4 * width


def lists(images: int) -> int:
    """As many lists of an inverted file as FAISS's guidelines say: 4·√N below a million, then 2^16, 2^18, 2^20."""
    if images < 10**6:
        return round(4 * math.sqrt(images))
    return 2 ** (16 if images < 10**7 else 18 if images < 10**8 else 20)


def qdrant_memory(images: int, width: int) -> float:
    return 1.5 * embedding_bytes(images, width, 4)


def pgvector_storage(images: int, width: int) -> float:
    """Of the table's column; the HNSW index holds each vector once more."""
    return images * (4 * width + 8)


def shards(memory: float, a_machine: float) -> int:
    """How many machines hold an index of so many bytes, each so many."""
    return max(1, math.ceil(memory / a_machine))


def flat_queries(images: int, width: int) -> float:
    """Queries a second of a flat index on the measured machine: the time grows with the numbers that are compared."""
    measured_images, measured_width = FLAT_MEASURED
    return SEARCHES["flat"].value * measured_images * measured_width / (images * width)


# --------------------------------------------------------------------- tables


def tables(width: int, gigabytes_a_machine: float) -> Iterator[str]:
    """The tables of docs/scale.md, as Markdown."""
    memory = {"FAISS, flat": flat_memory, "FAISS, HNSW": hnsw_memory, "FAISS, IVF-PQ": ivf_pq_memory}
    memory |= {"Qdrant": qdrant_memory, "pgvector, the column": pgvector_storage}
    hours = {f"{kind}, hours": given.value for kind, given in EMBEDDING.items()}
    days = {f"{kind}, machines for one day": given.value for kind, given in EMBEDDING.items()}

    yield "Embedding by machines of two CPU cores:\n"
    yield table(
        ["crops", *hours, *days],
        lambda n: [
            *(amount(embedding_hours(n, speed)) for speed in hours.values()),
            *(str(math.ceil(embedding_hours(n, speed) / 24)) for speed in days.values()),
        ],
    )
    yield f"The embeddings alone, {width} numbers each:\n"
    yield table(
        ["crops", "float32", "float16", "int8", f"product-quantised, {CODE} bytes"],
        lambda n: [*(size(embedding_bytes(n, width, each)) for each in (4, 2, 1)), size(code_bytes(n))],
    )
    yield "An index, without what is known of each crop:\n"
    yield table(["crops", *memory], lambda n: [size(of_index(n, width)) for of_index in memory.values()])
    yield f"Machines, if each gives {gigabytes_a_machine:g} GB to the index:\n"
    yield table(
        ["crops", *memory],
        lambda n: [str(shards(of_index(n, width), gigabytes_a_machine * 1e9)) for of_index in memory.values()],
    )
    yield "Queries a second of a flat index on two CPU cores, one query at a time:\n"
    yield table(["crops", "flat"], lambda n: [amount(flat_queries(n, width))])
    yield "The figures that these tables are computed from:\n"
    yield inputs()


def table(titles: Sequence[str], cells: Callable[[int], Sequence[str]]) -> str:
    """A row for each size."""
    rows = [f"| {' | '.join(titles)} |", "|" + "---:|" * len(titles)]
    rows += [f"| 10^{round(math.log10(n))} | {' | '.join(cells(n))} |" for n in SIZES]
    return "\n".join(rows) + "\n"


def inputs() -> str:
    rows = ["| what | value | measured or published |", "|---|---:|---|"]
    for given in (*EMBEDDING.values(), *SEARCHES.values(), *RECALL, *PUBLISHED):
        rows.append(
            f"| {given.what} | {f'{amount(given.value)} {given.unit}'.strip()} | {given.kind}: {given.source} |"
        )
    return "\n".join(rows) + "\n"


def amount(value: float) -> str:
    """Two digits and what lies before them: 0.089, 8.9, 890, 7,300."""
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, digits):,.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: float) -> str:
    """So many bytes, in the unit that leaves at least 1."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{amount(count)} {unit}"
        count /= 1000
    raise AssertionError


# --------------------------------------------------------------------- measuring


def measure(images: int, width: int, queries: int) -> None:
    """Bytes, adding time, recall and queries a second of FAISS's compressed indexes, beside the flat one."""
    import faiss

    from benchmarks.search import embeddings_near_centres

    embeddings, asked = embeddings_near_centres(images, width, queries)
    print(f"{images} images of {width} numbers, {os.cpu_count()} cores")
    print("| index | bytes an image | trained and added in | recall of the ten nearest | queries a second |")
    print("|---|---:|---:|---:|---:|")
    truth = None
    for kind in ("Flat", "SQfp16", "SQ8", f"IVF{lists(images)},PQ{CODE}"):
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        start = time.perf_counter()
        index.train(embeddings[: 64 * lists(images)])
        index.add(embeddings)
        added = time.perf_counter() - start
        if kind.startswith("IVF"):
            index.nprobe = 64
        found, start = [], time.perf_counter()
        for query in asked:
            found.append(index.search(query[None], 10)[1][0])
        seconds = time.perf_counter() - start
        truth = truth or [set(each) for each in found]
        recall = sum(len(set(each) & right) for each, right in zip(found, truth, strict=True)) / (10 * len(asked))
        stored = faiss.serialize_index(index).nbytes / images
        print(f"| {kind} | {stored:.0f} | {added:.1f} s | {recall:.3f} | {len(asked) / seconds:.0f} |", flush=True)


def main() -> None:
    args = arguments()
    if args.measure:
        measure(args.measure, args.width, args.queries)
        return
    print("\n".join(tables(args.width, args.memory)), end="")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Cost and size of galleries from 10^5 to 10^9 crops."
    )
    parser.add_argument("--width", type=int, default=256, help="numbers of an embedding")
    parser.add_argument("--memory", type=float, default=64, metavar="GB", help="that a machine gives to an index")
    parser.add_argument("--measure", type=int, metavar="IMAGES", help="measure FAISS's indexes of so many images")
    parser.add_argument("--queries", type=int, default=200, help="that are measured")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
