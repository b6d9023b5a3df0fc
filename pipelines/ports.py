"""A port for a server that is about to start on this machine."""

import random
import socket
from contextlib import suppress

from guidelens.errors import ConfigError

RANGE = (20_000, 30_000)
_TRIES = 200


def free_port() -> int:
    """A loopback port that nobody listens on now.

    From RANGE: above the ports that Ray gives its workers (10002-19999) and below those that the kernel gives to outgoing
    connections, one of which would otherwise take it before the server does.

    Raises:
        ConfigError: none is free.
    """
    choose = random.SystemRandom()
    for _ in range(_TRIES):
        port = choose.randrange(*RANGE)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigError(f"no port of {RANGE[0]}-{RANGE[1] - 1} is free on this machine; name one with --port")
