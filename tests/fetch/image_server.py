"""A real HTTP server on this machine, which serves images and whatever goes wrong with them."""

import io
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import trustme
from PIL import Image

AUTHORITY = trustme.CA()  # made anew for every test run; no key is kept in the repository


@dataclass(frozen=True)
class Answer:
    """What the server says to one request. `stalls` sends the headers and then nothing."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "image/png"})
    announced_length: int | None = None
    stalls: bool = False


def an_image(color: str = "teal", size: tuple[int, int] = (12, 16), kind: str = "PNG") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, color).save(encoded, kind)
    return encoded.getvalue()


class ImageServer:
    """Use as `with`. `answers` maps a path to its answers in turn; the last one is repeated."""

    def __init__(self, answers: dict[str, Answer | list[Answer]], *, tls: bool = False) -> None:
        self.requests: Counter[str] = Counter()
        self.on_request: Callable[[], None] = lambda: None
        self.most_at_once = 0
        self.answers = {p: a if isinstance(a, list) else [a] for p, a in answers.items()}
        self._at_once = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            AUTHORITY.issue_cert("covers.example").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def __enter__(self) -> "ImageServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _next(self, path: str) -> Answer:
        with self._lock:
            self.requests[path] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            turns = self.answers.get(path, [Answer(status=404)])
            return turns[min(self.requests[path], len(turns)) - 1]

    def _handler(server: "ImageServer") -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer = server._next(self.path)
                try:
                    server.on_request()
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    length = answer.announced_length
                    if "Transfer-Encoding" not in answer.headers:
                        self.send_header("Content-Length", str(length or len(answer.body)))
                    self.end_headers()
                    if answer.stalls:
                        server._over.wait()
                    with server._lock:  # before the client can have the body and ask again
                        server._at_once -= 1
                    self.wfile.write(answer.body)
                    if length is not None:
                        self.close_connection = True
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
