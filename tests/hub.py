"""A server on this machine that speaks the part of the hub's API that an upload needs, with large files by Git LFS."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

USERS = {"writer": "write", "reader": "read"}
"""Role by token."""
OWNER = "owner"
"""The namespace in which they may write."""


@dataclass
class Repository:
    """A repository: its files, which of them are large, messages of its commits, and whether it is private."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)


class Hub:
    """The hub, with what it holds.

    Attributes:
        url: where it listens.
        repositories: repositories by `owner/name`.
        objects: large files by digest.
        card_problem: what it has against every model card; empty for nothing.
        broken: it takes no large files.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.card_problem, self.broken = "", False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                status, content = hub.answer(self.command, self.path.split("?")[0], token, body)
                answer = json.dumps(content).encode()
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - names of http.server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and content of the answer to a request."""
        parts = path.strip("/").split("/")
        if method == "PUT":  # the address of a large file is its own permission
            self.objects[hashlib.sha256(body).hexdigest()] = body
            return (400 if self.broken else 200), {}
        if token not in USERS:
            return 401, {"error": "Invalid username or password."}
        match parts:
            case ["api", "whoami-v2"]:
                return 200, {"name": OWNER, "auth": {"type": "access_token", "accessToken": {"role": USERS[token]}}}
            case ["api", "validate-yaml"]:
                errors = [{"message": self.card_problem}] if self.card_problem else []
                return (400 if errors else 200), {"errors": errors, "warnings": []}
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                if asked["organization"] != OWNER or USERS[token] != "write":
                    return 403, {"error": "You do not have the rights to create a model there."}
                name = f"{asked['organization']}/{asked['name']}"
                known = name in self.repositories
                self.repositories.setdefault(name, Repository(asked.get("visibility") == "private" or asked.get("private", False)))
                return (409 if known else 200), {"url": f"{self.url}/{name}"}
            case ["api", "models", owner, name, *rest]:
                found = self.repositories.get(f"{owner}/{name}")
                return (404, {"error": "Repository not found"}) if found is None else self._repository(found, f"{owner}/{name}", rest, body)
            case [_, _, "info", "lfs", "objects", "batch"]:
                return 200, {"transfer": "basic", "objects": [self._place(each) for each in json.loads(body)["objects"]]}
            case ["verify"]:
                asked = json.loads(body)
                return (200 if len(self.objects.get(asked["oid"], b"")) == asked["size"] else 404), {}
        return 400, {"error": path}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        actions = {"upload": {"href": f"{self.url}/objects/{wanted['oid']}"}, "verify": {"href": f"{self.url}/verify"}}
        return wanted | ({} if wanted["oid"] in self.objects else {"actions": actions})

    def _repository(self, found: Repository, name: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        if not rest:
            siblings = [{"rfilename": each} for each in found.files]
            return 200, {"id": name, "modelId": name, "sha": "0" * 40, "private": found.private, "siblings": siblings, "tags": []}
        if rest[0] == "preupload":
            files = [each["path"] for each in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            return 200, {
                "files": [{"path": path, "uploadMode": mode[path.endswith(".safetensors")], "shouldIgnore": False} for path in files]
            }
        assert rest == ["commit", "main"], rest
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                found.commits.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile", line["key"]
                found.files[value["path"]] = self.objects[value["oid"]]
                found.large.add(value["path"])
        oid = f"{len(found.commits):040x}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}", "hookOutput": ""}
