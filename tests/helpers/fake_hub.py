"""A Hugging Face hub on 127.0.0.1, as much of it as pushing and loading a model takes."""
import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Tuple
from urllib.parse import unquote

TOKENS = {'hf_good': 'write', 'hf_read': 'read'}
LARGE = ('.safetensors', '.png')  # what .gitattributes sends to the large file storage


@dataclass
class Repo:
    """A repository: its revisions (hash and files by path) from the first, empty one on."""
    name: str
    private: bool
    revisions: List[Tuple[str, Dict[str, bytes]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit({})

    def commit(self, changed: Dict[str, bytes]) -> None:
        files = {**(self.revisions[-1][1] if self.revisions else {}), **changed}
        self.revisions.append((hashlib.sha1(f'{self.name}{len(self.revisions)}'.encode()).hexdigest(), files))

    @property
    def sha(self) -> str:
        return self.revisions[-1][0]

    @property
    def files(self) -> Dict[str, bytes]:
        return self.revisions[-1][1]


class FakeHub:
    """Serve an unmodified `huggingface_hub` client; `HF_ENDPOINT` is `url`, and `HF_HUB_DISABLE_XET` must be set.

    Attributes:
        repos: By name.
        stored: The large file storage: content by SHA-256.
        cut: Requests (parts of their path) that are dropped without an answer.
        requests: (method, path, JSON lines of the body) of every request so far.
        bodies: The bytes of every request so far.
    """

    def __init__(self) -> None:
        self.repos: Dict[str, Repo] = {}
        self.stored: Dict[str, bytes] = {}
        self.cut: List[str] = []
        self.requests: List[Tuple[str, str, List[Any]]] = []
        self.bodies: List[bytes] = []
        handler = type('Handler', (_Handler,), {'hub': self})
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'

    def add(self, name: str, private: bool = True) -> Repo:
        self.repos[name] = Repo(name, private)
        return self.repos[name]

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
        self.hub.bodies.append(body)
        if any(part in path for part in self.hub.cut):
            return self.close()
        if match := re.fullmatch(r'/storage/([0-9a-f]{64})', path):  # its address is signed: no token
            return self.store(match[1], body)
        token = (self.headers.get('Authorization') or '').removeprefix('Bearer ')
        may = TOKENS.get(token)
        if token and may is None:
            return self.refuse(401, 'Invalid credentials in Authorization header')
        if path == '/api/validate-yaml':
            text = lines[0]['content']
            right = text.startswith('---\n') and 'library_name: timm' in text.split('---')[1]
            errors = [] if right else [{'message': 'no metadata'}]
            return self.answer(200 if right else 400, {'errors': errors, 'warnings': []})
        if path == '/api/repos/create':
            return self.create(lines[0]) if may == 'write' else self.refuse(403, 'Forbidden: token may not write')
        match = (re.fullmatch(r'/api/models/([^/]+/[^/]+)(?:/(preupload|commit|revision)/([^/]+))?', path)
                 or re.fullmatch(r'/([^/]+/[^/]+)\.git/info/lfs/objects/(batch)()', path)
                 or re.fullmatch(r'/([^/]+/[^/]+)/(resolve)/([^/]+/.+)', path))
        if not match:
            return self.answer(404, {'error': f'no such page: {path}'})
        repo, action, rest = self.hub.repos.get(match[1]), match[2] or 'revision', match[3] or 'main'
        if repo is None or (repo.private and may is None):  # a private one is hidden
            return self.answer(404, {'error': 'Repository not found'}, **{'X-Error-Code': 'RepoNotFound'})
        if action in ('preupload', 'commit', 'batch') and may != 'write':
            return self.refuse(403, 'Forbidden: token may not write')
        return getattr(self, action)(repo, rest, lines)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, asked: Dict[str, Any]) -> None:
        name = f'{asked.get("organization") or "me"}/{asked["name"]}'
        exists = name in self.hub.repos
        if not exists:
            self.hub.add(name, asked.get('visibility') == 'private' or asked.get('private') is True)
        self.answer(409 if exists else 200, {'url': f'{self.hub.url}/{name}', 'name': name})

    def at(self, repo: Repo, revision: str) -> Any:
        """Return the files of a revision; None (and answered) where there is none of that name."""
        found = repo.files if revision == 'main' else dict(repo.revisions).get(revision)
        if found is None:
            self.answer(404, {'error': 'Invalid rev id'}, **{'X-Error-Code': 'RevisionNotFound'})
        return found

    def revision(self, repo: Repo, revision: str, lines: List[Any]) -> None:
        files = self.at(repo, revision)
        if files is not None:
            self.answer(200, {'id': repo.name, 'private': repo.private, 'tags': [],
                              'sha': repo.sha if revision == 'main' else revision,
                              'siblings': [{'rfilename': path} for path in files]})

    def preupload(self, repo: Repo, revision: str, lines: List[Any]) -> None:
        def answer(path: str) -> Dict[str, Any]:
            large, there = path.endswith(LARGE), repo.files.get(path)
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else hashlib.sha1(
                b'blob %d\0' % len(there) + there).hexdigest()
            return {'path': path, 'uploadMode': 'lfs' if large else 'regular', 'shouldIgnore': False, 'oid': oid}
        self.answer(200, {'files': [answer(file['path']) for file in lines[0]['files']]})

    def batch(self, repo: Repo, _: str, lines: List[Any]) -> None:
        def answer(asked: Dict[str, Any]) -> Dict[str, Any]:
            upload = {'upload': {'href': f'{self.hub.url}/storage/{asked["oid"]}', 'header': {}}}
            return {**asked, **({} if asked['oid'] in self.hub.stored else {'actions': upload})}
        self.answer(200, {'transfer': 'basic', 'objects': [answer(asked) for asked in lines[0]['objects']]})

    def store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, 'the hash is another one')
        self.hub.stored[oid] = body
        return self.answer(200, {})

    def commit(self, repo: Repo, revision: str, lines: List[Any]) -> None:
        changed: Dict[str, bytes] = {}
        for line in lines:
            value = line['value']
            if line['key'] == 'header' and value.get('parentCommit', repo.sha) != repo.sha:
                return self.refuse(412, 'A commit has happened since')
            if line['key'] == 'file':
                changed[value['path']] = base64.b64decode(value['content'])
            if line['key'] == 'lfsFile':
                if len(self.hub.stored.get(value['oid'], b'')) != value['size']:
                    return self.refuse(400, f'{value["path"]} was not uploaded')
                changed[value['path']] = self.hub.stored[value['oid']]
        repo.commit(changed)
        return self.answer(200, {'success': True, 'commitOid': repo.sha,
                                 'commitUrl': f'{self.hub.url}/{repo.name}/commit/{repo.sha}'})

    def resolve(self, repo: Repo, rest: str, lines: List[Any]) -> None:
        revision, _, path = rest.partition('/')
        files = self.at(repo, revision)
        if files is None:
            return
        if path not in files:
            return self.answer(404, {'error': 'EntryNotFound'}, **{'X-Error-Code': 'EntryNotFound'})
        content = files[path]
        self.answer(200, content, **{'ETag': f'"{hashlib.sha1(content).hexdigest()}"', 'X-Repo-Commit': repo.sha})

    def close(self) -> None:
        self.close_connection = True
        self.connection.close()

    def refuse(self, status: int, why: str) -> None:
        self.answer(status, {'error': why}, **{'X-Error-Message': why})

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
