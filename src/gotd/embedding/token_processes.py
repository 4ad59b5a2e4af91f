"""Processes that read and tokenise texts for a GPU, which would wait for the tokens otherwise.

A process is started without the main module of this one, which may be a script without a
guard. It ends when its pipe is closed, so also when this process is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue

from gotd.embedding.tokens import TextRange, TokenIds, Tokeniser
from gotd.storage.errors import WorkerKilled

MOST_PROCESSES = 16
"""Processes at most, since each holds libraries of its own in memory."""

RANGES_PER_PROCESS = 4
"""Ranges for which it is worth to start a process, which takes seconds."""

PROGRAM = """
import sys
sys.path = sys.argv[2:]
from gotd.embedding.token_processes import answer
answer(int(sys.argv[1]))
"""


def process_count(device: str, ranges: int) -> int:
    """Return how many processes tokenise for a device; 0: the caller does it itself.

    Args:
        device: Device of the network.
        ranges: Ranges to embed.
    """
    if not device.startswith("cuda") or sys.platform == "win32":  # where no pipe is inherited
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(0, min(MOST_PROCESSES, (cores or 1) - 1, ranges // RANGES_PER_PROCESS))


class TokenProcesses:
    """A fixed number of processes, each of which tokenises one range at a time.

    Args:
        tokeniser: Of the embedder.
        count: Number of processes.
    """

    def __init__(self, tokeniser: Tokeniser, count: int) -> None:
        self._all = [_Process(tokeniser) for _ in range(count)]
        self._free: SimpleQueue[_Process] = SimpleQueue()
        for process in self._all:
            self._free.put(process)

    def __len__(self) -> int:
        return len(self._all)

    def __call__(self, texts: TextRange) -> TokenIds:
        """Tokenise a range in the next free process; threads may call this at once.

        Raises:
            WorkerKilled: If the process died.
            Exception: The error of reading or tokenising the texts.
        """
        process = self._free.get()
        try:
            return process.tokenise(texts)
        finally:
            self._free.put(process)  # a dead one as well: whoever takes it gets the error, too

    def close(self) -> None:
        """Kill the processes; a call that waits for one ends with an error."""
        for process in self._all:
            process.kill()


class _Process:
    """One process and the pipe to it."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self._to_send: Tokeniser | None = tokeniser
        self._pipe, other_end = multiprocessing.Pipe()
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(other_end.fileno()), *sys.path],
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # One thread each: threads on all cores would hold up the one that feeds the GPU.
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,  # so that Ctrl-C reaches this process alone
            )

    def tokenise(self, texts: TextRange) -> TokenIds:
        try:
            if self._to_send is not None:  # not at the start, where the send would wait for it
                self._pipe.send(self._to_send)
                self._to_send = None
            self._pipe.send(texts)
            found = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerKilled(
                "a process that tokenises texts was killed, often for lack of memory; "
                "free some and run the same command again: it resumes"
            ) from error
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def answer(descriptor: int) -> None:
    """Tokenise the ranges that come through a pipe until it is closed; runs in the process.

    Args:
        descriptor: File descriptor of the pipe, through which the tokeniser comes first.
    """
    with Connection(descriptor) as pipe:
        try:
            tokeniser = pipe.recv()
            while True:
                texts = pipe.recv()
                try:
                    found = tokeniser(texts.read())
                except Exception as error:  # noqa: BLE001 - the caller raises it
                    found = error
                pipe.send(found)
        except (EOFError, OSError):  # the caller is gone
            return
