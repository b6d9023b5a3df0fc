"""Shopper ids never pass unkeyed."""

import json
import multiprocessing
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from guidelens.data.pseudonyms import Pseudonymizer, PseudonymousEvent
from guidelens.errors import StorageError
from guidelens.schemas.events import Event

EVENT = {"event_id": "e", "event_ts": "2026-01-01T00:00:00Z", "shopper_id": "s-1", "session_id": "x", "type": "click", "product_id": "p"}


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first, second = Pseudonymizer.open(tmp_path / "keys"), Pseudonymizer.open(tmp_path / "keys")
    assert first.key("s-1") == second.key("s-1")
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def _open_key(folder: Path, found: "multiprocessing.queues.Queue[str]") -> None:
    found.put(Pseudonymizer.open(folder).key_id)


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found: multiprocessing.queues.Queue[str] = context.Queue()
    workers = [context.Process(target=_open_key, args=(tmp_path / "keys", found)) for _ in range(6)]
    for worker in workers:
        worker.start()
    ids = {found.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(ids) == 1


def test_another_home_gives_other_pseudonyms(tmp_path: Path) -> None:
    assert Pseudonymizer.open(tmp_path / "a").key("s-1") != Pseudonymizer.open(tmp_path / "b").key("s-1")


def test_a_shopper_and_a_cookie_of_the_same_name_are_two_people() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    assert pseudonyms.key("x") != pseudonyms.key("x", anonymous=True)


def test_a_damaged_key_is_refused_rather_than_replaced(tmp_path: Path) -> None:
    (tmp_path / "shopper.key").write_bytes(b"short")
    with pytest.raises(StorageError, match="restore"):
        Pseudonymizer.open(tmp_path)


def test_a_worker_computes_the_same_pseudonyms() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    assert pickle.loads(pickle.dumps(pseudonyms)).key("s-1") == pseudonyms.key("s-1")  # noqa: S301


def test_a_pseudonymous_event_holds_no_id_and_reads_back_equal() -> None:
    made = Pseudonymizer(b"k" * 32).pseudonymize(Event.model_validate(EVENT))
    text = made.model_dump_json(exclude_none=True)
    assert "s-1" not in text
    assert PseudonymousEvent.model_validate_json(text) == made


def test_an_inbox_event_with_a_raw_id_is_refused() -> None:
    made = Pseudonymizer(b"k" * 32).pseudonymize(Event.model_validate(EVENT))
    with pytest.raises(ValidationError, match="must not hold shopper_id"):
        PseudonymousEvent.model_validate(made.model_dump() | {"shopper_id": "s-1"})


@pytest.mark.parametrize(
    "raw",
    [
        b'{"shopper_id": "secret-17", "type": "nonsense"}',
        b'{"shopper_id":"secret-17","event_id"',
        b'{"shopper_id" : "secret-17',
        b'{"a": 1, "anonymous_id": "secret-17"} trailing',
    ],
)
def test_ids_are_scrubbed_from_originals_even_where_they_do_not_parse(raw: bytes) -> None:
    scrubbed = Pseudonymizer(b"k" * 32).scrub(raw)
    assert b"secret" not in scrubbed
    assert Pseudonymizer(b"k" * 32).key("secret-17", anonymous=b"anonymous" in raw).encode() in scrubbed


@pytest.mark.parametrize("shopper_id", ["张三", 'a"b\\c', "null", "two words"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_scrubbed_id_is_the_pseudonym_of_what_its_json_means(shopper_id: str, ascii_only: bool) -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    scrubbed = json.loads(pseudonyms.scrub(json.dumps({"shopper_id": shopper_id}, ensure_ascii=ascii_only).encode()))
    assert scrubbed == {"shopper_id": "hmac:" + pseudonyms.key(shopper_id)}


def test_scrubbing_leaves_the_rest_of_the_original_as_it_was() -> None:
    raw = {"type": "nonsense", "shopper_id": None, "anonymous_id": 1.5, "note": 'wörds \\ and "quotes"'}
    scrubbed = json.loads(Pseudonymizer(b"k" * 32).scrub(json.dumps(raw).encode()))
    assert scrubbed["anonymous_id"].startswith("unusable:")  # a float is no id
    assert {**scrubbed, "anonymous_id": 1.5} == raw


@pytest.mark.parametrize("name", ["shopperId", "Shopper-ID", "SHOPPER_ID", "shopper\\u005fid", "\\u0073hopper_id", "uid"])
def test_ids_are_scrubbed_under_any_spelling_of_their_field(name: str) -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    scrubbed = pseudonyms.scrub(f'{{"broken": "no end, "{name}": "secret-17", "x": 1}}'.encode(), {"uid": "shopper_id"})
    assert scrubbed == f'{{"broken": "no end, "{name}": "hmac:{pseudonyms.key("secret-17")}", "x": 1}}'.encode()


@pytest.mark.parametrize("value", ['"' + "x" * 129 + '"', '""', '"tab\\there"', "1.5", "true"])
def test_what_is_no_id_is_scrubbed_to_what_is_none_either(value: str) -> None:
    scrubbed = json.loads(Pseudonymizer(b"k" * 32).scrub(f'{{"shopper_id": {value}}}'.encode()))["shopper_id"]
    assert scrubbed.startswith("unusable:") and Pseudonymizer(b"k" * 32).key_in(scrubbed) is None


def test_an_id_that_is_a_whole_number_is_the_text_of_its_digits() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    assert pseudonyms.scrub(b'{"shopper_id": 17}') == pseudonyms.scrub(b'{"shopper_id": "17"}')


def test_a_scrubbed_id_gives_its_key_back() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    scrubbed = json.loads(pseudonyms.scrub(b'{"anonymous_id": "cookie"}'))["anonymous_id"]
    assert pseudonyms.key_in(scrubbed) == pseudonyms.key("cookie", anonymous=True)
    assert pseudonyms.key_in("cookie") is None
