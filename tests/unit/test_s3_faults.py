"""The store over S3 when the network and the store misbehave: the same bytes in the end, or an error that says so."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from event_logs import ingest, troubled, write_log
from faulty_s3 import BUCKET, Faults, client_of, faulty, s3_api

from guidelens import storage
from guidelens.config import S3Options
from guidelens.data.lake.digest import table_digest
from guidelens.data.lake.lake import Lake
from guidelens.errors import AlreadyExistsError, CommitConflictError, ConfigError, NotFoundError, StorageError
from guidelens.schemas.tables import Table
from guidelens.storage import S3Store
from pipelines import entry

SHARE = 0.3
SEEDS = range(10 if os.environ.get("GUIDELENS_DRILL") else 1)


@pytest.fixture(scope="module")
def api() -> Iterator[S3Options]:
    with s3_api() as options:
        yield options


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(storage, "_LONGEST_PAUSE_S", 0.02)


@pytest.mark.drill
@pytest.mark.parametrize("seed", SEEDS)
def test_a_third_of_requests_failing_changes_no_byte(tmp_path: Path, api: S3Options, seed: int) -> None:
    paths = [write_log(tmp_path / f"{name}.jsonl", troubled(random.Random(f"{seed}{name}"), 40, 40)) for name in "ab"]
    calm, faults = Lake(f"s3://{BUCKET}/calm{seed}", api), Faults(seed, SHARE)
    ingest(calm, paths[:1])
    ingest(calm, paths)
    with faulty(api, faults) as options:
        lake = Lake(f"s3://{BUCKET}/rough{seed}", options)
        ingest(lake, paths[:1])
        done = ingest(lake, paths)
    assert {"unavailable", "lost_answer", "cut_short"} <= set(faults.seen)
    assert done.manifest.snapshot_sha256 == calm.manifest().snapshot_sha256 and done.manifest.report == calm.manifest().report
    assert Lake(lake.uri, api).manifest() == done.manifest
    assert table_digest(Lake(lake.uri, api), Table.EVENTS) == table_digest(calm, Table.EVENTS)


@pytest.mark.parametrize("fault", ["lost_answer", "conflict", "unavailable", "silence"])
def test_an_exclusive_write_whose_answer_is_lost_is_known_as_ones_own(api: S3Options, fault: str) -> None:
    faults = Faults()
    with faulty(api, faults) as options:
        store = S3Store(f"s3://{BUCKET}/own-{fault}", options)
        faults.script = [fault]
        store.create_exclusive("one", b"mine")
        with pytest.raises(AlreadyExistsError):
            store.create_exclusive("one", b"of somebody else")
        faults.script = [fault, fault]
        with pytest.raises(AlreadyExistsError):
            store.create_exclusive("one", b"of somebody else")
    assert faults.seen[fault] == 3
    assert S3Store(f"s3://{BUCKET}/own-{fault}", api).read_bytes("one") == b"mine"


def test_a_commit_whose_answer_is_lost_is_one_commit_and_a_rivals_is_a_conflict(tmp_path: Path, api: S3Options) -> None:
    faults = Faults()
    with faulty(api, faults) as options:
        mine, rival = Lake(f"s3://{BUCKET}/race", options), Lake(f"s3://{BUCKET}/race", api)
        ingest(rival, [write_log(tmp_path / "a.jsonl", troubled(random.Random(0), 10, 10))])
        base = rival.manifest()
        faults.script = ["lost_answer"]
        done = mine.commit(base, base.files[:-1], {})
        assert (faults.seen["lost_answer"], rival.manifest()) == (1, done)
        with pytest.raises(CommitConflictError):
            mine.commit(base, base.files[:-1], {})  # the very same change by another writer is another writer's all the same


def test_a_body_cut_short_is_read_again(api: S3Options) -> None:
    S3Store(f"s3://{BUCKET}/cut", api).write_bytes("one", b"0123456789")
    faults = Faults()
    with faulty(api, faults) as options:
        store = S3Store(f"s3://{BUCKET}/cut", options)
        faults.script = ["cut_short", "cut_short"]
        assert store.read_bytes("one") == b"0123456789"
        faults.script = ["cut_short"]
        assert store.read_range("one", 2, 6) == b"2345"
    assert faults.seen["cut_short"] == 3


def test_an_object_of_another_size_than_the_manifest_says_is_an_error(api: S3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_ATTEMPTS", 2)
    store = S3Store(f"s3://{BUCKET}/size", api)
    store.write_bytes("one", b"012345")
    with pytest.raises(StorageError, match="got 6"):
        store.read_bytes("one", size_bytes=9)
    with pytest.raises(NotFoundError):
        store.read_bytes("two")


def test_a_store_that_never_answers_is_given_up(api: S3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_ATTEMPTS", 3)
    faults = Faults(share=1.0)
    faults.script = ["unavailable"] * 3
    with faulty(api, faults) as options, pytest.raises(StorageError, match="ServiceUnavailable"):
        S3Store(f"s3://{BUCKET}/never", options).read_bytes("one")
    assert faults.seen["unavailable"] == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (None, None)),
        ({"sse": "AES256"}, ("AES256", None)),
        ({"sse": "aws:kms"}, ("aws:kms", None)),
        ({"sse": "aws:kms", "sse_kms_key_id": "alias/shop"}, ("aws:kms", "alias/shop")),
    ],
)
def test_every_write_of_an_ingest_asks_for_the_encryption_set(
    tmp_path: Path, api: S3Options, given: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    faults = Faults()
    with faulty(api.model_copy(update=given), faults) as options:
        lake = Lake(f"s3://{BUCKET}/sse-{len(str(given))}", options)
        ingest(lake, [write_log(tmp_path / "a.jsonl", troubled(random.Random(1), 40, 40))])
    asked = {(put.get("x-amz-server-side-encryption"), put.get("x-amz-server-side-encryption-aws-kms-key-id")) for put in faults.puts}
    assert len(faults.puts) > 8 and asked == {expected}
    if expected[0] == "AES256":
        key = next(iter(Lake(lake.uri, api).manifest().keys))
        assert client_of(api).head_object(Bucket=BUCKET, Key=f"{lake.uri.split('/')[-1]}/{key}")["ServerSideEncryption"] == "AES256"


def test_encryption_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDELENS_S3_SSE", "aws:kms")
    monkeypatch.setenv("GUIDELENS_S3_KMS_KEY_ID", "alias/shop")
    found = entry.s3_options()
    assert (found.sse, found.sse_kms_key_id) == ("aws:kms", "alias/shop")


@pytest.mark.parametrize(("sse", "key"), [("AES256", "alias/shop"), ("none", "")])
def test_an_encryption_that_s3_does_not_have_is_a_callers_mistake(monkeypatch: pytest.MonkeyPatch, sse: str, key: str) -> None:
    monkeypatch.setenv("GUIDELENS_S3_SSE", sse)
    monkeypatch.setenv("GUIDELENS_S3_KMS_KEY_ID", key)
    with pytest.raises(ConfigError, match="GUIDELENS_S3_SSE"):
        entry.s3_options()
