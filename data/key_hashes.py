"""The split of a sample or document by the hash of its key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def share_by_hash(key: str) -> float:
    """Returns a number in [0, 1) that depends only on the key: the first 8 bytes of its SHA-256, divided by 2**64."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8], "big") / 2**64


def chosen_for_val(keys: Iterable[str]) -> str | None:
    """Returns the key that must be moved to `val`: the key with the lowest hash, if `split_by_hash` assigns none of the
    keys to `val`. Returns None if `val` already has a key, or if there are no keys."""
    lowest = None
    for key in keys:
        if split_by_hash(key) == "val":
            return None
        lowest = key if lowest is None else min(lowest, key, key=share_by_hash)
    return lowest


VAL_SHARE = 0.1
"""The share of the samples that are used for validation if there is no separate validation split."""


def split_by_hash(key: str, val_share: float = VAL_SHARE) -> str:
    """Returns `val` for about the share `val_share` of all keys, otherwise `train`. The split of a key does not depend
    on other keys."""
    return "val" if share_by_hash(key) < val_share else "train"
