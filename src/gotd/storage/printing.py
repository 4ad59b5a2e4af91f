"""Text of others on a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Return a text whose control characters are escaped, so that no data steers a terminal."""

    def shown(char: str) -> str:
        is_control = unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"
        return ascii(char)[1:-1] if is_control else char

    return "".join(map(shown, text))
