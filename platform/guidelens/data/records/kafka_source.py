"""Kafka topics as a source of events: which offsets of which partitions to read, and the messages of a range of offsets.

A run reads what the topics held when it began. The lake's manifest says where to go on (`Manifest.offsets`), so data and position
become live by one write; consumer groups take no part in that. Why not Ray Data's reader: docs/adr/0080.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import SecretStr

from guidelens.config import KafkaOptions
from guidelens.data.records.raw_records import as_record
from guidelens.data.records.reading import Block, Messages
from guidelens.data.records.sources import Chunk
from guidelens.errors import ConfigError, InputError, StorageError
from guidelens.schemas.base import Frozen

log = logging.getLogger(__name__)
Begin = Literal["earliest", "latest"]
_TIMEOUT_S = 20.0
_SILENCE_S = 60.0
_MESSAGES_PER_CHUNK = 100_000
_MESSAGES_AT_ONCE = 10_000
_BYTES_PER_MESSAGE = 512
_READER = "guidelens"


class PartitionRange(Frozen):
    """Offsets [start, stop) of a partition: what one run reads. lost: how many before `start` were gone before they were read."""

    uri: str
    topic: str
    number: int
    start: int
    stop: int
    lost: int = 0


class KafkaPlan(NamedTuple):
    options: KafkaOptions
    partitions: tuple[PartitionRange, ...]

    @property
    def offsets(self) -> dict[str, int]:
        """Where to go on after this plan."""
        return {part.uri: part.stop for part in self.partitions}

    @property
    def size_bytes(self) -> int:
        """A guess."""
        return _BYTES_PER_MESSAGE * sum(part.stop - part.start for part in self.partitions)

    def chunks(self, first_source: int) -> list[Chunk]:
        """Ranges that tasks read apart; the partitions are the sources from `first_source` on."""
        return [
            Chunk(
                source=first_source + place,
                uri=part.uri,
                format="kafka",
                compression=None,
                start=start,
                stop=min(start + _MESSAGES_PER_CHUNK, part.stop),
                kafka=self.options,
            )
            for place, part in enumerate(self.partitions)
            for start in range(part.start, part.stop, _MESSAGES_PER_CHUNK)
        ]


def is_kafka(uri: str) -> bool:
    return uri.startswith("kafka://")


def plan_kafka(uri: str, settings: Mapping[str, SecretStr], known: Mapping[str, int], begin: Begin = "earliest", skip_lost: bool = False) -> KafkaPlan:
    """What there is to read of `kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]` now, by the partitions' order.

    Args:
        known: by partition, the offset to go on from.
        begin: where to begin in topics of which nothing is known. A new partition of a known topic is read from its beginning.
        skip_lost: go on at the earliest offset there is where the one to go on from is gone.

    Raises:
        InputError: the URI has another form, there is no such topic, or the offset to go on from is gone.
        StorageError: the brokers did not answer.
    """
    options, topics = _parsed(uri, settings)
    with _consumer(options) as consumer:
        found = []
        for topic in topics:
            cluster, numbers = _partitions(consumer, topic, uri)
            root = f"kafka://{cluster}/{topic}/"
            topic_begin = "earliest" if any(name.startswith(root) for name in known) else begin
            for number in numbers:
                low, high = _ends(consumer, topic, number)
                at = known.get(f"{root}{number}", low if topic_begin == "earliest" else high)
                found.append(_range(PartitionRange(uri=f"{root}{number}", topic=topic, number=number, start=at, stop=high), low, skip_lost))
    return KafkaPlan(options, tuple(found))


def _range(asked: PartitionRange, low: int, skip_lost: bool) -> PartitionRange:
    if low <= asked.start <= asked.stop:
        return asked
    lost = max(low - asked.start, 0)
    if not skip_lost:
        raise InputError(
            f"{asked.uri} must still have offset {asked.start}, the next to be read, got {low} to {asked.stop}: its retention deleted {lost} messages "
            "unread, or the topic was made anew; go on with --skip-lost, which reads from the first one there is"
        )
    log.warning("%s: offset %d is gone, going on at %d; %d messages were never read", asked.uri, asked.start, low, lost)
    return asked.model_copy(update={"start": low, "lost": lost})


def waiting(plan: KafkaPlan) -> int:
    """Messages behind the plan's end by now."""
    with _consumer(plan.options) as consumer:
        return sum(max(_ends(consumer, part.topic, part.number)[1] - part.stop, 0) for part in plan.partitions)


def show_progress(plan: KafkaPlan) -> None:
    """Tells the consumer group named by the settings, where one is, how far the lake is: for monitors that look at groups. Nothing reads it."""
    if "group.id" not in plan.options.settings:
        return
    with _consumer(plan.options) as consumer:
        consumer.commit(offsets=[TopicPartition(part.topic, part.number, part.stop) for part in plan.partitions], asynchronous=False)


