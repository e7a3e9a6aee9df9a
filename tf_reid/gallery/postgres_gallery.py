"""A gallery in a PostgreSQL database with pgvector: postgresql://USER@HOST:PORT/DATABASE?gallery=NAME.

```
NAME        a row for each image: id, path, identity, camera, time, embedding
NAME_about  what the gallery keeps about itself
```
An `add` is one transaction, whole or not at all. From some size on an HNSW index finds candidates. Where few images
pass the filters, or it finds too few that do, every image that passes them is compared.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from psycopg import errors, sql
from psycopg.types.json import Jsonb
from typing_extensions import LiteralString

from tf_reid.config import ConfigError
from tf_reid.gallery import postgres_statements as statements
from tf_reid.gallery.base import ABOUT_MODEL, FEW, Gallery, check_about, checked_top
from tf_reid.gallery.postgres_database import Cursor, Database, one
from tf_reid.gallery.records import FORMAT, Filters, Match, Record, check_paths, checked_embeddings, plain_records

INDEXED_FROM = 10_000  # images; fewer are compared one by one
LINKS, BUILD_BREADTH = 16, 100  # of HNSW
SEARCH_BREADTH, WIDER_WITH_FILTERS, WIDEST_SEARCH = 200, 4, 1000  # of HNSW; pgvector allows no wider one
WIDEST, WIDEST_INDEXED, WIDEST_HALVED = 16_000, 2_000, 4_000  # numbers that pgvector keeps, indexes, indexes as halves
BUILD_MEMORY = 2**26, 2**31  # bytes: the least and the most that may be used to make an index
AT_ONCE = 1000  # images written or read by one statement
CREATION_LOCK = 73_012_201  # any number: two processes make no tables at once


class PostgresGallery(Gallery):
    """Open a gallery, or, with `about`, create one.

    Args:
        about: see `FaissGallery`.

    Raises:
        ConfigError: as `FaissGallery` and `Database`; pgvector is missing.
    """

    def __init__(self, address: str, about: dict[str, Any] | None = None):
        self._database = Database(address)
        self.place = self._database.place
        try:
            if about is not None:
                self._create({**about, "format": FORMAT})
                self._database.learn_vectors()  # another process may have added pgvector since this one connected
            with self._database.transaction(snapshot=True) as cursor:
                if not self._database.exists(cursor, "_about"):
                    raise ConfigError(
                        f"There is no gallery {self.place}; make one with python -m tf_reid.search build."
                    )
                self.about = self._read_about(cursor)
                self._pgvector = _version(cursor)
            check_about(self.about, self.place, about)
        except BaseException:
            self._database.close()
            raise
        operator, operators = statements.OPERATORS[self.about["distance"]]
        width, kind = self.about["width"], self._kind_of_index()
        self._parts: dict[str, sql.Composable] = {
            "operator": sql.SQL(operator),
            "kind": sql.SQL(kind or "vector"),
            "operators": sql.SQL(f"{kind}_{operators}"),
            "width": sql.Literal(width),
        }

    def _create(self, about):
        if about["width"] > WIDEST:
            raise ConfigError(f"pgvector keeps embeddings of up to {WIDEST} numbers, not of {about['width']}.")
        with self._database.transaction() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CREATION_LOCK])
            if self._database.exists(cursor, "_about"):
                return
            if self._database.exists(cursor):
                raise ConfigError(f"{self.place} is a table, but no gallery of this library; choose another name.")
            self._add_pgvector(cursor)
            endings = {"camera_index": "_camera", "time_index": "_time", "identity_index": "_identity"}
            indexes = {part: self._database.table(ending) for part, ending in endings.items()}
            for statement in statements.TABLES:
                cursor.execute(self._database.statement(statement, width=sql.Literal(about["width"]), **indexes))
            self._write_about(cursor, about)

    def _add_pgvector(self, cursor):
        try:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (errors.FeatureNotSupported, errors.UndefinedFile):
            raise ConfigError(f"The server of {self.place} has no pgvector; install it there.") from None
        except errors.InsufficientPrivilege:
            raise ConfigError(
                f"The database of {self.place} has no pgvector, and you may not add it; let its owner run CREATE "
                "EXTENSION vector there."
            ) from None

    def close(self) -> None:
        self._database.close()

    def __len__(self):
        with self._database.transaction() as cursor:
            return self._count(cursor)

    def contained(self, paths: Sequence[str]) -> set[str]:
        statement = self._database.statement("SELECT path FROM {images} WHERE path = ANY(%s)")
        with self._database.transaction() as cursor:
            return {path for (path,) in cursor.execute(statement, [list(paths)])}

    def paths(self) -> Iterator[list[str]]:
        statement = self._database.statement("SELECT id, path FROM {images} WHERE id > %s ORDER BY id LIMIT %s")
        last = 0
        while True:
            with self._database.transaction() as cursor:
                rows = cursor.execute(statement, [last, AT_ONCE]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [path for _, path in rows]

    def read(self, paths: Sequence[str]) -> tuple[list[Record], np.ndarray]:
        statement = "SELECT path, identity, camera, time, embedding FROM {images} WHERE path = ANY(%s)"
        with self._database.transaction() as cursor:
            rows = {row[0]: row for row in cursor.execute(self._database.statement(statement), [list(paths)])}
        there = [rows[path] for path in paths if path in rows]
        return [Record(*labels) for *labels, _ in there], self._embeddings(there)

    def _embeddings(self, rows):
        """float32 [N, D]: what stands last in each row."""
        embeddings = [row[-1].to_numpy() for row in rows]
        return np.array(embeddings, np.float32).reshape(len(rows), self.about["width"])

    # ------------------------------------------------------------------ writing

    def add(self, records: Sequence[Record], embeddings) -> int:
        """As `Gallery.add`: all images or none."""
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        records, added = plain_records(records), 0
        # Sorted, so that two processes that add the same images never wait for each other in a circle.
        order = sorted(range(len(records)), key=lambda number: records[number].path)
        with self._database.transaction() as cursor:
            for start in range(0, len(records), AT_ONCE):
                part = order[start : start + AT_ONCE]
                columns = [list(column) for column in zip(*(records[number] for number in part), strict=True)]
                cursor.execute(self._database.statement(statements.ADD), [*columns, list(embeddings[part])])
                added += cursor.rowcount
        return added

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        check_paths(paths)
        removed = 0
        with self._database.transaction() as cursor:
            # One process removes at a time: two would wait for each other's images in a circle.
            cursor.execute(self._database.statement("LOCK TABLE {images} IN SHARE UPDATE EXCLUSIVE MODE"))
            removed += cursor.execute(self._database.statement(statements.REMOVE_PATHS), [list(paths)]).rowcount
            # No image is of the identity NULL, nor of a time up to NULL.
            removed += cursor.execute(self._database.statement(statements.REMOVE_IDENTITY), [identity]).rowcount
            removed += cursor.execute(self._database.statement(statements.REMOVE_UNTIL), [until]).rowcount
            if removed:
                removals = self._read_about(cursor).get("removals", 0)
                self._write_about(cursor, {"removals": removals + 1})
        return removed

    def erase(self) -> None:
        """As `Gallery.erase`: rewrites the table, and a search waits. The server's log and backups are not changed."""
        with self._database.transaction() as cursor:
            about, memory = self._read_about(cursor), self._build_memory(cursor)
        if about.get("erased", 0) < about.get("removals", 0):
            self._database.rewrite(self._database.table(), memory)
            self.write_about({"erased": about["removals"]})

    def write_about(self, values: dict[str, Any]) -> None:
        with self._database.transaction() as cursor:
            self._write_about(cursor, values)
            self.about = self._read_about(cursor)

    def _write_about(self, cursor, values):
        for key, value in values.items():
            if value is None:
                cursor.execute(self._database.statement("DELETE FROM {about} WHERE key = %s"), [key])
            else:
                cursor.execute(self._database.statement(statements.WRITE_ABOUT), [key, Jsonb(value)])

    def update_index(self, always: bool = False) -> None:
        """Make the index where there is none and there are many images, or `always`. The server keeps it up to date.

        Searches go on meanwhile; an `add` waits.
        """
        if self._kind_of_index() is None:
            return
        with self._database.transaction() as cursor:
            if self._has_index(cursor) or not (always or self._count(cursor) >= INDEXED_FROM):
                return
            cursor.execute("SELECT set_config('maintenance_work_mem', %s, true)", [self._build_memory(cursor)])
            values = {"links": sql.Literal(LINKS), "breadth": sql.Literal(BUILD_BREADTH)}
            cursor.execute(self._statement(statements.INDEX, index=self._database.table("_nearest"), **values))
            cursor.execute(self._database.statement("ANALYZE {images}"))

    def mend_index(self) -> str | None:
        """None: the server keeps the index and the images in step."""
        return None

    def _kind_of_index(self):
        """The type of the numbers in the index, or None where pgvector cannot index embeddings of this width."""
        if self.about["width"] <= WIDEST_INDEXED:
            return "vector"
        return "halfvec" if self.about["width"] <= WIDEST_HALVED and self._pgvector >= (0, 7) else None

    def _has_index(self, cursor):
        return self._database.exists(cursor, "_nearest")

    def _build_memory(self, cursor):
        """How much may be used to make the index, which takes many times longer where that is too little."""
        needed = self._count(cursor) * (5 * self.about["width"] + 50 * LINKS)
        least, most = BUILD_MEMORY
        return f"{min(max(needed, least), most) // 2**10}kB"

    # ------------------------------------------------------------------ reading

    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        queries, top = checked_embeddings(embeddings, self.about["width"]), checked_top(top, top)
        with self._database.transaction(snapshot=True) as cursor:
            self.about = self._read_about(cursor)
            if top > WIDEST_SEARCH:
                top = checked_top(top, self._count(cursor))
            answers: list[list[Any]] = [[] for _ in queries]
            exact = exact or 2 * top > WIDEST_SEARCH or not self._has_index(cursor)
            if not exact and not self._pass_few(cursor, filters):
                self._widen(cursor, top, filters)
                answers = self._nearest(queries, top, filters, statements.INDEX_ORDER)
            # Those for which the index is not asked, or found too few images that pass the filters.
            short = [number for number, rows in enumerate(answers) if len(rows) < top]
            if short:
                cursor.execute("SELECT set_config('enable_indexscan', 'off', true), set_config('jit', 'off', true)")
                exact_answers = self._nearest(queries[short], top, filters, statements.EXACT_ORDER)
                for number, rows in zip(short, exact_answers, strict=True):
                    answers[number] = rows
        return [[self._match(*row) for row in rows] for rows in answers]

    def _pass_few(self, cursor, filters):
        """Whether filters leave so few images that comparing all is as quick as the index, which would miss some."""
        if not filters or not any(filters):
            return False
        condition, values = statements.condition(filters)
        cursor.execute(self._statement(statements.COUNT_UP_TO, condition=condition), {**values, "most": FEW + 1})
        return one(cursor) <= FEW

    def _widen(self, cursor, top, filters):
        """Let the index find more images than are asked for, since the filters are applied to what it finds."""
        breadth = max(SEARCH_BREADTH, 2 * top) * (WIDER_WITH_FILTERS if filters and any(filters) else 1)
        cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(min(breadth, WIDEST_SEARCH))])
        if self._pgvector >= (0, 8):  # which then goes on until it has found enough, or most of what there is
            cursor.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")

    def _nearest(self, queries, top, filters, order):
        """Rows of the images nearest to each query."""
        condition, values = statements.condition(filters or Filters())
        statement = self._statement(statements.SEARCH, condition=condition, order=sql.SQL(order).format(**self._parts))
        return self._database.answers(statement, [{**values, "top": top, "query": query} for query in queries])

    def _match(self, number, path, identity, camera, time, distance):
        distance = 1.0 + distance if self.about["distance"] == "cosine" else distance
        return Match(number, Record(path, identity, camera, time), distance, self.accepted(distance))

    def identified(self, most: int) -> tuple[list[str], np.ndarray]:
        """As `Gallery.identified`; drawn evenly, always the same ones."""
        with self._database.transaction() as cursor:
            rows = cursor.execute(self._database.statement(statements.IDENTIFIED), [most]).fetchall()
        return [identity for identity, _ in rows], self._embeddings(rows)

    def summary(self) -> dict[str, Any]:
        with self._database.transaction(snapshot=True) as cursor:
            self.about, images = self._read_about(cursor), self._count(cursor)
            cursor.execute(self._database.statement("SELECT DISTINCT camera FROM {images} WHERE camera IS NOT NULL"))
            return {"images": images, "cameras": sorted(name for (name,) in cursor), "rejection": self.rejection}

    def stats(self) -> dict[str, Any]:
        with self._database.transaction(snapshot=True) as cursor:
            self.about = self._read_about(cursor)
            table = self._database.table().as_string()
            (values,) = cursor.execute(self._database.statement(statements.COUNTS), [table]).fetchall()
            index = "HNSW" if self._has_index(cursor) else "none"
        if self._kind_of_index() is None:
            index = f"none: this pgvector indexes no embeddings of {self.about['width']} numbers"
        *counts, size, server = values
        is_erased = self.about.get("erased", 0) >= self.about.get("removals", 0)
        return {
            **dict(zip(("images", "identities", "cameras", "since", "until"), counts, strict=True)),
            "index": index,
            "removed_images": "erased" if is_erased else "still in the files; run remove again",
            "bytes": size,
            "server": f"PostgreSQL {server}, pgvector {'.'.join(map(str, self._pgvector))}",
            **{key: self.about[key] for key in ABOUT_MODEL},
            "rejection": self.rejection,
        }

    def _count(self, cursor):
        cursor.execute(self._database.statement("SELECT count(*) FROM {images}"))
        return one(cursor)

    def _read_about(self, cursor):
        return dict(cursor.execute(self._database.statement("SELECT key, value FROM {about}")).fetchall())

    def _statement(self, text: LiteralString, **parts: sql.Composable) -> sql.Composed:
        """As `Database.statement`, with what this gallery's width and distance call for."""
        return self._database.statement(text, **self._parts, **parts)


def _version(cursor: Cursor) -> tuple[int, ...]:
    """Of pgvector in this database."""
    cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return tuple(int(number) for number in one(cursor).split("."))
