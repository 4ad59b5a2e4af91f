"""Text of others on a terminal."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

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


MOST_LISTED = 10
"""Names in an error; a folder or a table may have thousands."""


def listed(names: Iterable[str], wanted: str = "") -> str:
    """Return names as one line: all of a few, else those nearest to a wanted one or the first.

    Args:
        names: The names; a damaged file may have any.
        wanted: What was not among them.
    """
    given = [" ".join(name.split())[:80] for name in names]
    if len(given) <= MOST_LISTED:
        return ", ".join(given)
    shown = get_close_matches(wanted, given, n=3) or given[:MOST_LISTED]
    return f"{', '.join(shown)} and {len(given) - len(shown):,} more"


def command_line(arguments: Iterable[str]) -> str:
    """Return arguments as one line that a shell (bash, zsh, ksh) reads as the same ones.

    One with a line break or another control character is quoted as ``$'…'``.
    """
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    if printable(argument) == argument:
        return shlex.quote(argument)

    def shown(char: str) -> str:
        if char in "\\'":
            return f"\\{char}"
        if printable(char) == char:
            return char
        if 0xDC80 <= ord(char) <= 0xDCFF:  # a byte that is no text
            return f"\\x{ord(char) - 0xDC00:02x}"
        return printable(char) if char.isascii() else f"\\u{ord(char):04x}"

    return f"$'{''.join(map(shown, argument))}'"


def _escaped(text: str, kept: str) -> str:
    def shown(char: str) -> str:
        steers = unicodedata.category(char) in _STEERING or char in _DIRECTION
        return ascii(char)[1:-1] if steers and char not in kept else char

    return text if text.isprintable() else "".join(map(shown, text))
