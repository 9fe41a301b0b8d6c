"""Order and chance by content: the same for the same keys, on every machine."""

import hashlib


def hash_fraction(key: str, seed: int = 0) -> float:
    """Return a number in [0, 1) that depends on key and seed alone, evenly distributed."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
