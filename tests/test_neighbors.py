"""Nearest neighbours: against a plain loop over the paper's equation, in chunks, with few labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from selftaught.downstream import neighbors
from selftaught.downstream.neighbors import knn_predict, search


def features(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def test_votes_are_those_of_the_equation():
    """Wu et al. 2018, section 3.4: w_c = sum over the k nearest of class c of exp(cos / T)."""
    train, test, target = features(40, 0), features(9, 1), np.arange(40) % 3
    votes = knn_predict(train, target, test, classes=3, k=7, temperature=0.2)
    for row, x in zip(votes, test, strict=True):
        cosine = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        nearest = np.argsort(-cosine)[:7]
        expected = np.array([np.exp(cosine[nearest][target[nearest] == k] / 0.2).sum() for k in range(3)])
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    bank, queries = features(50, 0), features(33, 1)
    whole = search(bank, queries, k=5)
    monkeypatch.setattr(neighbors, "CHUNK", 50 * 4)
    parts = search(bank, queries, k=5)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-6)


def test_search_finds_what_scikit_learn_finds():
    bank, queries = features(60, 0), features(10, 1)
    index, similarity = search(bank, queries, k=4)
    distance, expected = NearestNeighbors(n_neighbors=4, metric="cosine").fit(bank).kneighbors(queries)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)


@pytest.mark.parametrize("chunk", [2**24, 90])
def test_a_sample_is_not_its_own_neighbour(monkeypatch, chunk):
    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    bank = features(30, 0)
    index, _ = search(bank, bank, k=29, exclude_self=True)
    assert not (index == np.arange(30)[:, None]).any()


def test_fewer_labels_than_neighbours_all_vote_and_cold_temperatures_stay_finite():
    train, test = features(3, 0), features(5, 1)
    votes = knn_predict(train, np.array([0, 1, 2]), test, classes=4, k=20, temperature=1e-4)
    np.testing.assert_allclose(votes.sum(axis=1), 1.0)
    assert (votes[:, 3] == 0).all()
    assert np.isfinite(votes).all()


def test_raw_digits_reach_the_known_floor(shared_data):
    """mnist10k: raw-input 1-nearest-neighbour accuracy is .935 on its split (Euclidean); by cosine it is close."""
    archive = shared_data / "mnist10k" / "mnist10k.npz"
    if not archive.is_file():
        pytest.skip("needs mnist10k among the real data")
    with np.load(archive, allow_pickle=False) as data:
        train, test = (data[name].reshape(len(data[name]), -1) for name in ("train_images", "test_images"))
        target, true = data["train_labels"].astype(np.int64), data["test_labels"].astype(np.int64)
    votes = knn_predict(train.astype(np.float32), target, test.astype(np.float32), classes=10, k=1)
    assert (votes.argmax(axis=1) == true).mean() > 0.935
