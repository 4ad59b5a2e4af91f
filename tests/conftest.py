"""No test leaves this machine, and none takes more cores than it is given."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers and datasets read it
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MOST_TORCH_THREADS = 2


class NetworkBlockedError(RuntimeError):
    """A test tried to leave this machine; no OSError, so no fallback can swallow it."""


def is_on_this_machine(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse(host: Any) -> None:
    raise NetworkBlockedError(
        f"a test tried to reach {host!r}; tests run without a network: generate the data, "
        "or stand a fake in for what is fetched"
    )


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection but those to loopback and Unix sockets, and every look-up."""
    connect, connect_ex, look_up = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def check(sock: socket.socket, address: Any) -> None:
        inside = sock.family == getattr(socket, "AF_UNIX", None)
        if not inside and not is_on_this_machine(address[0]):
            refuse(address[0])

    def guarded_connect(sock: socket.socket, address: Any) -> None:
        check(sock, address)
        connect(sock, address)

    def guarded_connect_ex(sock: socket.socket, address: Any) -> int:
        check(sock, address)
        return connect_ex(sock, address)

    def guarded_look_up(host: Any, *arguments: Any, **named: Any) -> Any:
        if not is_on_this_machine(host):
            refuse(host)
        return look_up(host, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Keep torch small where a test has imported it; nobody imports it for this."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > MOST_TORCH_THREADS:
        torch.set_num_threads(MOST_TORCH_THREADS)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Give the folder of real rows and passages; its tests are skipped without one."""
    named = os.environ.get("DATA", "")
    if not named:
        pytest.skip("needs real data: set DATA to the folder that holds glue/ and candidates/")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"needs real data: DATA={named} is no folder")
    return folder


@pytest.fixture(scope="session")
def mix_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write passages of three domains, 400 each: one file holds two domains, two hold one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "candidates"
    folder.mkdir()
    rows: dict[str, list[dict[str, str]]] = {"common": [], "biology-a": [], "biology-b": []}
    for domain in ("films", "news", "biology"):
        words = [f"{domain[:4]}{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(40)]
        for number in range(400):
            text = " ".join(random.choice([*words, "the", "of", "and"], random.integers(9, 20)))
            file = "common" if domain != "biology" else f"biology-{'ab'[number % 2]}"
            row = {"id": f"{domain}/{number}", "text": text, "domain": domain}
            rows[file].append(row)
    for name, held in rows.items():
        order = random.permutation(len(held))
        pq.write_table(pa.Table.from_pylist([held[n] for n in order]), folder / f"{name}.parquet")
    return folder.parent


MORE_FILES = 40


@pytest.fixture
def few_open_files() -> Iterator[None]:
    """Let this process open about `MORE_FILES` more files; the hard limit stays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)  # the system gives the lowest free number
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + MORE_FILES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
