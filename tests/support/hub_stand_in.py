"""A small Hub on this machine: repositories in memory, behind the addresses that libraries ask.

It answers for information, listings and files at any revision, redirects renamed repositories,
refuses gated ones, takes uploads, and can drop, refuse or cut single answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_uploads import uploaded

DAY = "2024-01-01T00:00:00.000Z"


def sha(content: bytes) -> str:
    """Return a name of 40 digits for a content."""
    return hashlib.sha1(content).hexdigest()  # noqa: S324 - what git has, no secret


@dataclass
class Repository:
    """The commits of a repository, the newest of its main branch last, each with all its files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    moved_to: str = ""

    def at(self, revision: str) -> str | None:
        """Return the commit of a revision, ``None`` if there is none."""
        if revision in self.commits:
            return revision
        if revision in self.branches:
            return self.branches[revision]
        return [*self.commits][-1] if revision == "main" and self.commits else None


@dataclass
class Fault:
    """What happens to requests whose address holds a pattern.

    Args:
        path: The pattern.
        times: How many requests; the next ones are answered.
        status: The answer; 0 closes the connection without one.
        headers: Of the answer.
        cut_after: Bytes of a file after which the connection closes.
    """

    path: str
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None


class HubStandIn(ThreadingHTTPServer):
    """The server; it listens on a free port of this machine alone, in a thread."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Return the address, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables by which libraries ask this server, with a cache of their own."""
        more = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
        online = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
        return {**online, **dict.fromkeys(more, "1")}

    def commit(self, name: str, files: Mapping[str, bytes], branch: str = "") -> str:
        """Make a commit of ``datasets/…`` or ``models/…``, on main by default; return its hash."""
        repository = self.repositories.setdefault(name, Repository())
        listing = "".join(f"{path} {sha(content)}\n" for path, content in sorted(files.items()))
        commit = sha(f"{name} {len(repository.commits)}\n{listing}".encode())
        repository.commits[commit] = dict(files)
        if branch:
            repository.branches[branch] = commit
        return commit

    def unpinned(self) -> list[str]:
        """Return the requests for content that name no commit."""
        content = [one for one in self.requests if re.search(r"/(resolve|tree|paths-info)/", one)]
        return [
            one for one in content if not re.search(r"/(resolve|tree|paths-info)/[0-9a-f]{40}", one)
        ]

    def handle_error(self, *_: Any) -> None:
        """Say nothing where a client goes away."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStandIn

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer_request()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that the server calls

    def _answer_request(self) -> None:
        body = self._body()
        # A revision with strokes, as refs%2Fpr%2F1, is one step of an address.
        quoted = urlsplit(self.path).path
        path = unquote(quoted)
        self.server.requests.append(f"{self.command} {path}")
        fault = next((f for f in self.server.faults if f.times and re.search(f.path, path)), None)
        self._cut = None
        if fault is not None:
            fault.times -= 1
            self._cut = fault.cut_after
            if self._cut is None:
                self._refuse_by(fault)
                return
        if uploaded(self, path, body):
            return
        match = re.fullmatch(
            r"(/api)?/(?:(datasets|models|spaces)/)?([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/([^/]+)(?:/(.*))?)?)?",
            quoted,
        )
        if match is None:
            self._send(404)
            return
        api, kind, name, verb, revision, rest = (unquote(one or "") for one in match.groups())
        self._repository(bool(api), f"{kind or 'models'}/{name}", verb, revision, rest, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _refuse_by(self, fault: Fault) -> None:
        if fault.status:
            self._send(fault.status, b"{}", fault.headers)
        else:
            self.close_connection = True
            self.connection.close()

    def _repository(
        self, api: bool, name: str, verb: str, revision: str, rest: str, body: bytes
    ) -> None:
        there = self.server.repositories.get(name)
        if there is None:
            self._refuse(401, "RepoNotFound")
        elif there.moved_to:
            old, new = (one.removeprefix("models/") for one in (name, there.moved_to))
            self._send(307, headers={"Location": self.path.replace(old, new, 1)})
        elif (commit := there.at(revision or "main")) is None:
            self._refuse(404, "RevisionNotFound")
        elif not api or verb == "resolve":
            self._file(there, commit, rest)
        elif verb in ("", "revision"):
            self._information(name, there, commit)
        elif verb == "tree":
            self._json(list(self._entries(there.commits[commit], rest)))
        elif verb == "paths-info":
            asked = self._paths(body)
            every = {one["path"]: one for one in self._entries(there.commits[commit], "", True)}
            self._json([every[path] for path in asked if path in every])
        else:
            self._refuse(404, "EntryNotFound")

    def _paths(self, body: bytes) -> list[str]:
        if "json" in (self.headers.get("Content-Type") or ""):
            paths = json.loads(body)["paths"]
        else:
            paths = parse_qs(body.decode()).get("paths", [])
        return [paths] if isinstance(paths, str) else paths

    def _information(self, name: str, there: Repository, commit: str) -> None:
        title = name.partition("/")[2]
        siblings = [{"rfilename": path} for path in there.commits[commit]]
        fixed = {"_id": "0" * 24, "private": False, "disabled": False, "downloads": 0, "likes": 0}
        dates = {"lastModified": DAY, "createdAt": DAY, "tags": [], "gated": there.gated}
        who = {"id": title, "modelId": title, "author": title.partition("/")[0], "sha": commit}
        self._json({**fixed, **dates, **who, "siblings": siblings})

    def _entries(self, files: Mapping[str, bytes], under: str, deep: bool = False) -> Any:
        deep = deep or "recursive=true" in self.path.lower()
        start, folders = f"{under}/" if under else "", set()
        for path, content in sorted(files.items()):
            if not path.startswith(start):
                continue
            steps = path[len(start) :].split("/")
            for depth in range(1, len(steps)):
                folder = start + "/".join(steps[:depth])
                if (deep or depth == 1) and folder not in folders:
                    folders.add(folder)
                    yield {
                        "type": "directory",
                        "oid": sha(folder.encode()),
                        "size": 0,
                        "path": folder,
                    }
            if deep or len(steps) == 1:
                size = len(content)
                last = {"id": "0" * 40, "title": "a commit", "date": DAY}
                found = {"type": "file", "oid": sha(content), "size": size, "path": path}
                yield {**found, "lastCommit": last}

    def _file(self, there: Repository, commit: str, path: str) -> None:
        headers = {"X-Repo-Commit": commit}
        content = there.commits[commit].get(path)
        if there.gated:
            self._refuse(401, "GatedRepo")
        elif content is None:
            self._refuse(404, "EntryNotFound", headers)
        else:
            headers |= {"ETag": f'"{sha(content)}"', "Accept-Ranges": "bytes"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked is None:
                self._send(200, content, headers)
                return
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers)

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}
        self._send(status, b'{"error": ""}', named)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._cut is not None and len(body) > self._cut:
            self.wfile.write(body[: self._cut])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(body)
