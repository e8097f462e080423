"""Decides which addresses may be fetched from: for a URL, and for every address it resolves to.

A URL must be http or https on an allowed host and on the scheme's own port (an allowed host may
name another: `covers.example:8443`). Every address that a name resolves to must be public: not
private, loopback, link-local, multicast or reserved, however it is written (IPv4 inside IPv6,
integers, octal). `download.py` applies both, before each connection and after each redirect.
"""

import ipaddress
import re
from dataclasses import dataclass

import httpx

from services.core.errors import UrlRefused
from services.core.images import MAX_IMAGE_BYTES

DEFAULT_PORTS = {"http": 80, "https": 443}

# NAT64 (RFC 6052): how an IPv6-only network reaches an IPv4 host; the last 32 bits are that host.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Protocol assignments (RFC 6890): not public, though Python before 3.11.10 calls some global.
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")

# Azure's virtual machines reach the agent of their host here, which gives out their secrets. The
# address is public, but not routed outside of Azure.
_HOST_AGENT = ipaddress.IPv4Address("168.63.129.16")

# C libraries read these as IPv4 addresses although they are no dotted quads, for example 0x7f.1.
_NUMBER_AT_END = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class FetchRules:
    """From which hosts covers are fetched, how large they may be, and how often to retry.

    `allowed_hosts` holds `host` (default ports), `host:port`, or `*.domain` for every host below a
    domain. `timeout_seconds` bounds one attempt from its first to its last byte. `allow_private`
    admits private and loopback addresses: for a server in the same network, and for tests.
    """

    allowed_hosts: tuple[str, ...]
    max_bytes: int = MAX_IMAGE_BYTES
    timeout_seconds: float = 30.0
    allow_private: bool = False
    max_redirects: int = 3
    max_attempts: int = 4
    backoff_seconds: float = 0.5
    max_per_host: int = 8


def check_url(url: str | httpx.URL, rules: FetchRules) -> httpx.URL:
    """The URL as it will be requested, parsed once. UrlRefused if the rules exclude it."""
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
        port = parsed.port
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as error:
        # Without what it quotes: in `http://user:secret/` the port is somebody's password.
        fault = str(error).split(":", 1)[0]
        raise UrlRefused(f"the address is not a URL ({fault}); correct it") from error
    if parsed.scheme not in DEFAULT_PORTS:
        raise UrlRefused(f"{name_url(parsed)} is not http or https; use a web address")
    if parsed.userinfo:
        raise UrlRefused(f"{name_url(parsed)} carries a user name or password; remove it")
    if not host:
        raise UrlRefused(f"{name_url(parsed)} names no host; correct it")
    if _NUMBER_AT_END.search(host) and not _is_ip_address(host):
        raise UrlRefused(f"{name_url(parsed)} writes its address as a number; use the host's name")
    port = port or DEFAULT_PORTS[parsed.scheme]
    if not any(_matches(host, port, entry.lower(), parsed.scheme) for entry in rules.allowed_hosts):
        raise UrlRefused(
            f"{name_url(parsed)} is not on an allowed host; if you trust it, add "
            f"{_with_port(host, port, parsed.scheme)!r} to the allowed hosts"
        )
    return parsed


def check_address(address: str, *, host: str) -> None:
    """UrlRefused unless the IP address is a public one. `host` is for the message."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise UrlRefused(f"host {host} resolves to {address!r}, which is no IP address") from error
    for reached in (parsed, *_embedded(parsed)):
        if not _is_public(reached):
            raise UrlRefused(
                f"host {host} leads to {address}, which is not a public address; covers are "
                "fetched from public hosts only"
            )


def name_url(url: httpx.URL) -> str:
    """A URL for messages: without credentials, query or fragment, which may hold secrets."""
    return f"{url.scheme}://{url.host}{url.path}"[:200]


def _matches(host: str, port: int, entry: str, scheme: str) -> bool:
    allowed_host, colon, allowed_port = entry.rpartition(":")
    if not colon or not allowed_port.isdigit():
        allowed_host, allowed_port = entry, str(DEFAULT_PORTS[scheme])
    if str(port) != allowed_port:
        return False
    if allowed_host.startswith("*."):
        return host.endswith(allowed_host[1:])
    return host == allowed_host.strip("[]")


def _with_port(host: str, port: int, scheme: str) -> str:
    return host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _embedded(address: IpAddress) -> list[IpAddress]:
    """IPv4 addresses that a tunnel or translator extracts from an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[IpAddress | None] = [address.ipv4_mapped, address.sixtofour]
    found += address.teredo or ()
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # the IPv4 address inside is checked
        if address.is_site_local:
            return False
    elif address in _PROTOCOL_ASSIGNMENTS or address == _HOST_AGENT:
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )
