"""BEiT: places are hidden, and the word that a teacher has for each is to be told.

Bao, Dong, Piao & Wei 2022, "BEiT: BERT Pre-Training of Image Transformers", eq. 6: the cross-entropy of the words of
hidden places. The words are those of a teacher run of ``vq_vae`` on the same data (the paper: DALL-E's tokenizer), or
of any other teacher, whose places are sorted into a vocabulary as the training goes (after Peng et al. 2022, BEiT v2).

Where we depart, and why: half of the places hidden, in patches made from smoothed noise (the paper: 40 % in blocks);
where teacher and student have grids of unlike size, each place of the student gets the word of the nearest of the
teacher's.

Costs: one view, whole, through encoder and teacher. The encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import EncoderError, must_be
from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.codebook import Codebook
from selftaught.ops.losses import at_least_single
from selftaught.ops.mask import hidden_cells
from selftaught.ops.tokens import to_map
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class BEiT(Method):
    """``forward`` gives scores (B, N, K) of the words, word (B, N), the teacher's, and hidden (B, N); and, where the
    vocabulary is made here, place (B, M, D) and place_word (B, M), the teacher's places.
    """

    family = "masked prediction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        words: Annotated[int, "in [2, inf)", "of the vocabulary, where the teacher has none of its own"] = 256,
        masked: Annotated[float, "in (0, 1)", "share of the places that are hidden"] = 0.5,
        mask: Annotated[str, "one of random, patches, grid", "which: anywhere, in patches, evenly"] = "patches",
        decay: Annotated[float, "in [0, 1)", "how slowly words follow what they name, if made here"] = 0.97,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.words, self.masked, self.mask, self.decay, self.smallest = words, masked, mask, decay, smallest

    def needs(self) -> Needs:
        plan = one_view(smallest=self.smallest)
        return Needs(plan=plan, encoders=("encoder", "teacher"), tokens=True, hides="replace")

    def build(self, encoders: Encoders) -> None:
        encoder, teacher = encoders["encoder"], encoders["teacher"]
        encoder.learn_mask()
        own = getattr(teacher, "vocabulary", 0)
        if not own and not getattr(teacher, "gives_tokens", False):
            raise EncoderError(
                must_be("teacher", "BEiT", "a run of vq_vae, or a model that gives tokens", "one vector")
            )
        self.codebook = None if own else Codebook(self.words, teacher.token_dim)
        self.head = nn.Linear(encoder.token_dim, own or self.words)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        grid = encoder.grid(view.shape[1:])[1]
        word, more = self.named(encoders["teacher"], view, grid)
        noise = clock.noise("mask", batch.p, (word.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, grid)
        tokens, _ = encoder.context(encoder.embed(view), hidden=hidden)
        return {"scores": self.head(tokens.values), "word": word, "hidden": hidden, **more}

    @torch.no_grad()
    def named(self, teacher: Any, view: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Outputs]:
        """(B, N) the word of each of the student's places, and what the vocabulary follows."""
        if self.codebook is None:
            word, theirs = teacher.words(view)
            more: Outputs = {}
        else:
            found = teacher(view)
            word, theirs = self.codebook.nearest(found.tokens), found.grid
            more = {"place": found.tokens, "place_word": word}
        if tuple(theirs) == tuple(grid):
            return word, more
        maps = F.interpolate(to_map(word[..., None].double(), theirs), tuple(grid), mode="nearest-exact")
        return maps.flatten(1).long(), more

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean cross-entropy over a sample's hidden places, in [0, inf)."""
        scores, hidden = at_least_single(outputs["scores"]), outputs["hidden"]
        rows = F.cross_entropy(scores.transpose(1, 2), outputs["word"], reduction="none")
        return (rows * hidden).sum(1) / hidden.sum(1)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"words": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        if self.codebook is not None:
            self.codebook.follow(outputs["place"], outputs["place_word"], decay=self.decay, first=clock.step == 0)
