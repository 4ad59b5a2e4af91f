"""The parser of a command line: an error is one line, with the option that was meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from gotd.storage.checks import meant, meant_override
from gotd.storage.printing import printable


def whole_numbers(given: str) -> list[int]:
    """Read ``1,2``: the type of an argument of scripts.

    Raises:
        argparse.ArgumentTypeError: If it is not whole numbers with commas between them.
    """
    try:
        return [int(number) for number in given.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{given[:40]!r} is not whole numbers with commas between them, such as 1,2"
        ) from error


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the option that a misspelt one is like.

    The beginning of an option stands for it, as `argparse` has it.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._words: list[str] = []
        # Of the command that was typed.
        self.set_defaults(usage_error=self.error, flags_are_overrides=False)

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
        if unknown and options.flags_are_overrides:
            options.overrides = [*unknown, *options.overrides]
        elif unknown:
            options.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        """Print usage and error, whatever was typed, and exit with status 2."""
        self.print_usage(sys.stderr)
        self.exit(2, printable(f"{self.prog}: error: {message}{''.join(self._hints())}") + "\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check that a value is one of the choices, and add the one it is like to the error."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += meant(str(value), map(str, action.choices or ()))
            raise

    def _hints(self) -> Iterator[str]:
        """Yield what was meant by each option that there is not."""
        known = {name: one for one in self._actions for name in one.option_strings}
        takes_overrides = any(action.dest == "overrides" for action in self._actions)
        for word in self._words:
            name, equals, _ = word.partition("=")
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return  # what follows are no options, or those of a command
            if not word.startswith("-") or " " in word or any(o.startswith(name) for o in known):
                continue
            # Only an option that takes a value can be meant by one with a value.
            hint = meant(name, [o for o in known if not equals or known[o].nargs != 0])
            if not hint and equals and takes_overrides:
                hint = meant_override(word)
            yield hint
