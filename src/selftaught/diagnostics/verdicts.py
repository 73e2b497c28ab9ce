"""From figures to sentences: what the signs of collapse and divergence are, and what to do about them.

``judge`` is a pure function of what was seen so far, so that each rule can be tested with figures alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding. ``level``: "ok", "warning" (look at it) or "alarm" (this run is not learning)."""

    step: int
    level: str
    name: str  # stable: "healthy", "collapsing", "not learning", "diverging", …
    sentence: str
