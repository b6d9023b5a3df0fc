"""What the driver hears of a Ray Train run while it waits for it: each epoch, as the run's checkpoints say that it ended."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ray.train.torch import TorchTrainer

Epoch = TypeVar("Epoch")
Read = Callable[[Path], Sequence[Epoch]]
"""The epochs so far, of a checkpoint's folder; raises OSError or ValueError where they are not there yet."""
PROGRESS = "progress.json"
POLL_S = 0.5


class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray has no types
    """Leaves SIGINT to its caller: Ray Train's own handler would end the process as if it had succeeded, and stay for its rest."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


@contextmanager
def following(checkpoints: Path, read: Read[Epoch], tell: Callable[[Epoch], None]) -> Iterator[None]:
    """Tells each epoch that the body's checkpoints add to those found at its start; all of them once the body is through."""
    ended = threading.Event()

    def listen(num_told: int) -> None:
        while True:
            is_last = ended.wait(timeout=POLL_S)
            history = _newest(checkpoints, read)
            for epoch in history[num_told:]:
                tell(epoch)
            num_told = max(num_told, len(history))
            if is_last:
                return

    listener = threading.Thread(target=listen, args=(len(_newest(checkpoints, read)),), name="epochs", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


def _newest(checkpoints: Path, read: Read[Epoch]) -> Sequence[Epoch]:
    """The longest history of the checkpoints that are there; one that is being written or taken away is passed over."""
    found: Sequence[Epoch] = ()
    for path in checkpoints.glob(f"checkpoint*/{PROGRESS}"):
        with suppress(OSError, ValueError):
            found = max(found, read(path.parent), key=len)
    return found
