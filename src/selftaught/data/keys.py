"""Random numbers that depend on names and positions alone, never on who asks first.

Every random decision about data is keyed: by the seed, the name of a stream ("train", "health", …) and a position.
Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so a key *is* a
generator, and setting the key of an existing one costs 2.5 us where making one costs 21.

A shuffle is a keyed permutation: a Feistel network over the smallest power of two that holds n, walked until it lands
below n (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, "cycle-walking"). It needs no memory,
so 10^9 samples cost nothing to shuffle and position p is found without the positions before it.
"""

from __future__ import annotations

import hashlib

import numpy as np

from selftaught.errors import ConfigError, must_be

ROUNDS = 8
SMALL = 10_000  # below this a table is cheaper than eight rounds, and perfectly uniform

_MIX_A = np.uint64(0xBF58476D1CE4E5B9)  # the multipliers of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)
_MIX_B = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, stream: str) -> int:
    """64 bits that stand for a seed (in [0, 2**64)) and a named stream. Raises ``ConfigError`` for another seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ConfigError(must_be("seed", "selftaught", "an int in [0, 2**64)", seed), hint="Use --seed 0.")
    digest = hashlib.blake2b(stream.encode(), key=int(seed).to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def generator(seed: int, stream: str, p: int) -> np.random.Generator:
    """The generator of position ``p`` in ``stream``: its own for every (seed, stream, p)."""
    return np.random.Generator(np.random.Philox(key=_philox_key(stream_key(seed, stream), p)))


class Keyed:
    """Generators of one stream, cheaply: one Philox that is re-keyed. ``keyed(p)`` is valid until the next call."""

    def __init__(self, seed: int, stream: str) -> None:
        self.key = stream_key(seed, stream)
        self._philox = np.random.Philox(key=_philox_key(self.key, 0))
        self._generator = np.random.Generator(self._philox)
        self._fresh = self._philox.state

    def __call__(self, p: int) -> np.random.Generator:
        self._fresh["state"]["key"] = _philox_key(self.key, p)
        self._philox.state = self._fresh
        return self._generator

    def __reduce__(self):
        return _keyed_from, (self.key,)


class Permutation:
    """A bijection of [0, n) keyed by (seed, stream, part): ``permutation(positions) -> indices``, O(1) memory."""

    def __init__(self, n: int, seed: int, *, stream: str = "order", part: int = 0) -> None:
        if n < 1:
            raise ConfigError(must_be("n", "Permutation", "an int of at least 1", n))
        self.n = n
        philox = np.random.Philox(key=_philox_key(stream_key(seed, stream), part))
        # raw bits, because numpy promises those between its versions and the Generator's methods not
        self._table = np.argsort(philox.random_raw(n), kind="stable") if n < SMALL else None
        bits = max(2, (n - 1).bit_length())
        self._bits = (
            bits // 2,
            bits - bits // 2,
        )  # the domain stays below 2n: at most two walks on average
        self._rounds = philox.random_raw(ROUNDS)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """(B,) positions in [0, n) -> (B,) int64 indices in [0, n)."""
        positions = np.asarray(positions)
        if positions.size and not (0 <= positions.min() and positions.max() < self.n):
            raise IndexError(f"positions must lie in [0, {self.n})")
        if self._table is not None:
            return self._table[positions]
        values = self._feistel(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= self.n)
        while outside.size:  # a cycle that starts below n comes back below n, so this ends
            values[outside] = self._feistel(values[outside])
            outside = outside[values[outside] >= self.n]
        return values.astype(np.int64)

    def _feistel(self, values: np.ndarray) -> np.ndarray:
        """One pass of the network over [0, 2**bits); the halves swap widths each round, and ROUNDS is even."""
        low_bits, high_bits = self._bits
        low, high = values & _mask(low_bits), values >> np.uint64(low_bits)
        for key in self._rounds:
            high ^= _mix(low ^ key) & _mask(high_bits)
            low, high = high, low
            low_bits, high_bits = high_bits, low_bits
        return (high << np.uint64(low_bits)) | low


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_A
    values = (values ^ (values >> np.uint64(27))) * _MIX_B
    return values ^ (values >> np.uint64(31))


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _philox_key(stream: int, p: int) -> np.ndarray:
    # never a Python list of two ints: numpy turns [big, small] into float64 and loses the low bits without a word
    return np.array([stream, p], dtype=np.uint64)


def _keyed_from(key: int) -> Keyed:
    keyed = Keyed(0, "")
    keyed.key = key
    return keyed
