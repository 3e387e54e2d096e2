"""What a page of Markdown looks like when it is rendered: its tables, links, and what went wrong."""

import itertools
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

RENDERER = MarkdownIt("commonmark").enable("table")  # as GitHub and Jupyter: CommonMark, and tables
FENCED = re.compile(r"(?ms)^```.*?^```$")
HTML_TARGET = re.compile(r"""(?:src|href)=["']([^"']*)["']""")
MATH = re.compile(r"\$\$.*?\$\$|(?<![\\$])\$[^$\n]+\$", re.DOTALL)
Link = tuple[str, str]  # what the reader sees, and where it leads
Row = list[tuple[str, list[Link]]]  # the cells: their text and their links


def tokens(page: str) -> list[Token]:
    """Return the page's tokens, without its formulas, which another program renders."""
    blank, end = [], 0
    for block in [*FENCED.finditer(page), None]:
        prose = page[end : block.start() if block else len(page)]
        blank.append(MATH.sub(lambda formula: "x" + "\n" * formula.group().count("\n"), prose))
        blank.append(block.group() if block else "")
        end = block.end() if block else end
    return RENDERER.parse("".join(blank))


def raw_pipes(page: str) -> list[str]:
    """Return what looks like a table and is none: text with a bar in paragraphs and headings, rows of odd lengths."""
    found, stream = [], tokens(page)
    for before, inline in itertools.pairwise(stream):
        if inline.type == "inline" and before.type in ("paragraph_open", "heading_open"):
            texts = [child.content for child in inline.children if child.type == "text"]
            found += [f"a bar in a paragraph: {text!r}" for text in texts if "|" in text]
    lines = page.splitlines()
    for token in stream:
        if token.type == "table_open":
            rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines[slice(*token.map)]]
            odd = [row for row in rows if len(row) != len(rows[0])]
            found += [f"a row of {len(row)} cells in a table of {len(rows[0])}: {'|'.join(row)!r}" for row in odd]
    return found


def links(page: str) -> list[Link]:
    """Return the page's links and pictures, also those written in HTML, in their order."""
    return [link for token in tokens(page) for link in _links(token)]


def _links(token: Token) -> list[Link]:
    children = token.children or [token]
    found, target = [], None
    for child in children:
        if child.type == "link_open":
            target, text = str(child.attrs["href"]), ""
        elif child.type == "link_close":
            found, target = [*found, (text, target)], None
        elif child.type == "image":
            found.append((child.content, str(child.attrs["src"])))
        elif child.type in ("html_inline", "html_block"):
            found += [("", place) for place in HTML_TARGET.findall(child.content)]
        elif target is not None:
            text += child.content
    return found


def missing(page: str, folder: Path, root: Path) -> list[str]:
    """Return the page's links and pictures that lead nowhere from its folder: to no file or no heading, or undefined.

    Only what lies below `root`, the repository, is there for a reader.
    """
    undefined = [
        child.content
        for token in tokens(page)
        for child in token.children or ()
        if child.type == "text" and re.search(r"\[[^\]]+\]\[[^\]]+\]", child.content)
    ]
    found = [f"no definition: {text!r}" for text in undefined]
    for text, target in links(page):
        address = urlsplit(target)
        if address.scheme or address.netloc:
            continue
        path = (folder / unquote(address.path)).resolve()
        if not target:
            found.append(f"the link {text!r} is empty")
        elif not (path.exists() and path.is_relative_to(root.resolve())):
            found.append(f"{target} is not there")
        elif (address.fragment and path.suffix == ".md") or not address.path:
            headed = path.read_text(encoding="utf-8") if address.path else page
            found += [f"{target}: no such heading"] * (unquote(address.fragment) not in anchors(headed))
    return found


def anchors(page: str) -> set[str]:
    """Return what a page's headings are called in links to them, as GitHub does."""
    titles = [after.content for before, after in itertools.pairwise(tokens(page)) if before.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(page: str, heading: str) -> list[Row]:
    """Return the first table below a heading of the second level: its rows, the head first."""
    rows, inside, below = [], False, False
    for token in tokens(page):
        if token.type == "inline" and not inside and token.content == heading:
            below = True
        if below and token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            below = inside
        if inside and token.type == "tr_open":
            rows.append([])
        if inside and token.type == "inline":
            text = "".join(child.content for child in token.children)
            rows[-1].append((text, _links(token)))
    return rows
