"""How a client reaches its server: certificates, a proxy, bounds on the connections."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import trustme

from clients.python import AsyncMsrClient, MsrClient, Retries, ServerUnreachable
from services.core import wire

ONCE = Retries(max_tries=1)


class Answers(BaseHTTPRequestHandler):
    """Answers every request as `GET /version`, and keeps the targets of the requests."""

    targets: list[str] = []

    def do_GET(self) -> None:
        body = wire.VersionResponse(**wire.VersionResponse.model_config["json_schema_extra"]
                                    ["examples"][0]).model_dump_json().encode()  # fmt: skip
        self.targets.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Answers.targets = []
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def authority(server: HTTPServer, tmp_path: Path) -> Path:
    """Makes the server one of TLS that wants a certificate from its clients; a folder of files."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return tmp_path


async def test_both_clients_show_and_check_certificates(
    server: HTTPServer, authority: Path
) -> None:
    url = f"https://127.0.0.1:{server.server_port}"
    files = {"verify": str(authority / "ca.pem"), "cert": str(authority / "client.pem")}
    with MsrClient(url, **files) as client:
        assert client.version().version
    async with AsyncMsrClient(url, **files) as awaited:
        assert (await awaited.version()).version
    for missing in ("verify", "cert"):
        rest = {name: path for name, path in files.items() if name != missing}
        with MsrClient(url, retries=ONCE, **rest) as client, pytest.raises(ServerUnreachable):
            client.version()


def test_a_context_is_taken_as_it_is(server: HTTPServer, authority: Path) -> None:
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    with MsrClient(
        f"https://127.0.0.1:{server.server_port}",
        verify=context,
        cert=str(authority / "client.pem"),
    ) as client:
        assert client.version().version


async def test_both_clients_go_through_a_proxy(server: HTTPServer) -> None:
    proxy = f"http://127.0.0.1:{server.server_port}"
    with MsrClient("http://api.invalid", proxy=proxy) as client:
        assert client.version().version
    async with AsyncMsrClient("http://api.invalid", proxy=httpx.URL(proxy)) as awaited:
        assert (await awaited.version()).version
    assert Answers.targets == ["http://api.invalid/version"] * 2


def test_limits_bound_the_connections(server: HTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    none = httpx.Limits(max_connections=0)
    with (
        MsrClient(url, limits=none, timeout_seconds=0.05, retries=ONCE) as client,
        pytest.raises(ServerUnreachable, match="PoolTimeout"),
    ):
        client.version()
