"""A connection to a PostgreSQL database that has pgvector; what goes wrong there is one sentence."""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from pgvector.psycopg import register_vector
from psycopg import conninfo, errors, sql
from typing_extensions import LiteralString

from tf_reid.config import ConfigError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,47}")  # of a gallery: PostgreSQL cuts names of tables at 63 letters
# What an address may set otherwise. Without an encoding, a database in SQL_ASCII would answer with bytes.
DEFAULTS = {"connect_timeout": 10, "application_name": "tf_reid", "client_encoding": "UTF8"}
LOCK_SECONDS = 60  # for other processes that read a table that is to be rewritten
# What PostgreSQL says of a connection that it refuses -> what to do.
REFUSALS = {
    "password authentication failed": "put the right password into PGPASSWORD or ~/.pgpass",
    "no password supplied": "put the password into PGPASSWORD or ~/.pgpass",
    "does not exist": "create it, or name another in the address",
}

GONE = ("08", "57P")  # how the codes of errors begin by which a server takes its leave

Cursor = psycopg.Cursor[Any]


class Database:
    """Connect to postgresql://USER@HOST:PORT/DATABASE?gallery=NAME, whose other parameters are those of libpq.

    A connection that broke is made anew at the next use. Threads take turns.

    Attributes:
        place: the address without its password.
        gallery: the gallery's name.

    Raises:
        ConfigError: the address has another form, or the server refuses it or cannot be reached. So ends every method,
          too, where the server refuses something or goes away.
    """

    def __init__(self, address: str):
        self.place, self.gallery, self._parameters = _parse(address)
        self._lock, self._is_closed = threading.RLock(), False
        self._connection: psycopg.Connection | None = None
        self._connected()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()

    @contextlib.contextmanager
    def transaction(self, snapshot: bool = False) -> Iterator[Cursor]:
        """What happens inside happens as a whole or not at all; `snapshot`: reads see one state of the database."""
        with self._lock, self._in_sentences():
            connection = self._connected()
            with connection.transaction(), connection.cursor(binary=True) as cursor:
                if snapshot:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield cursor

    def answers(self, statement: sql.Composed, values: list[dict[str, Any]]) -> list[list[Any]]:
        """The rows of a statement for each of these values; only inside of `transaction`."""
        connection = self._connected()
        with connection.pipeline():  # the network is waited for once
            cursors = [connection.cursor(binary=True).execute(statement, value) for value in values]
            return [cursor.fetchall() for cursor in cursors]

    def rewrite(self, table: sql.Identifier, memory: str) -> None:
        """Write a table and its indexes anew without what was removed.

        Args:
            memory: how much its indexes may take meanwhile, such as "64MB".
        """
        with self._lock, self._in_sentences():
            connection = self._connected()
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS}s"])
            connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [memory])
            remain = f"The images are removed, but their data are still in the files of {self.place}"
            try:
                with _warnings(connection) as warnings:
                    connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(table))
            except errors.LockNotAvailable:
                raise ConfigError(
                    f"{remain}: another process reads them. End it, and run the same command again."
                ) from None
            finally:
                if not connection.broken:
                    connection.execute("RESET lock_timeout")
                    connection.execute("RESET maintenance_work_mem")
            if warnings:  # of a table that is another user's, and is passed over
                raise ConfigError(f"{remain}: {warnings[0]}. Let the gallery's owner run the same command.")

    def learn_vectors(self) -> None:
        """Let values of pgvector's types be NumPy arrays; pgvector must be there."""
        with self._lock, self._in_sentences():
            register_vector(self._connected())

    def statement(self, text: LiteralString, **parts: sql.Composable) -> sql.Composed:
        """A statement in which {images} and {about} are the gallery's tables."""
        return sql.SQL(text).format(images=self.table(), about=self.table("_about"), **parts)

    def table(self, ending: str = "") -> sql.Identifier:
        """One of the gallery's tables, or of their indexes."""
        return sql.Identifier(self.gallery + ending)

    def exists(self, cursor: Cursor, ending: str = "") -> bool:
        """Whether the gallery has this table or index."""
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [self.table(ending).as_string()])
        return one(cursor)

    def _connected(self):
        if self._is_closed:
            raise psycopg.InterfaceError(f"{self.place} is closed.")
        if self._connection is None or self._connection.closed:
            try:
                # Statements are not prepared, since a plan would be kept whatever the filters leave.
                self._connection = psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=None)
            except psycopg.OperationalError as error:
                raise self._unreachable(error) from None
            except psycopg.ProgrammingError as error:  # a parameter's value
                raise _no_address(self.place, error) from None
            if psycopg.types.TypeInfo.fetch(self._connection, "vector") is not None:
                register_vector(self._connection)
        return self._connection

    def _unreachable(self, error):
        reason = _one_line(str(error).splitlines()[0]).removeprefix("connection failed: ")
        for part, mend in REFUSALS.items():
            if part in reason:
                return ConfigError(f"PostgreSQL refuses {self.place}: {reason}; {mend}.")
        return ConfigError(f"PostgreSQL does not answer for {self.place}: {reason}.")

    @contextlib.contextmanager
    def _in_sentences(self):
        """Inside, what the server refuses becomes a ConfigError; mistakes in the program stay what they are."""
        try:
            yield
        except psycopg.Error as error:
            connection = self._connection
            if connection is not None and (connection.broken or (error.sqlstate or "").startswith(GONE)):
                connection.close()
                raise ConfigError(
                    f"PostgreSQL went away from {self.place}: {_one_line(str(error))}. What was stored stays; run the "
                    "same command again."
                ) from None
            if error.sqlstate is None:
                if isinstance(error, psycopg.DataError):  # such as a path that holds a zero byte
                    raise ValueError(f"{error}.") from None
                raise
            reason = error.diag.message_primary or str(error)
            raise ConfigError(f"PostgreSQL refuses this for {self.place}: {_one_line(reason)}.") from None


