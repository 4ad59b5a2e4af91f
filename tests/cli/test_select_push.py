"""Pushing a selection to a stand-in of the Hub: what arrives, and which errors there are."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml

from gotd.cli.main import main


class Hub(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks for to make a commit of small files."""

    state = SimpleNamespace()

    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        if self.path == "/api/whoami-v2":
            known = self.headers.get("Authorization") == "Bearer hf_good"
            return self.answer({"name": "me"} if known else {"error": "no"}, 200 if known else 401)
        self.state.unknown.append(self.path)
        return self.answer({"error": "no such page"}, 404)

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.state.busy:
            self.state.busy -= 1
            return self.answer({"error": "busy"}, 503)
        if self.path == "/api/repos/create":
            self.state.created.append(json.loads(data))
            if self.state.status != 200:
                return self.answer({"error": "refused"}, self.state.status)
            return self.answer({"url": f"http://{self.headers['Host']}/datasets/me/rows"})
        if "/preupload/" in self.path:
            files = json.loads(data)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self.answer({"files": [{**m, "shouldIgnore": False} for m in modes]})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in data.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.state.commits.append({f["path"]: base64.b64decode(f["content"]) for f in files})
            url = f"http://{self.headers['Host']}/datasets/me/rows/commit/{'a' * 40}"
            return self.answer({"success": True, "commitOid": "a" * 40, "commitUrl": url})
        self.state.unknown.append(self.path)
        return self.answer({"error": "no such page"}, 404)


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    Hub.state = SimpleNamespace(created=[], commits=[], unknown=[], status=200, busy=0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("gotd.storage.hub_requests.WAITS_S", (0.0,))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    yield Hub.state
    server.shutdown()
    server.server_close()


def select(given, out, *more):
    arguments = ("--out", str(out), "--method", "dsir", "--push", "hub:me/rows", *more)
    return main(given.arguments(*arguments))


@pytest.mark.parametrize("suffix", [".jsonl", ".hf", ""])
def test_one_commit_has_rows_card_report_and_manifest(given, tmp_path, hub, suffix):
    out = tmp_path / f"rows{suffix}"
    assert select(given, out, "--budget", "5,9") == 0
    assert [(one["name"], one["visibility"], one["type"]) for one in hub.created] == [
        ("rows", "private", "dataset")
    ]
    (files,) = hub.commits
    assert {"README.md", "manifest.json", "report.md"} < set(files)
    header = yaml.safe_load(files["README.md"].decode().split("---")[1])
    for config in header["configs"]:
        pattern = config["data_files"].replace("/*.arrow", "/")
        assert any(name.startswith(pattern) for name in files), pattern
    if suffix == ".jsonl":
        assert files["rows-9.jsonl"] == (tmp_path / "rows-9.jsonl").read_bytes()


def test_a_busy_hub_is_asked_again(given, tmp_path, hub):
    """Sibling of B31: one answer 503 ended a push after all the work."""
    hub.busy = 1
    assert select(given, tmp_path / "a.jsonl", "--budget", "5") == 0
    assert len(hub.created) == len(hub.commits) == 1


def test_without_a_token_nothing_is_done(given, tmp_path, hub, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert select(given, tmp_path / "a.jsonl", "--budget", "5") == 2
    assert "--push needs a token of the Hub: set HF_TOKEN" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_is_not_known_is_refused_before_any_work(
    given, tmp_path, hub, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    assert select(given, tmp_path / "a.jsonl", "--budget", "5") == 2
    assert "refuses to write me/rows with this token (401)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "says"), [(403, "refuses to write me/rows"), (500, "failed to take me/rows (500)")]
)
def test_a_refusal_leaves_the_selection_here(given, tmp_path, hub, capsys, status, says):
    hub.status = status
    assert select(given, tmp_path / "a.jsonl", "--budget", "5") == 2
    error = capsys.readouterr().err
    assert says in error
    assert f"the selection is in {tmp_path}" in error
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 5
    assert hub.commits == []


def test_without_a_network_nothing_is_done(given, tmp_path, hub, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert select(given, tmp_path / "a.jsonl", "--budget", "5") == 2
    assert "the Hub cannot be reached to push me/rows" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_selection_that_fails_is_not_pushed(given, tmp_path, hub):
    assert select(given, tmp_path / "a.jsonl", "--budget", "999999") == 2
    assert hub.created == hub.commits == []


@pytest.mark.parametrize("name", ["me/rows", "hub:rows", "hub:a/b/c", "hub:me/ro ws"])
def test_a_name_must_be_of_a_data_set(given, tmp_path, hub, capsys, name):
    arguments = ("--out", str(tmp_path / "a"), "--budget", "5", "--push", name)
    assert main(given.arguments(*arguments)) == 2
    assert "--push takes hub:owner/name" in capsys.readouterr().err
