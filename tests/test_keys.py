"""Keyed random numbers: the same for everyone who asks, whatever was asked before."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from selftaught.data.keys import SMALL, Keyed, Permutation, generator, stream_key
from selftaught.errors import ConfigError


def test_known_seeds_give_known_numbers():
    """Pinned: a change here changes every run that somebody wants to reproduce."""
    assert stream_key(0, "train") == 0x8D89D34CFF5A9911
    assert generator(0, "train", 0).bit_generator.random_raw(2).tolist() == [2752234858711044531, 6206838850944655456]
    assert Permutation(10, 0)(np.arange(10)).tolist() == [5, 8, 1, 9, 0, 6, 3, 7, 2, 4]
    assert Permutation(10**9, 7)(np.arange(4)).tolist() == [332621034, 148224345, 991698061, 865857265]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, SMALL - 1, SMALL, SMALL + 1, 2**14, 2**14 + 1, 50_021])
def test_permutation_is_a_bijection(n):
    assert np.array_equal(np.sort(Permutation(n, 3)(np.arange(n))), np.arange(n))


def test_permutation_of_a_billion_stays_inside_and_does_not_collide():
    permutation = Permutation(10**9, 1)
    positions = np.random.default_rng(0).choice(10**9, 20_000, replace=False)
    indices = permutation(positions)
    assert indices.min() >= 0 and indices.max() < 10**9 and len(np.unique(indices)) == 20_000


@pytest.mark.parametrize("n", [500, 20_000])
def test_permutation_does_not_depend_on_how_it_is_asked(n):
    permutation, positions = Permutation(n, 5), np.arange(n)
    at_once = permutation(positions)
    assert np.array_equal(at_once[::-1], permutation(positions[::-1]))
    assert [int(permutation(np.array([p]))[0]) for p in range(0, 400, 37)] == at_once[:400:37].tolist()


def test_permutations_differ_by_seed_stream_and_part():
    positions = np.arange(300)
    made = [
        Permutation(300, *key[:1], stream=key[1], part=key[2])
        for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    ]
    assert len({tuple(one(positions)) for one in made}) == 4


def test_permutation_refuses_positions_outside():
    with pytest.raises(IndexError):
        Permutation(10, 0)(np.array([10]))
    with pytest.raises(ConfigError):
        Permutation(0, 0)


@pytest.mark.parametrize("n", [4_000, 30_000])
def test_shuffle_looks_random(n):
    """Displacements are uniform, neighbours do not stay neighbours, fixed points are about one."""
    order = Permutation(n, 11)(np.arange(n)).astype(float)
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(n)
    assert (np.abs(np.diff(order)) == 1).sum() < 15  # expected 2
    assert (order == np.arange(n)).sum() < 8  # expected 1
    counts = np.histogram(order[: n // 4], bins=20, range=(0, n))[0]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 60  # chi-squared, 19 degrees of freedom: p ~ 4e-6


def test_rekeying_equals_a_new_generator():
    keyed = Keyed(9, "train")
    for p in (0, 1, 2**40, 5, 0):
        keyed(p).random(3)  # leaves it in the middle of its buffer
        keyed(p).integers(0, 7, dtype=np.uint32)  # and half a word behind
        expected = generator(9, "train", p)
        drawn = keyed(p)
        assert np.array_equal(drawn.random(5), expected.random(5))
        assert np.array_equal(drawn.integers(0, 255, 5, dtype=np.uint8), expected.integers(0, 255, 5, dtype=np.uint8))
        assert drawn.standard_normal() == expected.standard_normal()


def test_keyed_survives_pickling():
    keyed = Keyed(9, "train")
    assert pickle.loads(pickle.dumps(keyed))(4).random() == keyed(4).random()


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_no_bit_of_seed_or_position_is_lost(seed):
    """``Philox(key=[2**63 + 1, 5])`` equals ``Philox(key=[2**63, 5])``: the list becomes float64 on its way."""
    near = seed - 1 if seed else 1
    assert generator(seed, "a", 5).random() != generator(near, "a", 5).random()
    assert generator(seed, "a", 2**60).random() != generator(seed, "a", 2**60 + 1).random()
    assert generator(seed, "a", 5).random() != generator(seed, "b", 5).random()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "3", True, None])
def test_seed_is_checked(seed):
    with pytest.raises(ConfigError, match="'seed' parameter .* must be an int in"):
        generator(seed, "a", 0)


def test_neighbouring_keys_are_not_correlated():
    keyed = Keyed(0, "train")
    table = np.stack([keyed(p).random(50).copy() for p in range(2_000)])  # (position, draw)
    n = len(table)
    between = np.corrcoef(table[:-1, 0], table[1:, 0])[0, 1]
    lagged = [np.corrcoef(table[:-1, a], table[1:, b])[0, 1] for a in range(5) for b in range(5)]
    assert abs(between) < 4 / np.sqrt(n) and np.abs(lagged).max() < 5 / np.sqrt(n)
    assert abs(table.mean() - 0.5) < 4 * np.sqrt(1 / 12 / table.size)
    assert abs(table.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / n)