@contextlib.contextmanager
def _warnings(connection: psycopg.Connection) -> Iterator[list[str]]:
    """The server's warnings inside."""
    warnings: list[str] = []

    def keep(notice: errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(_one_line(notice.message_primary or ""))

    connection.add_notice_handler(keep)
    try:
        yield warnings
    finally:
        connection.remove_notice_handler(keep)


def one(cursor: Cursor) -> Any:
    """The one value that a statement answers with."""
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def without_password(address: str) -> str:
    """The address as it may be printed."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    values = [(key, value) for key, value in parse_qsl(parts.query) if "password" not in key]
    query = urlencode(values, safe="/:", quote_via=quote)
    return parts._replace(netloc=user.partition(":")[0] + at + host, query=query).geturl()


def _parse(address):
    """The address without its password, the gallery's name, and what psycopg.connect takes."""
    before_host = address.partition("://")[2].rpartition("@")[0]
    if ":" in before_host and set("@/?#") & set(before_host):  # it would be printed as a host, or as what follows one
        raise ConfigError(
            "In an address of PostgreSQL, @ / ? # of a user's name or password must be written as %40 %2F %3F %23; or "
            "put the password into PGPASSWORD or ~/.pgpass."
        )
    place, parts = without_password(address), urlsplit(address)
    values = dict(parse_qsl(parts.query))
    name = values.pop("gallery", "")
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{place} must be postgresql://USER@HOST:PORT/DATABASE?gallery=NAME, where NAME has up to 48 letters, "
            "digits, _ and -."
        )
    try:
        parameters = conninfo.conninfo_to_dict(parts._replace(query=urlencode(values, quote_via=quote)).geturl())
    except psycopg.ProgrammingError as error:
        raise _no_address(place, error) from None
    return place, name, {**DEFAULTS, **parameters}


def _no_address(place, error):
    return ConfigError(f"{place} is no address of a database: {_one_line(str(error))}.")


def _one_line(text):
    return " ".join(text.split()).rstrip(".")
