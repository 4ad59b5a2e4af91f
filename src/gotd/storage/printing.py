"""Text of others on a terminal."""

from __future__ import annotations

import unicodedata

_STEERING = ("Cc", "Cs", "Zl", "Zp")
"""Categories of control characters, halves of a character, and separators of lines."""

_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that change the order in which the text after them is shown."""


def printable(text: str) -> str:
    """Return a text as one line whose control characters are escaped.

    So no data steers a terminal, and no name looks like a line of the program's own.
    """
    return _escaped(text, kept="")


def printable_lines(text: str) -> str:
    """Return a text of several lines whose other control characters are escaped."""
    return _escaped(text, kept="\n\t")


def _escaped(text: str, kept: str) -> str:
    def shown(char: str) -> str:
        steers = unicodedata.category(char) in _STEERING or char in _DIRECTION
        return ascii(char)[1:-1] if steers and char not in kept else char

    return text if text.isprintable() else "".join(map(shown, text))
