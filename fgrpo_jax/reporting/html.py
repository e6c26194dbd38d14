"""Pages that need no server, no network and no trust in what they show.

Every text that comes from elsewhere goes through `text`; a page's policy lets nothing be loaded and only its own script
run (by its checksum), so that even markup that slipped through could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from fgrpo_jax.records import Box

LONGEST_SIDE = 1024  # pixels of an embedded picture; larger ones are shrunk


def text(value: object) -> str:
    """Escaped for element content and attribute values; characters that browsers drop or obey are made visible."""
    shown = "".join(
        c if c in "\n\t" or (c.isprintable() and c not in _INVISIBLE) or c == " " else f"\\u{ord(c):04x}"
        for c in str(value)
    )
    return html.escape(shown, quote=True)


_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def tag(name: str, *content: str, **attributes: object) -> str:
    """'<name a="..">content</name>': content is markup already, attribute values are escaped; class_ is class."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(content)}</{name}>"


def table(head: Sequence[str], body: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of markup cells; columns of `numbers` are set to the right."""
    cell = lambda kind, at, content: tag(kind, content, class_="n" if at in numbers else None)  # noqa: E731
    top = tag("tr", *(cell("th", at, name) for at, name in enumerate(head)))
    rows = (tag("tr", *(cell("td", at, content) for at, content in enumerate(row))) for row in body)
    return tag("div", tag("table", tag("thead", top), tag("tbody", *rows)), class_="scroll")


def picture(image: np.ndarray, boxes: Sequence[tuple[Box, str, str]] = ()) -> str:
    """An image with boxes over it: (box in its pixels, label, class of the box).

    Args:
      image: uint8 [height, width, 3].
    """
    height, width = image.shape[:2]
    shown = Image.fromarray(image)
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    source = _data(shown)
    thick = max(width, height) / 160
    drawn = []
    for (x1, y1, x2, y2), label, kind in boxes:
        x, y, w, h = min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
        drawn.append(
            tag(
                "rect",
                tag("title", text(label)),
                x=f"{x:.2f}",
                y=f"{y:.2f}",
                width=f"{w:.2f}",
                height=f"{h:.2f}",
                class_=f"box {kind}",
                style=f"stroke-width:{thick:.2f}",
            )
        )
    overlay = tag("svg", *drawn, viewBox=f"0 0 {width} {height}", preserveAspectRatio="none", class_="over")
    picture = f'<img alt="{text(f"image of {width} by {height} pixels")}" src="{source}">'
    small = max(width, height) < 480  # enlarged without smoothing, so that one can see its pixels
    return tag(
        "figure",
        picture,
        overlay,
        class_="picture small" if small else "picture",
        style=f"aspect-ratio:{width}/{height}",
    )


def _data(image: Image.Image) -> str:
    """The image as a data: address; photographs as JPEG, which takes a tenth of their PNG."""
    buffers = {"png": io.BytesIO(), "jpeg": io.BytesIO()}
    image.save(buffers["png"], "PNG", optimize=True)
    image.save(buffers["jpeg"], "JPEG", quality=90)
    sizes = {kind: buffer.tell() for kind, buffer in buffers.items()}
    kind = "png" if sizes["png"] < 2 * sizes["jpeg"] else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(buffers[kind].getvalue()).decode()


def tiles(values: Mapping[str, tuple[str, str]]) -> str:
    """Headline figures: name → (figure, note)."""
    line = lambda kind, content: tag("div", text(content), class_=kind)  # noqa: E731
    cells = (
        tag("div", line("k", name), line("v", value), line("s", note), class_="tile")
        for name, (value, note) in values.items()
    )
    return tag("div", *cells, class_="tiles")


def page(title: str, body: str, *, script: str = "", style: str = "") -> str:
    """A whole document around a body of markup."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style>"
    )
    code = f"<script>{script}</script>" if script else ""
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}{code}</body></html>\n'


STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1a1f27;--soft:#5d6776;--line:#dfe3e9;--accent:#2457d6;--good:#14784a;--bad:#b3261e;
--warn:#8a5a00;--goodbg:#e2f4ea;--badbg:#fce8e6;--warnbg:#fdf1d9;--softbg:#eef1f5;--mark:#fff6d6}
@media(prefers-color-scheme:dark){:root{--bg:#12151a;--card:#1b2028;--ink:#e7eaf0;--soft:#98a2b3;--line:#2d343f;
--accent:#86a8ff;--good:#6fd6a0;--bad:#ff9a91;--warn:#f0c060;--goodbg:#16362a;--badbg:#43211f;--warnbg:#3d3016;
--softbg:#252b35;--mark:#3a3418}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}h2{font-size:18px;margin:34px 0 10px}h3{font-size:15px;margin:0 0 6px}
p{margin:6px 0}.lead{color:var(--soft);max-width:75ch}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.88em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:18px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile .k{color:var(--soft);font-size:13px}.tile .v{font-size:25px;font-weight:650;font-variant-numeric:tabular-nums}
.tile .s{color:var(--soft);font-size:12.5px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 11px;text-align:left;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}
.n{text-align:right}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;margin:14px 0}
.badge{display:inline-block;padding:1px 8px;border-radius:999px;font-size:12.5px;font-weight:600;
background:var(--softbg);color:var(--soft);white-space:nowrap}
.badge.good{background:var(--goodbg);color:var(--good)}.badge.bad{background:var(--badbg);color:var(--bad)}
.badge.warn{background:var(--warnbg);color:var(--warn)}
.picture{position:relative;margin:0;width:100%;border-radius:6px;overflow:hidden;background:var(--softbg)}
.picture img{position:absolute;inset:0;width:100%;height:100%;display:block}
.picture.small img{image-rendering:pixelated}
.picture .over{position:absolute;inset:0;width:100%;height:100%}
.box{fill:none;stroke:#ff2fa0;paint-order:stroke}.box.gold{stroke:#fff;stroke-dasharray:6 4}
"""
