"""Kafka brokers for tests: librdkafka's own mock cluster, which speaks the protocol over loopback, also to other processes."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Producer

PARTITIONS = 4
"""Of each topic; the mock makes topics as they are asked for."""


class Brokers:
    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 2, "linger.ms": 1})
        found = self._producer.list_topics(timeout=20)
        self.cluster = found.cluster_id
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in found.brokers.values())

    def send(self, topic: str, records: Sequence[dict[str, Any] | bytes | None]) -> str:
        """Sends to the partitions in turn, and waits until the brokers have it; the topic's URI."""
        self._producer.list_topics(topic, timeout=20)
        for number, record in enumerate(records):
            value = json.dumps(record).encode() if isinstance(record, dict) else record
            self._producer.produce(topic, value=value, partition=number % PARTITIONS)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0
        return f"kafka://{self.address}/{topic}"


@contextmanager
def brokers() -> Iterator[Brokers]:
    """The cluster ends with its last reference."""
    yield Brokers()
