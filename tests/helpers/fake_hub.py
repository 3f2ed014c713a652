"""A Hugging Face hub on 127.0.0.1, as much of it as pushing and loading a model takes."""
import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Tuple
from urllib.parse import unquote


class FakeHub:
    """Serve an unmodified `huggingface_hub` client; `HF_ENDPOINT` is `url`, and `HF_HUB_DISABLE_XET` must be set.

    Attributes:
        token: The one token that is let in; everything else is answered 401.
        repos: Repository name to {'private': bool, 'files': {path: bytes}, 'commits': int}.
        requests: (method, path, JSON lines of the body) of every request so far.
    """

    def __init__(self, token: str = 'hf_good'):
        self.token = token
        self.repos: Dict[str, Dict[str, Any]] = {}
        self.requests: List[Tuple[str, str, List[Any]]] = []
        handler = type('Handler', (_Handler,), {'hub': self})
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'

    def __enter__(self) -> 'FakeHub':
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = 'HTTP/1.0'  # one request a connection: none outlives the server

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = unquote(self.path.split('?')[0])
        try:
            lines = [json.loads(line) for line in body.splitlines()]
        except ValueError:
            lines = []
        self.hub.requests.append((self.command, path, lines))
        if self.headers.get('Authorization') != f'Bearer {self.hub.token}':
            return self.answer(401, {'error': 'Invalid credentials in Authorization header'},
                               **{'X-Error-Message': 'Invalid credentials in Authorization header'})
        if path == '/api/repos/create':
            return self.create(lines[0])
        if path == '/api/validate-yaml':
            return self.answer(200, {'errors': [], 'warnings': []})
        if match := re.fullmatch(r'/api/models/([^/]+/[^/]+)(?:/(preupload|commit|revision)/[^/]+)?', path):
            name, action = match.groups()
            if name not in self.hub.repos:
                return self.answer(404, {'error': 'Repository not found'}, **{'X-Error-Code': 'RepoNotFound'})
            return getattr(self, action or 'revision')(name, lines)
        if match := re.fullmatch(r'/([^/]+/[^/]+)/resolve/[^/]+/(.+)', path):
            return self.resolve(*match.groups())
        return self.answer(404, {'error': f'no such page: {path}'})

    do_GET = do_HEAD = do_POST = handle_request

    def create(self, asked: Dict[str, Any]) -> None:
        name = f'{asked.get("organization") or "me"}/{asked["name"]}'
        exists = name in self.hub.repos
        private = asked.get('visibility') == 'private' or asked.get('private') is True
        self.hub.repos.setdefault(name, {'private': private, 'files': {}, 'commits': 0})
        self.answer(409 if exists else 200, {'url': f'{self.hub.url}/{name}', 'name': name})

    def revision(self, name: str, lines: List[Any]) -> None:
        repo = self.hub.repos[name]
        self.answer(200, {'id': name, 'private': repo['private'], 'sha': self.commit_hash(name), 'tags': [],
                          'siblings': [{'rfilename': path} for path in repo['files']]})

    def preupload(self, name: str, lines: List[Any]) -> None:
        files = [{'path': f['path'], 'uploadMode': 'regular', 'shouldIgnore': False} for f in lines[0]['files']]
        self.answer(200, {'files': files})

    def commit(self, name: str, lines: List[Any]) -> None:
        for line in lines:
            if line['key'] == 'file':
                self.hub.repos[name]['files'][line['value']['path']] = base64.b64decode(line['value']['content'])
        self.hub.repos[name]['commits'] += 1
        commit = self.commit_hash(name)
        self.answer(200, {'success': True, 'commitOid': commit, 'commitUrl': f'{self.hub.url}/{name}/commit/{commit}'})

    def resolve(self, name: str, path: str) -> None:
        if name not in self.hub.repos or path not in self.hub.repos[name]['files']:
            missing = 'EntryNotFound' if name in self.hub.repos else 'RepoNotFound'
            return self.answer(404, {'error': missing}, **{'X-Error-Code': missing})
        content = self.hub.repos[name]['files'][path]
        self.answer(200, content, **{'ETag': f'"{hashlib.sha1(content).hexdigest()}"',
                                     'X-Repo-Commit': self.commit_hash(name)})

    def commit_hash(self, name: str) -> str:
        return hashlib.sha1(f'{name}{self.hub.repos[name]["commits"]}'.encode()).hexdigest()

    def answer(self, status: int, content, **headers: str) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**headers, 'Content-Length': str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass
