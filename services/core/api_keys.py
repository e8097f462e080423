"""API keys: who calls, what they may do, and how often.

The owner sees a key once, as `msr_ID_SECRET`. The server keeps the id and a digest of the secret:

    key, token = issue("shop window", [Scope.READ], now_ms=now_ms)
    key_id, secret = parse(token)
    assert key.is_opened_by(secret)

No scope contains another: a key that may do everything has all three.
"""

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from services.core.errors import InputError

MAX_NAME_CHARS = 100
MIN_RATE = 0.001  # one token in a quarter of an hour; rather than a lower rate, revoke the key
MAX_BURST = 1_000_000

_ID_BYTES = 6
_SECRET_BYTES = 32
_TOKEN = re.compile(r"msr_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Scope(StrEnum):
    """What a key may do: read users, items and rankings; send interactions; change the catalogue
    and forget users.
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the server keeps of a key. `expires_ms` None: never. `rate_per_second` 0: no limit.

    A limited key holds up to `burst` tokens and gains `rate_per_second` of them.
    """

    key_id: str
    name: str
    scopes: frozenset[Scope]
    created_ms: int
    expires_ms: int | None = None
    rate_per_second: float = 0.0
    burst: int = 0
    digest: str = field(default="", repr=False)

    def is_opened_by(self, secret: str) -> bool:
        """Whether this is the key's secret; compared in constant time."""
        return hmac.compare_digest(self.digest, _digest(secret))

    def has_expired(self, now_ms: int) -> bool:
        """Whether the key has expired."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


def issue(
    name: str,
    scopes: Iterable[Scope],
    *,
    now_ms: int,
    expires_ms: int | None = None,
    rate_per_second: float = 0.0,
    burst: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key, and the token for its owner.

    `burst` defaults to the requests of one second, at least 1. InputError for an unusable name,
    time or limit.
    """
    _check_name(name)
    if not (granted := frozenset(scopes)):
        raise InputError(f"API key {name!r}: give it a scope: {', '.join(Scope)}")
    if expires_ms is not None and expires_ms <= now_ms:
        raise InputError(f"API key {name!r}: it would have expired already; give a later time")
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        key_id=key_id,
        name=name,
        scopes=granted,
        created_ms=now_ms,
        expires_ms=expires_ms,
        rate_per_second=rate_per_second,
        burst=_checked_burst(name, rate_per_second, burst),
        digest=_digest(secret),
    )
    return key, f"msr_{key_id}_{secret}"


def parse(token: str) -> tuple[str, str] | None:
    """The id and the secret of a token; None if it is malformed."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found is not None else None


def _digest(secret: str) -> str:
    # One SHA-256, unsalted. Slow, salted hashes (argon2, bcrypt) protect passwords, which can be
    # guessed; 256 random bits cannot, and no two keys share a secret. A slow hash for each request
    # would let a caller with wrong keys keep the processor busy.
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InputError(
            f"an API key's name has 1 to {MAX_NAME_CHARS} printable characters, not {len(name)}"
        )


def _checked_burst(name: str, rate_per_second: float, burst: int | None) -> int:
    if rate_per_second == 0:
        if burst:
            raise InputError(f"API key {name!r}: a burst needs a rate; give both, or neither")
        return 0
    if not (math.isfinite(rate_per_second) and rate_per_second >= MIN_RATE):
        raise InputError(
            f"API key {name!r}: a rate of {rate_per_second} a second; give at least {MIN_RATE}, "
            "or 0 for no limit"
        )
    burst = max(1, min(MAX_BURST, math.ceil(rate_per_second))) if burst is None else burst
    if not 1 <= burst <= MAX_BURST:
        raise InputError(f"API key {name!r}: a burst of {burst}; give 1 to {MAX_BURST:,}")
    return burst
