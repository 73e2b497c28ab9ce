"""How unlike the usual samples others are, by their vectors alone. Higher = less like them, for every score here.

``usual`` are vectors (N, D) of what is usual, ``asked`` (M, D) those that are asked about. Where these are the same
samples (``same``), none counts as its own neighbour; the few outliers among them then are part of what is "usual",
which all three scores bear as long as they are few.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from selftaught.downstream.neighbors import search

TREES = 300


def knn(
    usual: Float[np.ndarray, "N D"], asked: Float[np.ndarray, "M D"], *, k: int = 5, same: bool = False
) -> Float[np.ndarray, " M"]:
    """One less the mean cosine similarity with the ``k`` nearest, in [0, 2].

    After Sun, Ming, Zhu & Li 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", section 3, who take the
    distance of unit vectors to the k-th alone.
    """
    _, similarity = search(usual, asked, k=k, exclude_self=same)
    return 1 - similarity.astype(np.float64).mean(axis=1)


def mahalanobis(usual: Float[np.ndarray, "N D"], asked: Float[np.ndarray, "M D"]) -> Float[np.ndarray, " M"]:
    """Squared distance from the mean in units of the spread, in [0, inf).

    The covariance is shrunk as far as its own error asks for (Ledoit & Wolf 2004), so that fewer samples than
    dimensions do.
    """
    from sklearn.covariance import LedoitWolf

    return LedoitWolf().fit(np.asarray(usual, np.float64)).mahalanobis(np.asarray(asked, np.float64))


def forest(
    usual: Float[np.ndarray, "N D"], asked: Float[np.ndarray, "M D"], *, seed: int = 0
) -> Float[np.ndarray, " M"]:
    """How few random cuts set a sample apart, in (0, 1] (Liu, Ting & Zhou 2008, "Isolation Forest", eq. 2)."""
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(n_estimators=TREES, random_state=seed).fit(usual).score_samples(asked)
