"""API keys as stored, and the token bucket of each.

The keys are few and are the fields of one hash, so that listing, creating and revoking take one
command each, also on Redis Cluster. Each bucket has its own slot, by the key's id.

    keys = ApiKeys(store.connection)
    await keys.add(key)
"""

import json
from dataclasses import asdict
from typing import Any

from services.core.api_keys import ApiKey, Scope
from services.core.errors import StateError
from services.state import keys
from services.state.connection import Connection


class ApiKeys:
    """All API keys, valid or expired; a revoked key is deleted."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def add(self, key: ApiKey) -> None:
        """Store a new key; it is valid at once."""
        await self._connection.call("HSET", keys.API_KEYS, key.key_id, _encode(key))

    async def load(self, key_id: str) -> ApiKey | None:
        """The key, expired or not; None if there is none."""
        reply = await self._connection.call("HGET", keys.API_KEYS, key_id)
        return None if reply is None else _decode(key_id, reply)

    async def load_all(self) -> list[ApiKey]:
        """All keys, oldest first."""
        reply = await self._connection.call("HGETALL", keys.API_KEYS)
        found = [
            _decode(key_id.decode(), value)
            for key_id, value in zip(reply[::2], reply[1::2], strict=True)
        ]
        return sorted(found, key=lambda key: (key.created_ms, key.key_id))

    async def revoke(self, key_id: str) -> bool:
        """Remove a key and its bucket; False if there was none."""
        reply = await self._connection.call("HDEL", keys.API_KEYS, key_id)
        await self._connection.call("DEL", keys.bucket(key_id))
        return bool(reply)

    async def take_tokens(self, key: ApiKey, num_tokens: int, *, num_taken: int = 0) -> float:
        """Take tokens from the bucket of a key with a rate; 0 if there were enough.

        Otherwise returns the seconds until there are enough, and puts back the `num_taken` tokens
        that the same request took before. A request for more than the capacity needs a full bucket.
        """
        wait_ms = await self._connection.run(
            "take_tokens",
            [keys.bucket(key.key_id)],
            [key.rate_per_second, key.burst, num_tokens, num_taken],
        )
        return int(wait_ms) / 1000


def _encode(key: ApiKey) -> str:
    fields = asdict(key) | {"scopes": sorted(key.scopes)}
    del fields["key_id"]  # the name of its field in the hash
    return json.dumps(fields)


def _decode(key_id: str, value: bytes) -> ApiKey:
    try:
        fields: dict[str, Any] = json.loads(value)
        scopes = frozenset(Scope(scope) for scope in fields.pop("scopes"))
        return ApiKey(key_id=key_id, scopes=scopes, **fields)
    except (ValueError, TypeError, KeyError) as error:
        # Without the value: it holds the digest.
        raise StateError(
            f"Redis holds an API key {key_id!r} that cannot be read; it was written by other code: "
            "revoke it and make a new one"
        ) from error
