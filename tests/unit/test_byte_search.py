"""The search that proves forgetting finds a name wherever it is planted."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard
from byte_search import found_in

NAME, KEY = "s-张三-17", "0123456789abcdef" * 4


def _freed_page(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("CREATE TABLE t (entity_key BLOB, value TEXT)")
    connection.execute("INSERT INTO t VALUES (?, ?)", (NAME.encode(), "x" * 9000))
    connection.commit()
    connection.execute("DELETE FROM t")
    connection.commit()
    connection.close()


def _cell(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE params (value TEXT)")
    connection.execute("INSERT INTO params VALUES (?)", (f"shopper={NAME}",))
    connection.commit()
    connection.close()


PLANTS: dict[str, Callable[[Path], object]] = {
    "lake/events.parquet": lambda path: pl.DataFrame({"raw": [f"a {NAME} b".encode()] * 50}).write_parquet(path, compression="zstd"),
    "lake/nested.parquet": lambda path: pl.DataFrame({"rows": [[{"who": NAME}]]}).write_parquet(path, compression="zstd"),
    "lake/_staging/run/parts/0": lambda path: path.write_bytes(b"\0" + NAME.encode() + b"\0"),
    "inbox/1.open.jsonl": lambda path: path.write_text(json.dumps({"note": NAME})),
    "feast/online.db": _freed_page,
    "mlflow.db": _cell,
    "mlartifacts/report.html": lambda path: path.write_text(f"<p>{NAME}</p>"),
    "releases/3/manifest.json": lambda path: path.write_text(json.dumps(NAME)),
    "work/log.gz": lambda path: path.write_bytes(gzip.compress(NAME.encode() * 9)),
    "work/log.zst": lambda path: path.write_bytes(zstandard.ZstdCompressor().compress(NAME.encode() * 99)),
    f"work/{NAME}.txt": lambda path: path.write_text("nothing"),
    "work/names.npy": lambda path: np.save(path, np.array([NAME])),
    "work/examples.npz": lambda path: path.write_bytes(bytes.fromhex(KEY)),
}


@pytest.mark.parametrize("place", PLANTS)
def test_a_name_is_found_wherever_it_is_planted(tmp_path: Path, place: str) -> None:
    (tmp_path / "innocent.txt").write_text("s-张三-1 and others")
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    PLANTS[place](path)
    assert set(found_in(tmp_path, [NAME, KEY])) == {place}
