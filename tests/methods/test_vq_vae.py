"""VQ-VAE: its equations, the vocabulary, where gradients go, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.vq_vae import VQVAE
from selftaught.nn.codebook import Codebook
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import discs, outputs_on, task_on, train


def test_loss_is_equation_3() -> None:
    """Painting and commitment; the vocabulary follows by its moving average and takes no gradient."""
    outputs = {
        "place": drawn(2, 4, 3), "named": drawn(2, 4, 3, seed=1), "back": drawn(2, 1, 4, 4, seed=2),
        "target": drawn(2, 1, 4, 4, seed=3),
    }  # fmt: skip
    painting = (outputs["back"] - outputs["target"]).square().mean()
    apart = (outputs["place"] - outputs["named"]).square().mean()
    assert float(total(VQVAE(commitment=0.4), outputs)) == pytest.approx(float(painting + 0.4 * apart))
    gradients_are_right(lambda x: total(VQVAE(), {**outputs, "place": x}), 2, 4, 3)


def test_the_nearest_word() -> None:
    codebook, places = Codebook(7, 3).double(), drawn(2, 5, 3)
    far = torch.cdist(places.flatten(0, 1), codebook.words)
    assert torch.equal(codebook.nearest(places).flatten(), far.argmin(1))
    assert torch.equal(codebook(torch.tensor([[2]]))[0, 0], codebook.words[2])


def test_words_follow_what_they_name() -> None:
    """Appendix A.1, by hand: both moving averages, and their ratio."""
    codebook, places = Codebook(3, 2).double(), drawn(2, 4, 2)
    word = torch.tensor([[0, 1, 1, 2], [2, 0, 0, 1]])
    used, sums = codebook.used.clone(), codebook.sums.clone()
    codebook.follow(places, word, decay=0.9)
    for k in range(3):
        named = places.flatten(0, 1)[word.flatten() == k]
        used[k] = 0.9 * used[k] + 0.1 * len(named)
        sums[k] = 0.9 * sums[k] + 0.1 * named.sum(0)
    torch.testing.assert_close(codebook.used, used)
    torch.testing.assert_close(codebook.words, sums / used[:, None])


def test_words_without_use_begin_anew() -> None:
    codebook, places = Codebook(4, 2), 5 + drawn(2, 8, 2).float()
    codebook.words[3] = codebook.sums[3] = 100.0
    for _ in range(60):
        codebook.follow(places, codebook.nearest(places), decay=0.9)
    assert (codebook.words - 5).abs().max() < 6  # all are among the places now
    assert len(codebook.nearest(places).unique()) >= 3


def test_the_gradient_goes_straight_through() -> None:
    """What the decoder asks of a word reaches the encoder's place unchanged."""
    task = task_on(VQVAE(width=8, words=8, code_dim=4, commitment=0.0), discs(8))
    from selftaught.train.loop import Share
    from tests.pretexts import CLOCK, batches_of

    (batch,) = batches_of(task.method, 8, discs(8))
    outputs = task(Share(batch, CLOCK))
    total(task.method, outputs).backward()  # type: ignore[arg-type]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoders.parameters() if p.requires_grad)
    torch.testing.assert_close(outputs["named"], task.method.codebook(outputs["word"]))  # type: ignore[operator, union-attr]


def test_it_learns_with_many_words() -> None:
    samples, method = discs(32), VQVAE(width=32, words=16, code_dim=8)
    task = task_on(method, samples)
    train(task, samples, steps=200)
    outputs = outputs_on(task, samples)
    off = (outputs["back"] - outputs["target"]).square().mean() / outputs["target"].square().mean()
    assert off < 0.6 and len(outputs["word"].unique()) >= 8
