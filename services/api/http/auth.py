"""Checks API keys, their scopes and their rates, if the rules require keys.

A key is read from Redis every few seconds, not with every request. So a revoked key may work for
`cache_seconds` more. A new key works at once, because unknown keys are not cached. Only keys with a
rate limit cost one call to Redis per request.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.api.monitoring.metrics import Metrics
from services.core.api_keys import ApiKey, Scope, parse
from services.core.errors import AccessError, Forbidden, RateLimited, Unauthenticated
from services.state.api_keys import ApiKeys

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What a deployment requires of its callers."""

    require_keys: bool = False
    open_metrics: bool = False
    # How long a key that was revoked may still work.
    cache_seconds: float = 3.0


@dataclass(eq=False, slots=True)
class Access:
    """Admits or refuses each request. Every refusal is an AccessError and is counted."""

    keys: ApiKeys
    rules: AccessRules
    metrics: Metrics
    # Measures the age of cached keys, in seconds.
    clock: Callable[[], float] = time.monotonic
    # By id. Bounded by the number of keys: a revoked key is removed at its next use.
    read: dict[str, tuple[ApiKey, float]] = field(default_factory=dict, init=False)

    async def identify(self, authorization: str | None) -> ApiKey:
        """The key that a header `Authorization: Bearer ...` shows.

        Unauthenticated if there is no valid one; StateUnavailable if Redis cannot be asked.
        """
        if authorization is None:
            raise self._refused(
                Unauthenticated("send an API key in the header `Authorization: Bearer KEY`")
            )
        bearer = _BEARER.fullmatch(authorization)
        parsed = parse(bearer[1]) if bearer is not None else None
        if parsed is None:
            raise self._refused(
                Unauthenticated(
                    "the header Authorization holds no API key; send `Bearer msr_ID_SECRET`, as "
                    "`msr keys create` printed it"
                )
            )
        key_id, secret = parsed
        key = await self._load(key_id)
        if key is None or not key.is_opened_by(secret):
            raise self._refused(Unauthenticated("the API key is unknown or was revoked"))
        if key.has_expired(time.time_ns() // 1_000_000):
            raise self._refused(
                Unauthenticated(f"the API key {key_id} has expired; ask for another")
            )
        return key

    def require(self, key: ApiKey, scope: Scope) -> None:
        """Forbidden if the key does not have the scope."""
        if scope not in key.scopes:
            raise self._refused(
                Forbidden(f"the API key {key.key_id} lacks the scope `{scope}`, which this needs")
            )

    async def charge(self, key: ApiKey | None, num_tokens: int, *, num_taken: int = 0) -> None:
        """Take a request's tokens from the key's bucket; RateLimited if there are too few.

        `num_taken`: tokens that the request took before; a refusal returns them. Without a key, or
        with a key without a limit, nothing is taken.
        """
        if key is None or key.rate_per_second == 0 or num_tokens == 0:
            return
        wait_seconds = await self.keys.take_tokens(key, num_tokens, num_taken=num_taken)
        if wait_seconds > 0:
            raise self._refused(
                RateLimited(
                    f"the API key {key.key_id} may make {key.rate_per_second:g} requests a second "
                    f"and {key.burst} at once; send the next in {wait_seconds:.3f} s",
                    retry_after_seconds=wait_seconds,
                )
            )

    async def _load(self, key_id: str) -> ApiKey | None:
        now = self.clock()
        if key_id in self.read:
            key, read_at = self.read[key_id]
            if now - read_at < self.rules.cache_seconds:
                return key
        found = await self.keys.load(key_id)
        if found is None:
            self.read.pop(key_id, None)
        else:
            # Its age counts from the moment of the question: the answer may have taken long.
            self.read[key_id] = (found, now)
        return found

    def _refused(self, error: AccessError) -> AccessError:
        self.metrics.access_refusals.labels(type(error).__name__).inc()
        return error
