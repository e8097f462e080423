"""The bounds an application keeps, with defaults that suit a demo on a CPU."""

from dataclasses import dataclass, field

from services.core.images import DEFAULT_IMAGE_SIZE
from services.core.wire.common import MAX_IMAGE_BASE64_CHARS
from services.fetch.rules import FetchRules


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for and what it may cost."""

    # The cascade: candidates sent to the model, the deadline if the request names none, and how
    # many prompts of one request are in the engine at once.
    num_scored: int = 20
    timeout_seconds: float = 10.0
    max_in_flight: int = 64
    # Updates that may wait before interactions are refused, and how often they are counted.
    max_backlog: int = 100_000
    backlog_seconds: float = 0.5
    # How often Redis is asked how it is.
    redis_seconds: float = 5.0
    # How often newly published artifacts are looked for.
    reload_seconds: float = 5.0
    # About 2,000 items with a picture of 336 x 336.
    item_cache_bytes: int = 128 * 1024 * 1024
    # Covers as people see them, resized: some 5 KB each.
    cover_cache_bytes: int = 16 * 1024 * 1024
    # Streams of events: how many at once, how often each looks, when it says that it lives, and
    # after how long the reader is to come back: proxies cut streams too, and by then a key that was
    # revoked reads no more.
    max_streams: int = 200
    stream_poll_seconds: float = 0.15
    stream_silence_seconds: float = 10.0
    stream_seconds: float = 300.0
    max_body_bytes: int = 4 * 1024 * 1024
    max_item_body_bytes: int = MAX_IMAGE_BASE64_CHARS + 256 * 1024
    # The size of the catalogue's prepared pictures (manifest of `items`).
    image_size: int = DEFAULT_IMAGE_SIZE
    # Of large pictures one is decoded at a time whatever this says (core/images.py).
    max_images_at_once: int = 2
    # GET /health/ready asks the engine if its last answer or failure is older than this.
    engine_silence_seconds: float = 30.0
    engine_failure_seconds: float = 2.0
    engine_wait_seconds: float = 2.0
    fetch: FetchRules = field(default_factory=lambda: FetchRules(allowed_hosts=()))
