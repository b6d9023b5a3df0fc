"""What `doctor` looks at in a home: its folder, the lake, MLflow's database, the online store. None is made by looking."""

import importlib.util
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from guidelens.config import FeatureConfig, Home
from guidelens.errors import GuideLensError
from pipelines.doctor_machine import Finding

MIN_DISK_GB = 5.0


def _existing(path: Path) -> Path:
    """The path itself or its nearest parent that is there."""
    while not path.exists():
        path = path.parent
    return path


def home_folder(home: Home) -> Finding:
    there = _existing(home.root)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding("home", "problem", f"{home.root} cannot be written ({there} is no writable folder)", "choose another --home, or set GUIDELENS_HOME")
    return Finding("home", "ok", str(home.root) if home.root.exists() else f"{home.root} (made on first use)")


def disk(home: Home) -> Finding:
    free = shutil.disk_usage(_existing(home.root)).free / 1e9
    if free < MIN_DISK_GB:
        return Finding("disk", "problem", f"{free:.1f} GB free; the loop needs {MIN_DISK_GB:.0f}", "free some, or put --home on another disk")
    return Finding("disk", "ok", f"{free:.0f} GB free")


def lake(home: Home, uri: str) -> Finding:
    from guidelens.data.lake.lake import Lake

    try:
        manifest = Lake(uri, home.s3).manifest()
    except (GuideLensError, OSError) as error:
        return Finding("lake", "problem", f"{uri}: {error}", "mend the address, or AWS_ENDPOINT_URL and the credentials of an s3:// lake")
    if not manifest.version:
        return Finding("lake", "ok", f"{uri}: empty (`guidelens ingest` fills it)")
    return Finding("lake", "ok", f"{uri}: version {manifest.version}, {sum(file.rows for file in manifest.files)} rows")


def tracking(home: Home) -> Finding:
    path = home.root / "mlflow.db"
    if not path.exists():
        return Finding("mlflow", "ok", f"{path}: none yet (training makes it)")
    try:
        found = _one(path, "select version_num from alembic_version")
    except sqlite3.Error as error:
        return Finding("mlflow", "problem", f"{path}: {error}", "restore the file from a backup, or move it away")
    wanted = mlflow_schema()
    if found != wanted:
        return Finding(
            "mlflow", "problem", f"{path}: schema {found}, this MLflow writes {wanted}", f"`mlflow db upgrade {home.mlflow_tracking_uri}` after a backup"
        )
    return Finding("mlflow", "ok", f"{path}: schema {found}, {_one(path, 'select count(*) from runs')} runs")


def mlflow_schema() -> str:
    """The newest schema revision among the installed MLflow's migrations, read without importing it."""
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None and spec.submodule_search_locations
    texts = [path.read_text() for path in (Path(spec.submodule_search_locations[0]) / "store/db_migrations/versions").glob("*.py")]
    made = {match[1] for text in texts if (match := re.search(r"^revision\s*=\s*[\"'](\w+)", text, re.MULTILINE))}
    built_on = {match[1] for text in texts if (match := re.search(r"^down_revision\s*=\s*[\"'](\w+)", text, re.MULTILINE))}
    return ", ".join(sorted(made - built_on))


def _one(path: Path, query: str) -> object:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchone()[0]


def online_store(home: Home, features: FeatureConfig) -> Finding:
    if features.online_store == "redis":
        return _redis(features.redis_connection or "")
    files = sorted(home.feast.glob("*online*.db")) if home.feast.is_dir() else []
    if not files:
        return Finding("online store", "ok", f"{home.feast}: none yet (`guidelens materialize` makes it)")
    try:
        tables = _one(files[0], "select count(*) from sqlite_master where type = 'table'")
    except sqlite3.Error as error:
        return Finding("online store", "problem", f"{files[0]}: {error}", "remove the file and run `guidelens materialize`")
    return Finding("online store", "ok", f"{files[0]}: {tables} tables")


def _redis(connection: str) -> Finding:
    import redis

    address, *_options = connection.split(",")
    host, _, port = address.partition(":")
    try:
        with closing(redis.Redis(host, int(port or 6379), socket_connect_timeout=2, socket_timeout=2)) as client:
            client.ping()
    except redis.AuthenticationError:
        return Finding("online store", "ok", f"Redis answers at {address} and asks for a password")
    except (redis.RedisError, ValueError) as error:
        return Finding("online store", "problem", f"Redis at {address}: {error}", "start it, or mend features.redis_connection (HOST:PORT)")
    return Finding("online store", "ok", f"Redis answers at {address}")
