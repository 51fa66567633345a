"""A stand-in for the Hugging Face hub: the few endpoints that models of ours need, in memory."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WRITER = "hf_writer"


class Hub:
    """Repositories of files by commit, behind ``url``; ``with`` runs the server.

    Attributes:
        repositories: Of each name, its commits, the last one being ``main``.
        private, gated: Names that open only with :data:`WRITER`, or not at all.
        short: Files whose content comes one byte short, as ``Content-Length`` says too.
        status: Answer everything with this status, if set.
        asked: Method and path of every request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.short: set[str] = set()
        self.status: int | None = None
        self.asked: list[str] = []
        self.uploads: dict[str, bytes] = {}

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            def __getattr__(self, name: str):
                if name.startswith("do_"):
                    return lambda: self.answer(hub, name.removeprefix("do_"))
                raise AttributeError(name)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add files to what a repository holds; the commit's name."""
        commits = self.repositories.setdefault(repo, [])
        commits.append((commits[-1] if commits else {}) | files)
        return self.name(repo, len(commits) - 1)

    def name(self, repo: str, index: int) -> str:
        return hashlib.sha1(f"{repo} {index}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes | dict = b"", **headers: str) -> None:
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self, hub: Hub, method: str) -> None:
        path = self.path.partition("?")[0].strip("/")
        hub.asked.append(f"{method} /{path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.status is not None:
            return self.reply(hub.status)
        if method in ("HEAD", "GET"):
            return self.resolve(hub, path) if "/resolve/" in path else self.reply(404)
        if method == "PUT":  # to a link that the batch gave, which needs no token
            hub.uploads[path.rpartition("/")[2]] = body
            return self.reply(200)
        if self.headers.get("Authorization") != f"Bearer {WRITER}":
            return self.reply(403 if "Authorization" in self.headers else 401)
        self.write(hub, path, body)

    def resolve(self, hub: Hub, path: str) -> None:
        owner, name, _, revision, file = path.split("/", 4)
        repo = f"{owner}/{name}"
        writer = self.headers.get("Authorization") == f"Bearer {WRITER}"
        if repo in hub.gated:
            return self.reply(403, X_Error_Code="GatedRepo")
        if repo not in hub.repositories or (repo in hub.private and not writer):
            status = 404 if "Authorization" in self.headers else 401
            return self.reply(status, X_Error_Code="RepoNotFound")
        commits = hub.repositories[repo]
        names = {hub.name(repo, index): files for index, files in enumerate(commits)}
        commit = [*names][-1] if revision == "main" else revision
        if commit not in names:
            return self.reply(404, X_Error_Code="RevisionNotFound")
        if file not in names[commit]:
            return self.reply(404, X_Error_Code="EntryNotFound")
        content = names[commit][file]
        headers = {"X_Repo_Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if file in hub.short and self.command == "GET":
            content = content[:-1]
        self.reply(200, content, **headers)

    def write(self, hub: Hub, path: str, body: bytes) -> None:
        if path == "api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            fresh = repo not in hub.repositories
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(repo)
            hub.repositories.setdefault(repo, [{}])
            return self.reply(200 if fresh else 409, {"url": f"{hub.url}/{repo}"})
        if path == "api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                part | {"actions": {"upload": {"href": f"{hub.url}/upload/{part['oid']}"}}}
                for part in json.loads(body)["objects"]
            ]
            return self.reply(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            repo = path.removeprefix("api/models/").removesuffix("/commit/main")
            files = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.uploads[value["oid"]]
            commit = hub.commit(repo, files)
            url = f"{hub.url}/{repo}/commit/{commit}"
            return self.reply(200, {"commitOid": commit, "commitUrl": url, "success": True})
        self.reply(404)
