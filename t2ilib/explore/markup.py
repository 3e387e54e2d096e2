"""What the explorer writes into its page: HTML of tokens, verdicts, neighbours and links. All text is escaped."""

import base64
import re
from collections.abc import Collection, Sequence
from html import escape, unescape

from t2ilib.encoders.tokens import split_words
from t2ilib.explore.looking import Neighbour, Verdict
from t2ilib.explore.receipts import Receipt, png

SHOWN = 80  # words of a caption
STYLE = """<style>
.t2i { color: var(--jp-ui-font-color1, inherit); font-family: var(--jp-ui-font-family, sans-serif); font-size: 13px;
  line-height: 1.5; overflow-wrap: anywhere; }
.t2i-word { display: inline-block; margin: 1px 3px 1px 0; padding: 0 6px; border-radius: 9px;
  border: 1px solid var(--jp-border-color1, #999); }
.t2i-unknown { border: 1px dashed #c0392b; text-decoration: underline wavy #c0392b; }
.t2i table { border-collapse: collapse; } .t2i td, .t2i th { padding: 0 10px 0 0; text-align: left; }
.t2i-error { border-left: 4px solid #c0392b; padding-left: 8px; }
.t2i img { image-rendering: pixelated; margin: 0 4px 4px 0; display: inline-block; }
.t2i a { color: var(--jp-content-link-color, #06c); }
</style>"""


def block(content: str, role: str = "", kind: str = "") -> str:
    """Return HTML as a block of the page; `role` tells a screen reader what it is."""
    told = f' role="{role}"' if role else ""
    return f'<div class="t2i {kind}"{told}>{content}</div>'


def status(text: str, wrong: bool = False) -> str:
    """Return one sentence about what the page is doing, or what went wrong."""
    return block(escape(text), "alert" if wrong else "status", "t2i-error" if wrong else "")


def plain(content: str) -> str:
    """Return what a visitor reads of HTML that was made here."""
    return unescape(re.sub(r"<[^>]+>", "", content))


def words(caption: str, unknown: Collection[str]) -> str:
    """Return the words that are read of a caption, those that an encoder does not know marked."""
    found = split_words(caption)
    unknown = set(unknown)
    shown = [_word(word, word in unknown) for word in found[:SHOWN]]
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return block(("".join(shown) or "no words") + more, "note")


def _word(word: str, unknown: bool) -> str:
    text = escape(word if len(word) <= 40 else f"{word[:39]}…")
    if not unknown:
        return f'<span class="t2i-word">{text}</span>'
    return f'<span class="t2i-word t2i-unknown" title="this word is unknown to the encoder">{text} (unknown)</span>'


def row(title: str, measured: str = "") -> str:
    """Return the heading of a row of pictures."""
    return block(f"<b>{escape(title if len(title) <= 120 else title[:119] + '…')}</b> {escape(measured)}")


def picture(content: bytes, text: str, side: int) -> str:
    """Return a picture (PNG) as a square of `side` pixels; `text` says what it shows to those who do not see it."""
    return block(f'<img width="{side}" height="{side}" src="{data_url(content)}" alt="{escape(text[:400])}">')


def about(receipt: Receipt, score: float | None, judge: str, verdicts: Sequence[Verdict]) -> str:
    """Return what a picture was painted from, how well it fits (by which CLIP), what is right and wrong of it."""
    cut = "" if receipt.truncation is None else f", truncation {receipt.truncation:g}"
    lines = [
        f"<b>{escape(receipt.system)}</b>, picture {receipt.number + 1} of {receipt.count}, seed {receipt.seed}{cut}",
        escape(receipt.caption if len(receipt.caption) <= 300 else f"{receipt.caption[:299]}…") or "(no caption)",
    ]
    if score is not None:
        lines.append(f"CLIP score {score:.1f} by {escape(judge)}")
    return block("<br>".join(lines) + _table(verdicts))


def _table(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    mentioned = [each for each in verdicts if each.right is not None]
    rows = [
        f"<tr><td>{escape(each.attribute.replace('_', ' '))}</td><td>{escape(each.said)}</td>"
        f"<td>{escape(each.shown)}</td><td>{'right' if each.right else '<b>wrong</b>'}</td></tr>"
        for each in mentioned
    ]
    others = ", ".join(f"{each.attribute.replace('_', ' ')} {each.shown}" for each in verdicts if each.right is None)
    head = "<tr><th></th><th>said</th><th>shown</th><th></th></tr>"
    table = f"<table>{head}{''.join(rows)}</table>" if rows else "<p>The caption mentions no attribute.</p>"
    return table + (f"not mentioned: {escape(others)}" if others else "")


def neighbours(found: Sequence[Neighbour]) -> str:
    """Return the nearest training pictures with how like they are, their first captions as titles."""
    cells = [
        f'<figure style="display: inline-block; margin: 0"><img width="96" src="{data_url(png(each.picture))}" '
        f'alt="{escape(each.captions[0])}" title="{escape(each.captions[0])}">'
        f"<figcaption>{each.likeness:.2f}</figcaption></figure>"
        for each in found
    ]
    return block(f"Nearest training pictures, by the cosine of features:<br>{''.join(cells)}")


def way(strip: bytes, moving: bytes, steps: int) -> str:
    """Return the pictures of a walk as a strip (PNG), and moving (GIF)."""
    return block(
        f'<img style="max-width: 100%; width: {steps * 112}px" src="{data_url(strip)}" alt="{steps} pictures on the '
        f'way"><br><img width="128" src="{data_url(moving, "image/gif")}" alt="the same, moving">'
    )


def download(content: bytes, name: str, text: str, kind: str = "image/png") -> str:
    """Return a link that saves `content` as a file of that name."""
    return block(f'<a href="{data_url(content, kind)}" download="{escape(name)}">{escape(text)}</a>')


def data_url(content: bytes, kind: str = "image/png") -> str:
    """Return bytes as an address that needs no server."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def file_name(receipt: Receipt) -> str:
    """Return what a saved picture is called: a-red-bird_dfgan_toy_0_2.png."""
    first = "-".join(re.findall(r"[a-z0-9]+", receipt.caption.lower())[:6])[:60] or "picture"
    system = re.sub(r"[^A-Za-z0-9_.-]+", "-", receipt.system)[-40:].strip("-.") or "system"
    return f"{first}_{system}_{receipt.seed}_{receipt.number}.png"
