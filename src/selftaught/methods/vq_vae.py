"""VQ-VAE: every place of a sample is named by a word of a small vocabulary, and the sample is to come back from words.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning", eq. 3 (the gradient goes straight
through the choice of a word), with the vocabulary as a moving average of what it names (appendix A.1).

Where we depart, and why: words that are hardly used begin anew at places of the batch (Jukebox, Dhariwal et al. 2020,
section 3.1), without which few words do all the work; the first words are places of the first batch; 256 words (512).

Costs: one view, and a light decoder. Its words serve masked methods as targets: ``--method beit --teacher RUN``. The
encoder must give tokens.
"""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.codebook import Codebook
from selftaught.nn.decoder import MapDecoder
from selftaught.ops.losses import squared_error
from selftaught.ops.tokens import to_map
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class VQVAE(Method):
    """``forward`` gives place (B, N, code_dim), what the encoder says of each place; word (B, N), its number; named
    (B, N, code_dim), the word itself; back and target (B, C, *space).
    """

    family = "generative"
    small_batches = True

    def __init__(
        self,
        *,
        words: Annotated[int, "in [2, inf)", "of the vocabulary"] = 256,
        code_dim: Annotated[int, "in [1, inf)", "dimensions in which places and words are compared"] = 32,
        commitment: Annotated[float, "in [0, inf)", "weight of places being near to their word; beta"] = 0.25,
        decay: Annotated[float, "in [0, 1)", "how slowly words follow what they name"] = 0.97,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.words, self.code_dim, self.commitment, self.decay = words, code_dim, commitment, decay
        self.width, self.smallest = width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.enter = nn.Linear(encoder.token_dim, self.code_dim)
        self.codebook = Codebook(self.words, self.code_dim)
        self.decoder = MapDecoder(self.code_dim, encoder.shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        found = encoders["encoder"](view)
        place = self.enter(found.tokens)
        word = self.codebook.nearest(place)
        named = self.codebook(word).to(place)
        through = place + (named - place).detach()
        back = self.decoder(to_map(through, found.grid))
        return {"place": place, "word": word, "named": named, "back": back, "target": view, **known(batch)}

    def word_of(self, encoder: Any, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """(B, C, *space) -> (B, N) words and their grid: what makes a run of this method a tokenizer."""
        found = encoder(x)
        return self.codebook.nearest(self.enter(found.tokens)), found.grid

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error."""
        return squared_error(outputs["back"], outputs["target"], outputs.get("observed"))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        painting = self.energy(outputs, clock)
        apart = squared_error(outputs["place"], outputs["named"].detach())
        count = len(painting)
        return {"painting": (painting.sum(), count), "commitment": (self.commitment * apart.sum(), count)}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.codebook.follow(outputs["place"], outputs["word"], decay=self.decay, first=clock.step == 0)

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        outputs = self(encoders, batch, clock)
        return {"input": outputs["target"], "back": outputs["back"]}
