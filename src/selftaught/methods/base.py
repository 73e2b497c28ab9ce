"""What several methods share: view plans, and which values there are. A method derives from ``types.Method``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selftaught.ops.tokens import cells
from selftaught.types import Batch, Geometry, Outputs, Photometry, Plan, ViewGroup

VIEWS = "views"  # the group that two_views makes: batch[VIEWS].data is (B, 2, C, *space)
SMALL = "small"  # multi_crop's second group


def two_views(*, smallest: float = 0.2, colour: float = 1.0, blur: float = 0.5, count: int = 2) -> Plan:
    """Two (or ``count``) independent views of one sample, with the strengths of Chen et al. 2020, appendix A.

    ``smallest``: share of the sample that a crop keeps at least, in (0, 1] (the paper's 0.08 is for ImageNet's large
    pictures; on small ones such a crop rarely shows the object). ``colour``: strength of colour changes, in [0, inf).
    ``blur``: its probability, in [0, 1].
    """
    geometry = Geometry(scale=(smallest, 1.0))
    return (ViewGroup(VIEWS, count, 1.0, geometry, (Photometry(colour=colour, blur=blur),)),)


def one_view(*, smallest: float = 0.2, count: int = 1) -> Plan:
    """One crop (or ``count``) of a sample, mirrored half of the time and not changed otherwise, to be predicted.

    ``smallest``: share of the sample that it keeps at least, in (0, 1].
    """
    plain = Photometry(colour=0.0, gray=0.0, blur=0.0, noise=0.0)
    return (ViewGroup(VIEWS, count, 1.0, Geometry(scale=(smallest, 1.0)), (plain,)),)


def unlike_views(*, smallest: float = 0.2, colour: float = 0.5) -> Plan:
    """Two views drawn alike but for blur and solarisation, as Grill et al. 2020 (BYOL, appendix B) have them.

    The first is always blurred and never solarised, the second one time in ten blurred and in five solarised.
    ``colour`` 0.5 is the paper's: brightness and contrast 0.4, saturation 0.2 there and 0.4 here, hue 0.1.
    """
    first = Photometry(colour=colour, blur=1.0, solarise=0.0)
    second = Photometry(colour=colour, blur=0.1, solarise=0.2)
    return (ViewGroup(VIEWS, 2, 1.0, Geometry(scale=(smallest, 1.0)), (first, second)),)


def multi_crop(
    *, small: int = 6, smallest: float = 0.25, colour: float = 1.0, large: tuple[Photometry, ...] | None = None
) -> Plan:
    """Two large views and ``small`` ones of 0.43 times the side (96 / 224), as Caron et al. 2020 (SwAV) have them.

    Large views keep at least ``smallest`` of the sample, small ones at most that and at least a fifth of it.
    ``large``: photometry of the large ones, None = SimCLR's at strength ``colour``.
    """
    usual = Photometry(colour=colour)
    groups = [ViewGroup(VIEWS, 2, 1.0, Geometry(scale=(smallest, 1.0)), large or (usual,))]
    if small:
        groups.append(ViewGroup(SMALL, small, 96 / 224, Geometry(scale=(smallest / 5, smallest)), (usual,)))
    return tuple(groups)


def known(batch: Batch, *, view: int = 0, grid: Sequence[int] | None = None) -> Outputs:
    """``{"observed": (B, C, *space)}``, True where a value of the view was measured; empty where all were.

    By patch, (B, N, P), where a ``grid`` is given. What was not measured is no target: it was filled in.
    """
    observed = batch[VIEWS].observed
    if observed is None:
        return {}
    seen = observed[:, view]
    return {"observed": seen if grid is None else cells(seen.float(), grid) > 0}


def asked_for(hidden: Tensor, outputs: Outputs) -> Tensor:
    """Of what is ``hidden`` (True), what was measured."""
    return hidden & outputs["observed"] if "observed" in outputs else hidden
