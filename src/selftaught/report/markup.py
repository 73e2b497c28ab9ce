"""HTML and SVG that are safe by construction.

Everything that users gave (paths, labels, values of their configuration) ends up on the page. A plain string is
therefore escaped wherever it is put; only what ``tag`` itself made is ``Html`` and passes unchanged. There is no other
way to make an element, so that a forgotten ``escape`` cannot happen.
"""

from __future__ import annotations

import base64
import html
import math
import struct
from collections.abc import Iterable

_EMPTY = frozenset({"img", "br", "meta", "rect", "circle", "line", "path", "polyline", "polygon", "use"})
_CONTROL = {code: "\ufffd" for code in (*range(32), 127) if chr(code) not in "\n\t"}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Html(str):
    """Markup that ``tag`` made: the only text that is not escaped."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Anything as text that is safe in an element and in a quoted attribute; control characters and lone surrogates
    (paths that are not UTF-8) become replacement characters."""
    text = str(value).translate(_CONTROL).encode("utf-8", "replace").decode("utf-8")
    return Html(html.escape(text, quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. Strings are escaped, ``Html`` is kept, None is left out; ``stroke_width=2`` is ``stroke-width="2"``,
    ``class_`` is ``class``, floats get one decimal."""
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _EMPTY and not children:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """Children one after the other, escaped where they are not ``Html``."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in children if one is not None))


def table(header: Iterable[object], rows: Iterable[Iterable[object]], *, caption: str, numbers: bool = True) -> Html:
    """A table that scrolls inside its own box; the first column is the row's header, the others hold numbers."""
    kind = "num" if numbers else None
    first, *rest = header
    head = tag("tr", tag("th", first, scope="col"), *(tag("th", one, scope="col", class_=kind) for one in rest))
    body = []
    for row in rows:
        name, *cells = row
        body.append(tag("tr", tag("th", name, scope="row"), *(tag("td", one, class_=kind) for one in cells)))
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def picture(data: bytes | None, alt: str, *, title: str | None = None, class_: str | None = None) -> Html:
    """An inlined picture, or a box that says there is none where ``data`` is neither PNG nor JPEG."""
    kind = _kind(data)
    if data is None or kind is None:
        return tag("span", "no picture", class_="nopic", title=title or alt)
    width, height = _size(data)
    small = width is not None and width < 64  # a few pixels, enlarged: squares are honest, a blur is not
    classes = " ".join(filter(None, [class_, "pixels" if small else ""])) or None
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return tag("img", src=source, alt=alt, title=title, class_=classes, width=width, height=height, decoding="async")


def number(value: object, digits: int = 3) -> str:
    """A number for a person: 1,234 or 0.0123; "–" for what is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _attribute(key: str, value: object) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else escape(value)
    name = key.rstrip("_").replace("_", "-")
    return f' {name}="{text}"'


def _kind(data: bytes | None) -> str | None:
    if not isinstance(data, bytes):
        return None
    return "image/png" if data.startswith(_PNG) else "image/jpeg" if data.startswith(_JPEG) else None


def _size(data: bytes) -> tuple[int | None, int | None]:
    if data.startswith(_PNG) and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    return None, None
