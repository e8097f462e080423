"""60 addresses from which nothing may be fetched, each with how it is disguised.

Of each the host is allowed, where that is what an operator could have been talked into: then only
the rules on addresses stand between an attacker and what is inside. `answers` are what DNS says in
turn (the last one repeated); a name without answers is an address, or is refused before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Hosts of the made-up network: one that passes for public, and one that must never be reached.
PUBLIC, PUBLIC_ADDRESS = "public.example", "93.184.215.14"
INSIDE = "inside.example"


@dataclass(frozen=True, slots=True)
class HostileUrl:
    """One address. `{port}` in it stands for the port of the server that must not be reached.

    `redirects` are where the public host sends whoever asks for `/1`, `/2` and so on.
    """

    name: str
    url: str
    allowed: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...] = ()
    redirects: tuple[str, ...] = ()


def corpus() -> list[HostileUrl]:
    """All of them, in one order."""
    return [*_addresses(), *_resolved(), *_written_otherwise(), *_other_parts(), *_redirects()]


def _addresses() -> Iterator[HostileUrl]:
    """Addresses that are not public, as they are; the operator allowed them by mistake."""
    for name, host in {
        "loopback": "127.0.0.1",
        "elsewhere on loopback": "127.8.9.10",
        "any": "0.0.0.0",
        "private": "10.0.0.7",
        "private, docker": "172.17.0.1",
        "link-local metadata": "169.254.169.254",
        "carrier-grade nat": "100.64.0.1",
        "metadata within carrier-grade nat": "100.100.100.200",
        "metadata of a public look": "168.63.129.16",
        "multicast": "224.0.0.1",
        "broadcast": "255.255.255.255",
        "loopback of ipv6": "[::1]",
        "any of ipv6": "[::]",
        "link-local of ipv6": "[fe80::1]",
        "unique local": "[fc00::1]",
        "unique local metadata": "[fd00:ec2::254]",
        "mapped": "[::ffff:127.0.0.1]",
        "mapped in hexadecimal": "[::ffff:7f00:1]",
        "compatible": "[::127.0.0.1]",
        "nat64": "[64:ff9b::7f00:1]",
        "local nat64": "[64:ff9b:1::7f00:1]",
        "6to4": "[2002:7f00:1::]",
        "teredo": "[2001:0:7f00:1::1]",
        "multicast of ipv6": "[ff02::1]",
    }.items():
        allowed = f"{host.strip('[]')}:{{port}}"
        yield HostileUrl(name, f"http://{host}:{{port}}/1.png", (allowed,))


def _resolved() -> Iterator[HostileUrl]:
    """Names whose DNS answers lead inside."""
    for name, answers in {
        "a name for loopback": (("127.0.0.1",),),
        "a name for metadata": (("169.254.169.254",),),
        "a name for mapped loopback": (("::ffff:127.0.0.1",),),
        "a name for nat64 of a private address": (("64:ff9b::a00:7",),),
        "a name for an address with a zone": (("fe80::1%lo",),),
        "one private address among public ones": ((PUBLIC_ADDRESS, "10.0.0.7"),),
        "an answer that is no address": (("localhost",),),
    }.items():
        yield HostileUrl(name, f"http://{INSIDE}:{{port}}/1.png", (f"{INSIDE}:{{port}}",), answers)
    # The first look-up is public and answers "try again": the second must be judged as well.
    rebinding = ((PUBLIC_ADDRESS,), ("127.0.0.1",))
    yield HostileUrl(
        "rebinding between attempts",
        f"http://{PUBLIC}:{{port}}/busy",
        (f"{PUBLIC}:{{port}}",),
        rebinding,
    )


def _written_otherwise() -> Iterator[HostileUrl]:
    """Loopback in other spellings, which C libraries or browsers read as it."""
    for name, host in {
        "decimal": "2130706433",
        "hexadecimal": "0x7f000001",
        "hexadecimal parts": "0x7f.0x0.0x0.0x1",
        "octal": "0177.0.0.1",
        "octal number": "017700000001",
        "short": "127.1",
        "overflowing": "4294967297",
        "circled digits": "①②⑦.⓪.⓪.①",
        "full-width digits": "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "ideographic full stops": "127\u30020\u30020\u30021",
        "percent-encoded": "%31%32%37.0.0.1",
        "a zone": "[fe80::1%25lo]",
        "a dot at the end": "127.0.0.1.",
        "localhost": "localhost",
        "localhost with a dot": "localhost.",
    }.items():
        yield HostileUrl(
            f"spelled: {name}", f"http://{host}:{{port}}/1.png", (f"{PUBLIC}:{{port}}",)
        )


def _other_parts() -> Iterator[HostileUrl]:
    """Schemes, ports, credentials and characters that do not belong there."""
    inside = "127.0.0.1:{port}"
    for name, url in {
        "another scheme: file": "file:///etc/passwd",
        "another scheme: gopher": f"gopher://{inside}/_GET%20/",
        "another scheme: unix": "unix:///var/run/docker.sock",
        "another port": f"http://{PUBLIC}:6379/1.png",
        "the host as a user name": f"http://{PUBLIC}:{{port}}@{inside}/1.png",
        "the host behind a backslash": f"http://{PUBLIC}:{{port}}\\@{inside}/1.png",
        "credentials": f"http://user:secret@{PUBLIC}:{{port}}/1.png",
        "a line break": f"http://{PUBLIC}:{{port}}/ HTTP/1.1\r\nHost: {inside}\r\n\r\n",
    }.items():
        yield HostileUrl(name, url, (f"{PUBLIC}:{{port}}",), ((PUBLIC_ADDRESS,),))


def _redirects() -> Iterator[HostileUrl]:
    """A public host that sends on whoever asks it."""
    url, allowed = f"http://{PUBLIC}:{{port}}/1", (f"{PUBLIC}:{{port}}", f"{INSIDE}:{{port}}")
    for name, redirects in {
        "redirect to an address": ("http://127.0.0.1:{port}/1.png",),
        "redirect to a name for loopback": (f"http://{INSIDE}:{{port}}/1.png",),
        "redirect to a file": ("file:///etc/passwd",),
        "redirect in circles": ("/1",),
        "redirect after redirect": ("/2", "/3", f"http://{INSIDE}:{{port}}/1.png"),
    }.items():
        yield HostileUrl(name, url, allowed, ((PUBLIC_ADDRESS,),), tuple(redirects))


def dns_answers(answers: Sequence[Sequence[str]], looked_up: int) -> Sequence[str]:
    """What DNS says at the look-up of this number, from 0."""
    return answers[min(looked_up, len(answers) - 1)]
