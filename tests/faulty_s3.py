"""An S3 API on loopback (moto) and, before it, a proxy that does to a share of the requests what networks and stores do."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import boto3
from moto.server import ThreadedMotoServer

from guidelens.config import S3Options

BUCKET = "shop"
_UNAVAILABLE = b'<?xml version="1.0"?><Error><Code>ServiceUnavailable</Code><Message>try again</Message></Error>'
_CONFLICT = b'<?xml version="1.0"?><Error><Code>ConditionalRequestConflict</Code><Message>try again</Message></Error>'


@contextmanager
def s3_api() -> Iterator[S3Options]:
    """With the bucket `shop`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = S3Options(endpoint_url=f"http://{host}:{port}", region="us-east-1", access_key="test", secret_key="test")
    client = client_of(options)
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield options
    server.stop()


def client_of(options: S3Options) -> Any:
    return boto3.client("s3", endpoint_url=options.endpoint_url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


class Faults:
    """What happens to requests. `share` of them meet one of `kinds`; `seen` counts what they met; `script` comes first, a fault a request."""

    kinds: ClassVar[tuple[str, ...]] = ("unavailable", "lost_answer", "silence", "cut_short", "conflict")

    def __init__(self, seed: int = 0, share: float = 0.0, silence_s: float = 0.7) -> None:
        self.share, self.silence_s = share, silence_s
        self.seen: Counter[str] = Counter()
        self.puts: list[dict[str, str]] = []
        self.script: list[str | None] = []
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def drawn(self, method: str, conditional: bool) -> str | None:
        with self._lock:
            by_chance = self._rng.choices(self.kinds, [10, 5, 1, 5, 5])[0] if self._rng.random() < self.share else None
            kind = self.script.pop(0) if self.script else by_chance
            if (kind == "cut_short" and method != "GET") or (kind == "conflict" and not conditional):
                kind = "unavailable"
            if kind:
                self.seen[kind] += 1
            return kind


@contextmanager
def faulty(options: S3Options, faults: Faults) -> Iterator[S3Options]:
    """The same store, seen through a proxy with faults."""
    assert options.endpoint_url is not None
    upstream = options.endpoint_url.removeprefix("http://")

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT":
                faults.puts.append({name.lower(): value for name, value in self.headers.items()})
            fault = faults.drawn(self.command, "If-None-Match" in self.headers)
            if fault == "unavailable":
                return self._answer(503, {}, _UNAVAILABLE)
            if fault == "conflict":
                return self._answer(409, {}, _CONFLICT)
            if fault == "silence":
                time.sleep(faults.silence_s)
                self.close_connection = True
                return None
            connection = http.client.HTTPConnection(upstream)
            connection.request(self.command, self.path, body, dict(self.headers))
            got = connection.getresponse()
            data, headers = got.read(), dict(got.getheaders())
            connection.close()
            if fault == "lost_answer":
                self.close_connection = True
                return None
            if fault == "cut_short" and len(data) > 1:
                self.close_connection = True
                return self._answer(got.status, headers, data[: len(data) // 2], length=len(data))
            return self._answer(got.status, headers, data)

        def _answer(self, status: int, headers: dict[str, str], data: bytes, length: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            given = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length or given))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - a client that gave up is part of the game
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield options.model_copy(update={"endpoint_url": f"http://127.0.0.1:{server.server_address[1]}", "timeout_s": 0.4})
    server.shutdown()
    server.server_close()
    thread.join()
