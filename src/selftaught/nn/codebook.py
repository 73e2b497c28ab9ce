"""A small vocabulary of vectors that follow what they name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftaught.nn.batchwise import gather, total

RARE = 0.05  # uses a batch, relative to all words being used alike, below which a word begins anew


class Codebook(nn.Module):
    """K words of D dimensions, the moving average of the places that they were nearest to.

    van den Oord et al. 2017, appendix A.1: N <- d N + (1 - d) n, m <- d m + (1 - d) sum of its places, word = m / N.
    The same on all ranks.
    """

    words: Tensor  # (K, D)
    used: Tensor  # (K,) N: places of a batch that each word names, moving average
    sums: Tensor  # (K, D) m

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("words", torch.randn(count, dim) / dim**0.5)
        self.register_buffer("used", torch.ones(count))
        self.register_buffer("sums", self.words.clone())

    def nearest(self, places: Tensor) -> Tensor:
        """(B, N, D) -> (B, N) the number of the nearest word."""
        x = places.detach().to(self.words)
        far = self.words.square().sum(1) - 2 * x @ self.words.T  # less the place's own length
        return far.argmin(-1)

    def forward(self, word: Tensor) -> Tensor:
        """(B, N) -> (B, N, D)."""
        return self.words[word]

    @torch.no_grad()
    def follow(self, places: Tensor, word: Tensor, *, decay: float, first: bool = False) -> None:
        """One step after the global batch. ``first``: words that are made up of nothing yet begin at its places."""
        x, flat = places.flatten(0, 1).to(self.words), word.flatten()
        count = len(self.words)
        sums = torch.zeros_like(self.words).index_add_(0, flat, x)
        counts = torch.bincount(flat, minlength=count).to(self.words)
        both = total(torch.cat([sums, counts[:, None]], dim=1))
        self.used.lerp_(both[:, -1], 1 - decay)
        self.sums.lerp_(both[:, :-1], 1 - decay)
        rare = self.used < RARE * self.used.sum() / count
        if first or bool(rare.any()):
            self._begin_anew(gather(places.to(self.words)).flatten(0, 1), torch.ones_like(rare) if first else rare)
        self.words.copy_(self.sums / self.used.clamp(min=1e-5)[:, None])

    def _begin_anew(self, everywhere: Tensor, which: Tensor) -> None:
        """The words ``which`` (K,) at places of the global batch, evenly spaced in it, used as often as the average.

        A hundredth of the places' spread beside them: two words at one place would be a tie, which rounding decides.
        """
        count = int(which.sum())
        spaced = torch.linspace(0, len(everywhere) - 1, count, device=everywhere.device).round().long()
        beside = torch.randn(count, everywhere.shape[1], generator=torch.Generator().manual_seed(0)).to(everywhere)
        usual = (self.used.sum() / len(self.words)).clamp(min=1e-3)
        self.used[which] = usual
        self.sums[which] = (everywhere[spaced] + 0.01 * everywhere.std(0, correction=0) * beside) * usual