def read_messages(chunk: Chunk) -> Iterator[Block]:
    """The messages of the chunk's offsets. Offsets without one (of a compacted topic, of transactions) are passed over.

    Raises:
        StorageError: the brokers did not answer, or no longer have these offsets.
    """
    assert chunk.kafka is not None
    topic, number = urlsplit(chunk.uri).path.lstrip("/").rsplit("/", 1)
    with _consumer(chunk.kafka) as consumer:
        consumer.assign([TopicPartition(topic, int(number), chunk.start)])
        at, silent_s = chunk.start, 0.0
        while at < chunk.stop:
            got = consumer.consume(min(chunk.stop - at, _MESSAGES_AT_ONCE), timeout=1.0)
            silent_s = 0.0 if got else silent_s + 1.0
            if silent_s > _SILENCE_S:
                raise StorageError(f"{chunk.uri}: the brokers sent nothing for {_SILENCE_S:.0f} s at offset {at} of {chunk.stop}")
            held = [message for message in got if message.error() is None]
            ended = None if len(held) == len(got) else _end_told(got, at, chunk)
            offsets = [message.offset() or 0 for message in held]
            at = max(at, ended or 0, offsets[-1] + 1 if offsets else 0)
            while offsets and offsets[-1] >= chunk.stop:
                offsets.pop()
            if offsets:
                yield from _blocks(offsets, [message.value() or b"" for message in held[: len(offsets)]])


def _end_told(got: Sequence[Message], at: int, chunk: Chunk) -> int:
    """The partition's end, which is told as a message of its own, whenever it is come to."""
    end = at
    for message in got:
        error = message.error()
        if error is None:
            continue
        if error.code() != KafkaError._PARTITION_EOF:
            raise StorageError(f"{chunk.uri} could not be read at offset {at}: {error.str()}")
        end = message.offset() or 0
        if end < chunk.stop:
            raise StorageError(f"{chunk.uri} must reach to offset {chunk.stop}, as it said, got its end at {end}; was the topic made anew?")
    return end


def _blocks(offsets: Sequence[int], values: Sequence[bytes]) -> Iterator[Block]:
    """Messages, by offset and value: those of one line at once, the others as records."""
    data = b"\n".join([*values, b""])
    if data.count(b"\n") == len(values):
        yield Messages(np.array(offsets, np.int64), data)
        return
    found = list(zip(offsets, values, strict=True))
    lines = [(offset, value) for offset, value in found if b"\n" not in value]
    if lines:
        yield from _blocks(*zip(*lines, strict=True))
    yield [as_record(offset, value) for offset, value in found if b"\n" in value]


def _parsed(uri: str, settings: Mapping[str, SecretStr]) -> tuple[KafkaOptions, list[str]]:
    parts = urlsplit(uri)
    topics = [topic for topic in parts.path.strip("/").split(",") if topic]
    hosts = parts.netloc.split(",")
    if not topics or "/" in parts.path.strip("/") or "@" in parts.netloc or not all(host.rpartition(":")[2].isdigit() for host in hosts):
        raise InputError(f"a Kafka source must look like kafka://HOST:PORT/TOPIC[,TOPIC], got kafka://{parts.netloc.rpartition('@')[2]}{parts.path}")
    return KafkaOptions(bootstrap=parts.netloc, settings=dict(settings)), list(dict.fromkeys(topics))


@contextmanager
def _consumer(options: KafkaOptions) -> Iterator[Consumer]:
    """A client that never moves a group's offsets by itself, and that fails where an offset is gone instead of choosing another one."""
    given = {name: value.get_secret_value() for name, value in options.settings.items()}
    ours = {
        "bootstrap.servers": options.bootstrap,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
    }
    try:
        consumer = Consumer({"group.id": _READER, "log_level": 2, **given, **ours})
    except KafkaException as error:
        raise ConfigError(f"GUIDELENS_KAFKA_* must be librdkafka's settings: {error.args[0].str()}") from error
    try:
        yield consumer
    except KafkaException as error:
        raise StorageError(f"kafka://{options.bootstrap}: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str, uri: str) -> tuple[str, list[int]]:
    """The cluster's id and the topic's partitions."""
    described = consumer.list_topics(topic, timeout=_TIMEOUT_S)
    found = described.topics[topic]
    if found.error is not None or not found.partitions:
        why = "it has no partitions" if found.error is None else found.error.str()
        if found.error is not None and found.error.code() in (KafkaError.LEADER_NOT_AVAILABLE, KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
            raise StorageError(f"{uri}: topic {topic} could not be described: {why}")
        raise InputError(f"{uri} must name topics that may be read, got {topic}: {why}")
    return described.cluster_id or "cluster", sorted(found.partitions)


def _ends(consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
    """The first offset there is, and the one behind the last that is committed."""
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
    return low, high
