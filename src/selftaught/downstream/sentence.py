"""The one sentence that says what the pre-training was worth, also where it was worth nothing."""

from __future__ import annotations

AGAINST = {
    "scratch": "training from scratch",
    "random": "the same encoder untrained",
    "raw": "the raw input",
    "public": "public weights",
}
