"""One page that shows every slide of a run: contours, tiles, what was cut out, and why some have none."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from nsclc_mtl.slides.picture import CUT, HOLE, OUTLINE, TILE

MOST_PICTURES = 600  # of about 15 kB each; further slides stand in the list without theirs
EDGE_PX = 420
WORDS = {"pen": "pen", "blur": "out of focus", "grey": "grey or black", "fold": "folds"}

STYLE = """
:root { color-scheme: light; --ink: #22262b; --soft: #5c636b; --line: #dcdfe3; --wash: #f5f6f7; --blue: #00558a; --warm: #a34700; --red: #a11a1a; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main, header { max-width: 90rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.2rem; }
h1 { font-size: 1.8rem; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 2.4rem 0 .9rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 48rem; margin: .4rem 0; } .soft { color: var(--soft); }
.counts { display: flex; flex-wrap: wrap; gap: .4rem 2.4rem; margin: 1.2rem 0 .8rem; padding: 0; list-style: none; }
.counts b { display: block; font-size: 1.7rem; line-height: 1.15; font-weight: 600; font-variant-numeric: tabular-nums; }
.counts li { color: var(--soft); font-size: .875rem; } .counts .bad b { color: var(--red); } .counts .odd b { color: var(--warm); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; font-size: .8125rem; color: var(--soft); margin: .6rem 0 0; padding: 0; list-style: none; }
.key i { display: inline-block; width: .9rem; height: .9rem; margin-right: .4rem; vertical-align: -.12rem; border-radius: 2px; }
.grid { align-items: start; display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: 1.1rem; margin: 0; padding: 0; list-style: none; }
.grid li { border: 1px solid var(--line); border-radius: 7px; overflow: hidden; display: flex; flex-direction: column; }
.grid li.odd { border-color: #dca877; } .grid li.bad { border-color: #dc9a9a; }
.shot { height: 15.5rem; background: var(--wash); display: flex; align-items: center; justify-content: center; padding: .5rem; }
.shot img { max-width: 100%; max-height: 100%; display: block; }
.text { padding: .65rem .8rem .75rem; font-size: .875rem; flex: 1; }
.id { font-weight: 650; overflow-wrap: anywhere; line-height: 1.3; }
.nums { color: var(--soft); font-variant-numeric: tabular-nums; } .why { margin: .25rem 0 0; color: var(--warm); } .bad .why { color: var(--red); }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; } td, th { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
footer { margin: 2.5rem 0 3rem; color: var(--soft); font-size: .8125rem; }
@media (max-width: 34rem) { .grid { grid-template-columns: 1fr 1fr; gap: .7rem; } .shot { height: 10rem; } main, header { padding-left: 1rem; padding-right: 1rem; } }
@media print { .grid { grid-template-columns: repeat(4, 1fr); } .grid li { break-inside: avoid; } }
"""  # noqa: E501


@dataclass
class Shot:
    """What the page shows of one slide."""

    slide_id: str
    picture: Path | None = None
    tiles: int = 0
    fractions: dict[str, float] = field(default_factory=dict)  # tissue (of the slide), pen, blur, fold, grey
    lost: float = 0.0  # share of what looked like tissue that was cut out
    verdict: str = "done"  # done, skipped, failed
    reason: str = ""
    sentence: str = ""  # why it was not done, or what is odd about it

    @property
    def rank(self) -> int:
        """0 failed, 1 skipped, 2 done but odd, 3 done."""
        return {"failed": 0, "skipped": 1}.get(self.verdict, 2 if self.sentence else 3)


def write(path: Path, shots: Sequence[Shot], title: str) -> None:
    """A self-contained HTML page at `path`: what needs a look comes first, then all others by name."""
    groups = (
        ("Failed", [0], "These slides could not be used."),
        ("Skipped", [1], "Nothing to do in these slides. Is that right?"),
        ("Worth a look", [2], "Done, and something about them is unusual."),
        ("Done", [3], ""),
    )
    body, room = [], MOST_PICTURES
    for name, ranks, told in groups:
        members = sorted((shot for shot in shots if shot.rank in ranks), key=lambda shot: shot.slide_id)
        if not members:
            continue
        body.append(f"<h2>{name} ({len(members)})</h2>" + (f'<p class="soft">{told}</p>' if told else ""))
        body.append('<ul class="grid">' + "".join(_card(shot) for shot in members[:room]) + "</ul>")
        if rest := members[room:]:
            body.append(f'<p class="soft">{len(rest)} more, without a picture here:</p><table>')
            body += [
                f"<tr><th>{escape(s.slide_id)}</th><td>{s.tiles} tiles</td><td>{escape(s.sentence)}</td></tr>"
                for s in rest
            ]
            body.append("</table>")
        room = max(0, room - len(members))
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><header><h1>{escape(title)}</h1>"
        f"{_counts(shots)}{_key(shots)}</header><main>{''.join(body)}"
        "<footer>Contours for QuPath lie beside the tiles as GeoJSON. Corrected ones come back with slides.roi=FOLDER."
        "</footer></main></body></html>\n"
    )
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _counts(shots: Sequence[Shot]) -> str:
    ranks = [shot.rank for shot in shots]
    rows = [
        ("", ranks.count(2) + ranks.count(3), "slides with tiles"),
        ("", sum(shot.tiles for shot in shots), "tiles"),
        ("odd", ranks.count(2), "worth a look"),
        ("odd", ranks.count(1), "skipped"),
        ("bad", ranks.count(0), "failed"),
    ]
    shown = [row for row in rows if row[1] or not row[0]]
    return '<ul class="counts">' + "".join(f'<li class="{c}"><b>{n:,}</b>{word}</li>' for c, n, word in shown) + "</ul>"


def _key(shots: Sequence[Shot]) -> str:
    """The legend, with only those cuts that some slide has."""
    lines = [(OUTLINE, "tissue"), (HOLE, "hole"), (TILE, "tile")]
    spots = [f'<li><i style="border: 3px solid {_hex(colour)}"></i>{word}</li>' for colour, word in lines]
    cut = [name for name in CUT if any(shot.fractions.get(name, 0) > 0.0005 for shot in shots)]
    spots += [
        f'<li><i style="background: {_hex(CUT[name])}"></i>{WORDS[name]}, cut out</li>'
        for name in cut
        if name != "fold"
    ]
    return '<ul class="key">' + "".join(spots) + "</ul>"


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _card(shot: Shot) -> str:
    kind = ("bad", "odd", "odd", "")[shot.rank]
    image = _embedded(shot.picture) if shot.picture else ""
    told = f"contours of {escape(shot.slide_id, quote=True)}"
    inside = f'<div class="shot"><img alt="{told}" src="{image}"></div>' if image else ""
    numbers = ""
    if shot.fractions:
        shares = [f"{shot.tiles:,} tiles", f"tissue {_percent(shot.fractions.get('tissue', 0.0))}"]
        shares += [f"{WORDS[k]} {_percent(v)}" for k, v in shot.fractions.items() if k in WORDS and v > 0.0005]
        numbers = f'<div class="nums">{" · ".join(shares)}</div>'
    why = f'<p class="why">{escape(shot.sentence)}</p>' if shot.sentence else ""
    return (
        f'<li class="{kind}">{inside}<div class="text">'
        f'<div class="id">{escape(shot.slide_id)}</div>{numbers}{why}</div></li>'
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%" if share >= 0.1 else f"{100 * share:.1f}\u00a0%"


def _embedded(path: Path) -> str:
    """A small JPEG as a data address, its empty margins cut off; empty text where the file cannot be read."""
    try:
        with Image.open(path) as file:
            small = ImageOps.contain(file.convert("RGB"), (EDGE_PX, EDGE_PX), Image.Resampling.LANCZOS)
    except OSError:
        return ""
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
