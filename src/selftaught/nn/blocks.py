"""Ways to use a module that are not its own: frozen, while it learns elsewhere in the same step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call


def frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """``module`` as it is now, as a function whose gradient reaches its input but not its weights.

    So an adversary and the encoder that it judges learn in one backward pass: the adversary's loss sees detached
    samples, the encoder's sees the adversary through this.
    """
    weights = {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}
    return lambda x: functional_call(module, weights, (x,))
