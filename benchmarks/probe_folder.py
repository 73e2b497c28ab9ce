"""kNN and linear accuracy of one encoder on class folders: the same code for lightly's weights and our runs.

    python benchmarks/probe_folder.py RUN_OR_BACKBONE.pt TRAIN TEST

A ``.pt`` file is the torchvision ResNet-18 that ``lightly_simclr.py`` saved, fed as lightly feeds it (64 pixels,
ImageNet statistics). Labels of TRAIN and TEST serve the probes alone. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import torchvision

import selftaught as st
from selftaught import encoders
from selftaught.commands.model import Model
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.downstream.neighbors import knn_predict
from selftaught.downstream.probe import linear_probe
from selftaught.modalities.image import Image

IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def lightly_model(path: str) -> Model:
    backbone = torchvision.models.resnet18()
    backbone.fc = torch.nn.Identity()  # type: ignore[assignment]
    backbone.load_state_dict(torch.load(path, weights_only=True))
    modality = Image(size=64)
    modality.load_state({**modality.state(), "size": 64, "channels": 3, **IMAGENET})
    return Model(encoders.wrap(backbone, (3, 64, 64)), modality)


def read(folder: str, model: Model) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Features (N, D), labels as numbers (N,), and the classes."""
    source = open_source(folder, model.modality.extensions)
    index: Index = build_index(source, model.modality)
    labels = read_labels(index, "folders", source)
    return model.embed_index(index), np.asarray(labels.values), tuple(labels.classes)


def main() -> None:
    trained, train, test = sys.argv[1:]
    model = lightly_model(trained) if trained.endswith(".pt") else st.load(trained)
    (x, y, classes), (ask, truth, same) = read(train, model), read(test, model)
    assert classes == same, "train and test have other classes"
    found = {
        "knn": knn_predict(x, y, ask, classes=len(classes)),
        "linear": linear_probe(x, y, ask, classes=len(classes)),
    }
    print(json.dumps({name: round(float((p.argmax(1) == truth).mean()), 4) for name, p in found.items()}))


if __name__ == "__main__":
    main()
