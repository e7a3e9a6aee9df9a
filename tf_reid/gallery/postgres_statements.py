"""What a gallery asks of PostgreSQL. {images} and {about} are its two tables, {kind} and {width} those of its index."""

from typing import Any

from psycopg import sql

from tf_reid.gallery.records import Filters

OPERATORS = {"cosine": ("<#>", "ip_ops"), "euclidean": ("<->", "l2_ops")}  # <#> is the negative inner product

TABLES = (
    "CREATE TABLE {about} (key text PRIMARY KEY, value jsonb NOT NULL)",
    "CREATE TABLE {images} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    'path text COLLATE "C" NOT NULL UNIQUE, identity text, camera text, time double precision, '
    "embedding vector({width}) NOT NULL)",
    "ALTER TABLE {images} ALTER COLUMN embedding SET STATISTICS 0",
    "CREATE INDEX {camera_index} ON {images} (camera)",
    "CREATE INDEX {time_index} ON {images} (time)",
    "CREATE INDEX {identity_index} ON {images} (identity, id) WHERE identity IS NOT NULL",
)
INDEX = (
    "CREATE INDEX IF NOT EXISTS {index} ON {images} USING hnsw ((embedding::{kind}({width})) {operators}) "
    "WITH (m = {links}, ef_construction = {breadth})"
)
WRITE_ABOUT = "INSERT INTO {about} VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
ADD = """
INSERT INTO {images} (path, identity, camera, time, embedding)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::double precision[], %b::vector[]) AS new
ON CONFLICT (path) DO NOTHING
"""
# "0" follows "/": all paths between begin with the folder's. So the table's index finds them.
REMOVE_PATHS = """
DELETE FROM {images} AS images USING unnest(%s::text[]) AS gone(path)
WHERE images.path = gone.path OR (images.path >= gone.path || '/' AND images.path < gone.path || '0')
"""
REMOVE_IDENTITY = "DELETE FROM {images} WHERE identity = %s"
REMOVE_UNTIL = "DELETE FROM {images} WHERE time <= %s"
SEARCH = """
SELECT id, path, identity, camera, time, distance FROM (
    SELECT id, path, identity, camera, time, embedding {operator} %(query)b AS distance
    FROM {images} WHERE {condition} ORDER BY {order} LIMIT %(top)s
) AS nearest
ORDER BY distance, id
"""
COUNT_UP_TO = "SELECT count(*) FROM (SELECT FROM {images} WHERE {condition} LIMIT %(most)s) AS passing"
EXACT_ORDER = "embedding {operator} %(query)b, id"
INDEX_ORDER = "embedding::{kind}({width}) {operator} %(query)b::{kind}({width})"
IDENTIFIED = """
SELECT identity, embedding FROM {images} WHERE id IN (
    SELECT id FROM {images} WHERE identity IS NOT NULL ORDER BY md5(id::text) LIMIT %s
) ORDER BY id
"""
COUNTS = """
SELECT count(*), count(DISTINCT identity), count(DISTINCT camera), min(time), max(time),
pg_total_relation_size(%s::regclass), current_setting('server_version') FROM {images}
"""


def condition(filters: Filters) -> tuple[sql.Composed, dict[str, Any]]:
    """What stands behind WHERE, and its values."""
    conditions = [sql.SQL("true")]
    if filters.cameras:
        conditions.append(sql.SQL("camera = ANY(%(cameras)s)"))
    if filters.not_cameras:
        conditions.append(sql.SQL("(camera IS NULL OR camera <> ALL(%(not_cameras)s))"))
    if filters.since is not None:
        conditions.append(sql.SQL("time >= %(since)s"))
    if filters.until is not None:
        conditions.append(sql.SQL("time <= %(until)s"))
    values = {**filters._asdict(), "cameras": list(filters.cameras), "not_cameras": list(filters.not_cameras)}
    return sql.SQL(" AND ").join(conditions), values
