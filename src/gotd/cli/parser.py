"""The parser of a command line: an error is one line, with the option that was meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from gotd.storage.printing import printable


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the option that a misspelt one is like.

    The beginning of an option stands for it, as `argparse` has it.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._words: list[str] = []
        self.set_defaults(usage_error=self.error)  # of the command that was typed

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse a command line and keep it for the message of an error."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse a command line; what nobody knows is an error of its command."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        """Print usage and error, whatever was typed, and exit with status 2."""
        self.print_usage(sys.stderr)
        hints = "".join(f"; did you mean {near} for {word}?" for word, near in self._misspelt())
        self.exit(2, printable(f"{self.prog}: error: {message}{hints}") + "\n")

    def _misspelt(self) -> Iterator[tuple[str, str]]:
        """Yield each option that there is not, with the one it is like."""
        known = [name for action in self._actions for name in action.option_strings]
        for word in self._words:
            name = word.partition("=")[0]
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return  # what follows are no options, or those of a command
            if not word.startswith("-") or " " in word or any(o.startswith(name) for o in known):
                continue
            if near := get_close_matches(name, known, n=1):
                yield name, near[0]
