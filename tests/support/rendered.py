"""What a reader of Markdown shows, and what in it is interpreted."""

from __future__ import annotations

from markdown_it import MarkdownIt


def elements(text: str) -> list[tuple[str, str]]:
    """Return type and content of all parts of a page, with raw HTML interpreted as such."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    found = []
    for token in parser.parse(text):
        found += [(token.type, token.content)] if token.children is None else []
        found += [(inner.type, inner.content) for inner in token.children or []]
    return found


def interpreted(text: str) -> set[str]:
    """Return what of tags, links and pictures a page has."""
    kinds = {"html_inline", "html_block", "link_open", "image"}
    return {content or kind for kind, content in elements(text) if kind in kinds}
