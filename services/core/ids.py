"""What an id may be: the caller's own string, within what keys, logs and URLs can bear.

Stands alone, so that the HTTP clients can share it without the rest of the core.
"""

MAX_ID_CHARS = 256

# No control characters, no Unicode line or paragraph separators. Written so that Python, Rust
# (pydantic) and JSON Schema (ECMAScript) read it alike.
ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"

# Of adapters, arms and experiments: what can stand in an address, a metric, and name a folder.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
