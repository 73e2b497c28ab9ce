"""View plans that several methods share. A method itself derives from ``types.Method``."""

from __future__ import annotations

from selftaught.types import Geometry, Photometry, Plan, ViewGroup

VIEWS = "views"  # the group that two_views makes: batch[VIEWS].data is (B, 2, C, *space)


def two_views(*, smallest: float = 0.2, colour: float = 1.0, blur: float = 0.5) -> Plan:
    """Two independent views of one sample, with the strengths of Chen et al. 2020, appendix A.

    ``smallest``: share of the sample that a crop keeps at least, in (0, 1] (the paper's 0.08 is for ImageNet's large
    pictures; on small ones such a crop rarely shows the object). ``colour``: strength of colour changes, in [0, inf).
    ``blur``: its probability, in [0, 1].
    """
    geometry = Geometry(scale=(smallest, 1.0))
    return (ViewGroup(VIEWS, 2, 1.0, geometry, (Photometry(colour=colour, blur=blur),)),)
