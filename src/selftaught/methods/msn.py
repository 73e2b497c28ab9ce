"""MSN and PMSN: a view with most of its places dropped is to be sorted into prototypes as another, whole view is.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat & Ballas 2022, "Masked Siamese Networks for
Label-Efficient Learning", eq. 1 and 2 (MSN); Assran et al. 2022, "The Hidden Uniform Cluster Prior in Self-Supervised
Learning" (PMSN: ``prior=power``, for data in which some kinds are much more frequent than others).

Where we depart, and why: 256 prototypes (the paper: 1,024), four small views (10), three tenths of the places dropped
(up to 0.7 for large models), a teacher that follows at 0.99 at first (0.996). PMSN's divergence is taken of the prior
from the mean prediction, as lightly has it.

Costs: one view through the teacher; the student sees one view in part and ``small`` small ones. The encoder must be
able to drop tokens.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import Prototypes, each_view, projection
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import log_shares
from selftaught.ops.mask import scattered
from selftaught.ops.tokens import keep
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MSN(Method):
    """``forward`` gives z (B, A, out_dim) and scores (B, A, K) of the anchors, the view in part and the small ones, and
    target (B, K), the teacher's of the whole view.
    """

    family = "self-distillation"
    couples = True  # the mean prediction is the batch's

    def __init__(
        self,
        *,
        prototypes: Annotated[int, "in [2, inf)", "directions that samples are sorted into"] = 256,
        temperature: Annotated[float, "in (0, inf)", "softness of the student"] = 0.1,
        teacher_temperature: Annotated[float, "in (0, inf)", "softness of the teacher; lower = sharper"] = 0.025,
        regularisation: Annotated[float, "in [0, inf)", "weight of prototypes being used as the prior says"] = 1.0,
        prior: Annotated[str, "one of uniform, power", "how often prototypes should be used; power = PMSN"] = "uniform",
        exponent: Annotated[float, "in (0, inf)", "of the power law: the k-th is used k^-exponent as often"] = 0.25,
        balance: Annotated[bool, "", "Sinkhorn on the teacher's predictions"] = False,
        dropped: Annotated[float, "in (0, 1)", "share of the places that are dropped from the large anchor"] = 0.3,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layers"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions of the prototypes"] = 256,
        small: Annotated[int, "in [0, 64]", "small anchors besides the large one"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.3,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.teacher_temperature = prototypes, temperature, teacher_temperature
        self.regularisation, self.prior, self.exponent, self.balance = regularisation, prior, exponent, balance
        self.dropped, self.momentum, self.hidden, self.out_dim = dropped, momentum, hidden, out_dim
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        plan = multi_crop(small=self.small, smallest=self.smallest, colour=self.colour)
        return Needs(plan=plan, tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        self.head = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=3)
        self.prototypes = Prototypes(self.out_dim, self.count)
        self.teacher = Teacher({"encoder": encoders["encoder"], "head": self.head})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, large = encoders["encoder"], batch[VIEWS].data  # (B, 2, C, *space): whole, in part
        tokens = encoder.embed(large[:, 1])
        cells = tokens.values.shape[1]
        noise = clock.noise("dropped", batch.p, (cells,)).to(large.device)
        count = torch.full((len(noise),), min(cells - 1, round(self.dropped * cells)), device=large.device)
        seen, _ = encoder.context(keep(tokens, scattered(noise, count)))
        z = [self.head(encoder.pool(seen))[:, None]]
        if self.small:
            z.append(each_view(batch[SMALL].data, encoder, self.head))
        anchors = torch.cat(z, dim=1)
        with torch.no_grad():
            whole = self.teacher["head"](self.teacher["encoder"](large[:, 0]).pooled)
            target = self.prototypes(whole)
        return {"z": anchors, "scores": self.prototypes(anchors), "target": target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores = outputs["scores"]  # (b, A, K)
        target = self._target(outputs["target"].detach())
        log_share = log_shares(scores, temperature=self.temperature)
        rows = -(target[:, None] * log_share).sum(-1)
        terms: Terms = {"prediction": (rows.sum(), rows.numel())}
        if self.regularisation:
            mean = gather(log_share).exp().mean((0, 1))
            terms["prior"] = (self.regularisation * divergence(mean, self._prior(mean)), 1)
        return terms

    def _target(self, scores: Tensor) -> Tensor:
        """(b, K) sharpened shares; balanced over the global batch where asked for."""
        if not self.balance:
            return log_shares(scores, temperature=self.teacher_temperature).exp()
        codes = sinkhorn(gather(scores), epsilon=self.teacher_temperature)
        return codes[rank() * len(scores) :][: len(scores)]

    def _prior(self, like: Tensor) -> Tensor | None:
        """(K,) shares of the prior; None = uniform."""
        if self.prior == "uniform":
            return None
        law = torch.arange(1, self.count + 1, device=like.device, dtype=like.dtype) ** -self.exponent
        return law / law.sum()

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"prototypes.": {"weight_decay": 0.0}}


def divergence(mean: Float[Tensor, " K"], prior: Float[Tensor, " K"] | None) -> Float[Tensor, ""]:
    """How far the mean prediction is from the prior, in [0, inf).

    Uniform (None): log K minus the entropy of the mean (MSN, eq. 2); else the Kullback-Leibler divergence of the prior
    from the mean.
    """
    safe = mean.clamp(min=torch.finfo(mean.dtype).tiny)
    if prior is None:
        return math.log(len(mean)) + (mean * safe.log()).sum()
    return (prior * (prior.log() - safe.log())).sum()
