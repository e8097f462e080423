"""Who may call: API keys, their scopes and their rates, where the rules ask for keys at all.

A key is read from Redis once every few seconds, not with every request, so a revoked one works for
as long as that. A new one works at once: that a key is unknown is never remembered. Only a key with
a rate costs a request a call to Redis.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.api.monitoring.metrics import Metrics
from services.core.api_keys import ApiKey, Scope, parse
from services.core.errors import AccessError, Forbidden, RateLimited, Unauthenticated
from services.state.api_keys import ApiKeys

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What a deployment asks of its callers."""

    require_keys: bool = False
    open_metrics: bool = False
    # How long a key that was revoked may still work.
    cache_seconds: float = 3.0


class Access:
    """Decides about each request. Every refusal is an AccessError, and counted."""

    def __init__(
        self,
        keys: ApiKeys,
        rules: AccessRules,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`, in seconds, says how old what was read is."""
        self.rules = rules
        self._keys = keys
        self._metrics = metrics
        self._clock = clock
        # By id. As many as there are keys in use: one that is gone is taken out when asked for.
        self._read: dict[str, tuple[ApiKey, float]] = {}

    async def identify(self, authorization: str | None) -> ApiKey:
        """The key that a header `Authorization: Bearer ...` shows.

        Unauthenticated if it shows none that is valid; StateUnavailable if nobody can say.
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
        """Take what a request costs from the key's bucket; RateLimited if it holds too little.

        `num_taken`: what the request took before, and gets back when it is refused. Without a key,
        or with one that has no limit, nothing is taken.
        """
        if key is None or key.rate_per_second == 0 or num_tokens == 0:
            return
        wait_seconds = await self._keys.take_tokens(key, num_tokens, num_taken=num_taken)
        if wait_seconds > 0:
            raise self._refused(
                RateLimited(
                    f"the API key {key.key_id} may make {key.rate_per_second:g} requests a second "
                    f"and {key.burst} at once; the next fits in {wait_seconds:.3f} s",
                    retry_after_seconds=wait_seconds,
                )
            )

    async def _load(self, key_id: str) -> ApiKey | None:
        now = self._clock()
        if key_id in self._read:
            key, read_at = self._read[key_id]
            if now - read_at < self.rules.cache_seconds:
                return key
        found = await self._keys.load(key_id)
        if found is None:
            self._read.pop(key_id, None)
        else:
            # As old as the moment it was asked for: the answer may have been long under way.
            self._read[key_id] = (found, now)
        return found

    def _refused(self, error: AccessError) -> AccessError:
        self._metrics.access_refusals.labels(type(error).__name__).inc()
        return error
