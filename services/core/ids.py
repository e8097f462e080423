"""What an id may be: the caller's own string, within the limits of keys, logs and URLs.

This module imports nothing, so that the HTTP clients share it without the rest of the core.
"""

import hashlib

MAX_ID_CHARS = 256

# No control characters, no Unicode line or paragraph separators. Written so that Python, Rust
# (pydantic) and JSON Schema (ECMAScript) read it alike.
ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"

# Of adapters, arms and experiments: valid in a URL, as a metric's label and as a folder's name.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"


def derive_event_id(user_id: str, item_id: str, timestamp_ms: int) -> str:
    """The event id of an interaction that came without one: the same facts give the same id."""
    facts = f"{user_id}\x00{item_id}\x00{timestamp_ms}"
    return hashlib.sha256(facts.encode()).hexdigest()[:24]
