"""What a stand-in of the Hub answers where files are uploaded: small ones in the commit itself,
those of `LARGE` by an address of their own."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hub_stand_in import HubStandIn

LARGE = (".parquet", ".safetensors", ".jsonl", ".csv")
OWNER = "tester"
UPLOAD = "/uploads/"


class _Request(Protocol):
    server: HubStandIn
    command: str
    headers: Any

    def _json(self, value: Any, status: int = 200) -> None: ...
    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None: ...


def uploaded(request: _Request, path: str, body: bytes) -> bool:
    """Answer a request that uploads; return whether it was one."""
    if request.command == "PUT" and path.startswith(UPLOAD):
        request.server.uploads[path.removeprefix(UPLOAD)] = body
        request._send(200)
    elif path == "/api/whoami-v2" and request.headers.get("Authorization"):
        request._json({"type": "user", "name": OWNER, "orgs": []})
    elif path == "/api/validate-yaml":
        request._json({"errors": [], "warnings": []})
    elif path == "/api/repos/create":
        _create(request, json.loads(body))
    elif path.endswith("/info/lfs/objects/batch"):
        _address_each(request, json.loads(body)["objects"])
    elif found := re.fullmatch(r"/api/(datasets|models)/(.+)/(preupload|commit)/main", path):
        name = f"{found[1]}/{found[2]}"
        (_sort if found[3] == "preupload" else _commit)(request, name, body)
    else:
        return False
    return True


def _create(request: _Request, asked: Mapping[str, Any]) -> None:
    owner, title = asked.get("organization") or OWNER, asked["name"]
    name = f"{asked.get('type') or 'model'}s/{owner}/{title}"
    address = {"url": f"{request.server.address}/{owner}/{title}", "id": f"{owner}/{title}"}
    if name in request.server.repositories:
        request._json({"error": "You already created this repo", **address}, 409)
        return
    request.server.commit(name, {".gitattributes": b""})
    request._json(address)


def _sort(request: _Request, name: str, body: bytes) -> None:
    """Say of each file whether it is uploaded by itself."""
    files = [
        {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
        for one in json.loads(body)["files"]
        for mode in ("lfs" if one["path"].endswith(LARGE) else "regular",)
    ]
    request._json({"files": files})


def _address_each(request: _Request, objects: list[dict[str, Any]]) -> None:
    answers = [
        {**one, "actions": {"upload": {"href": f"{request.server.address}{UPLOAD}{one['oid']}"}}}
        for one in objects
    ]
    request._json({"transfer": "basic", "objects": answers})


def _commit(request: _Request, name: str, body: bytes) -> None:
    repository = request.server.repositories[name]
    files = dict(repository.commits[repository.at("main") or ""])
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = request.server.uploads[value["oid"]]
    commit = request.server.commit(name, files)
    address = f"{request.server.address}/{name}/commit/{commit}"
    request._json({"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})
