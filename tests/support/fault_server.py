"""A process that has imported the libraries, and forks a child for each run of the program.

It reads one JSON list of runs from each line of its input, starts them at once, and answers with
the list of their exit statuses. A child that was killed by a signal has the negative number.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

LONGEST_S = 900
"""Seconds after which a child that does not end is killed."""


def become(run: dict[str, Any]) -> int:
    """Run the program in a forked child and return its exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(LONGEST_S)
    os.environ.update(run["env"])
    for name in run["unset"]:
        os.environ.pop(name, None)
    os.chdir(run["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(run[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, number)
        os.close(target)
    if run["closed"]:
        os.close(1)
        sys.stdout = None
    if run["prepare"]:  # a function of a module of the tests, as "module:name"
        module, _, name = run["prepare"].partition(":")
        getattr(importlib.import_module(module), name)()
    from fault_injection import Injection

    Injection(run["fault"], run["roots"], run["trace"]).install()
    from gotd.cli.main import main

    sys.argv = ["gotd", *run["arguments"]]
    return main(run["arguments"])


def end(run: dict[str, Any]) -> NoReturn:
    """Run the program and end this child, without the slow end of an interpreter."""
    status = 1
    try:
        status = become(run)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - what the interpreter would print
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)


def serve(modules: list[str]) -> None:
    """Answer until the input ends."""
    for module in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        children = []
        for run in json.loads(line):
            child = os.fork()
            if child == 0:
                end(run)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), file=answers, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serve(sys.argv[1:])
