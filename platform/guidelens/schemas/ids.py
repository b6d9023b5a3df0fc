"""Stable ids: 64-bit hashes of strings and names for sub-seeds. Never `hash()`, which differs from process to process."""

import hashlib


def stable_hash(text: str) -> int:
    """blake2b-64 of UTF-8 text as a signed 64-bit integer; never 0, which stands for "missing"."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def sub_seed(seed: int, name: str) -> int:
    """A seed of its own for one named use, in [0, 2**63)."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
