"""The review queue: what is kept of unknown frames, for how long, and who can read it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from guidelens.config import ReviewConfig
from guidelens.data.review import KEY_FILE, Guess, ReviewEntry, ReviewQueue
from guidelens.errors import NotFoundError, StorageError
from guidelens.schemas.guide import Consent, GuideRequest
from guidelens.schemas.tables import IMAGE_DIM
from pipelines import review
from serve.messages import RecognizeReply
from serve.requests import Asked
from serve.review import UnknownFrames

RANDOM = np.random.default_rng(7)
NOW = datetime.now(UTC)
FRAME = b"\xff\xd8 a frame of a shopper's kitchen"


def embedding() -> np.ndarray:
    return (RANDOM.gamma(0.3, 1.0, IMAGE_DIM) ** 2).astype(np.float32)


def kept(queue: ReviewQueue, frame: bytes | None = None, days: float = 30, now: datetime | None = None) -> ReviewEntry:
    return queue.add(
        embedding(), release="1", image_encoder="e", guesses=(Guess(product_id="p", confidence=0.4),), margin=-1.0, keep_days=days, frame=frame, now=now
    )


def queue_in(folder: Path) -> ReviewQueue:
    return ReviewQueue(folder / "review", folder / "keys")


def test_a_frame_is_kept_encrypted_and_opens_only_with_the_homes_key(tmp_path: Path) -> None:
    queue = queue_in(tmp_path)
    entry = kept(queue, FRAME)
    assert queue.frame(entry.entry_id) == FRAME
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"kitchen" in path.read_bytes() for path in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    (tmp_path / "keys" / KEY_FILE).write_bytes(bytes(32))
    with pytest.raises(StorageError, match="cannot be opened"):
        queue.frame(entry.entry_id)


def test_a_frame_moved_to_another_entry_does_not_open(tmp_path: Path) -> None:
    queue = queue_in(tmp_path)
    one, other = kept(queue, FRAME), kept(queue, b"another")
    (tmp_path / "review" / f"{one.entry_id}.frame").replace(tmp_path / "review" / f"{other.entry_id}.frame")
    with pytest.raises(StorageError, match="cannot be opened"):
        queue.frame(other.entry_id)


def test_entries_and_their_frames_are_gone_once_they_expire_labelled_or_not(tmp_path: Path) -> None:
    queue = queue_in(tmp_path)
    short, long = kept(queue, FRAME, days=1, now=NOW), kept(queue, days=30, now=NOW)
    queue.label(short.entry_id, "p")
    assert [entry.entry_id for entry in queue.entries(NOW + timedelta(hours=23))] == sorted([short.entry_id, long.entry_id])
    assert [entry.entry_id for entry in queue.entries(NOW + timedelta(days=1))] == [long.entry_id]
    assert not list((tmp_path / "review").glob(f"{short.entry_id}*"))


def test_without_consent_there_is_no_frame_to_show(tmp_path: Path) -> None:
    queue = queue_in(tmp_path)
    entry = kept(queue)
    with pytest.raises(NotFoundError, match="did not agree"):
        queue.frame(entry.entry_id)
    assert not (tmp_path / "keys").exists()
    assert np.array_equal(queue.entry(entry.entry_id).embedding.shape, (IMAGE_DIM,))


def unknown(tmp_path: Path, max_entries: int = 10) -> tuple[UnknownFrames, ReviewQueue]:
    from serve_desk import PRODUCTS, write_items

    from serve.catalogue import Catalogue

    write_items(tmp_path / "bundle", PRODUCTS)
    queue = queue_in(tmp_path)
    return UnknownFrames(queue, ReviewConfig(max_entries=max_entries), Catalogue(tmp_path / "bundle", "7"), "encoder-1"), queue


def asked(frame_retention: bool = False, personalization: bool = True) -> Asked:
    return Asked(GuideRequest(session_id="s", consent=Consent(frame_retention=frame_retention, personalization=personalization)), FRAME, None)


def seen(of: np.ndarray, in_catalogue: bool = False) -> RecognizeReply:
    return RecognizeReply(of, in_catalogue, np.array([2, 0], np.int32), np.array([0.4, 0.2], np.float32), margin=-0.7)


def test_one_frame_of_a_view_is_kept_by_what_its_shopper_agreed_to(tmp_path: Path) -> None:
    frames, queue = unknown(tmp_path)
    of = [embedding() for _ in range(4)]
    frames.take(asked(frame_retention=True), seen(of[0]))
    frames.take(asked(frame_retention=True), seen(of[0] * 1.1))
    frames.take(asked(), seen(of[1]))
    frames.take(asked(frame_retention=True, personalization=False), seen(of[2]))
    frames.take(asked(), seen(of[3], in_catalogue=True))
    frames._thread.shutdown(wait=True)
    entries = queue.entries()
    assert sorted(entry.has_frame for entry in entries) == [False, True]
    assert [guess.product_id for guess in entries[0].guesses] == ["p/2 é", "p-0"]
    assert (entries[0].release, entries[0].image_encoder) == ("7", "encoder-1")
    assert not any(value == "s" for entry in entries for value in entry.model_dump().values()), "nothing says who sent it"


def test_a_full_queue_takes_nothing_more(tmp_path: Path) -> None:
    frames, queue = unknown(tmp_path, max_entries=2)
    for _ in range(4):
        frames.take(asked(), seen(embedding()))
    frames._thread.shutdown(wait=True)
    assert len(queue.entries()) == 2


def test_people_list_show_and_drop(tmp_path: Path) -> None:
    queue = queue_in(tmp_path)
    entry, home = kept(queue, FRAME), ["--home", str(tmp_path)]
    run = CliRunner().invoke
    listed = json.loads(run(review.command, ["list", *home]).stdout.splitlines()[-1])["entries"]
    assert [each["entry_id"] for each in listed] == [entry.entry_id]
    assert run(review.command, ["show", entry.entry_id, "--out", str(tmp_path / "f.jpg"), *home]).exit_code == 0
    assert (tmp_path / "f.jpg").read_bytes() == FRAME
    refused = run(review.command, ["label", entry.entry_id, "nobody", *home])
    assert "must name a product" in str(refused.exception)
    assert run(review.command, ["drop", entry.entry_id, *home]).exit_code == 0
    assert queue.entries() == []
    assert "does not exist" in str(run(review.command, ["drop", entry.entry_id, *home]).exception)
