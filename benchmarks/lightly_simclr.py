"""lightly's side of the comparisons: the SimCLR loop of its README, as a user would run it.

Run by ``vs_lightly.py`` and ``equal_time.py`` with a Python that has lightly (``pip install lightly``); it imports
nothing of ours. Prints one JSON line: images per second after the warm-up, seconds, steps. ``--bf16`` is the one
change made by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time

import torch
import torchvision
from lightly import loss, transforms  # type: ignore[import-not-found]  # only in the peer's environment
from lightly.data import LightlyDataset  # type: ignore[import-not-found]
from lightly.models.modules import heads  # type: ignore[import-not-found]


class SimCLR(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = torch.nn.Identity()  # type: ignore[assignment]
        self.projection_head = heads.SimCLRProjectionHead(input_dim=512, hidden_dim=512, output_dim=128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection_head(self.backbone(x).flatten(start_dim=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="0 = as many as --seconds allow")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--warm-up", type=int, default=3, help="steps that the images per second leave out")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", default="", help="where the backbone's weights go")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    model = SimCLR()
    dataset = LightlyDataset(options.folder, transform=transforms.SimCLRTransform(input_size=options.size))
    loader = torch.utils.data.DataLoader(
        dataset, options.batch_size, shuffle=True, drop_last=True, num_workers=options.workers
    )
    criterion = loss.NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    precision = torch.autocast("cpu", torch.bfloat16) if options.bf16 else contextlib.nullcontext()

    begin, step, warm = time.perf_counter(), 0, 0.0
    done = False
    while not done:
        for (view0, view1), _, _ in loader:
            with precision:
                z0, z1 = model(view0), model(view1)
            value = criterion(z0.float(), z1.float())
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            seconds = time.perf_counter() - begin
            if step == options.warm_up:
                warm = seconds
            done = step == options.steps or seconds > options.seconds
            if done:
                break
    speed = (step - options.warm_up) * options.batch_size / max(1e-9, seconds - warm)
    if options.save:
        torch.save(model.backbone.state_dict(), options.save)
    print(json.dumps({"images_per_second": speed, "seconds": seconds, "steps": step, "loss": value.item()}))


if __name__ == "__main__":
    main()
