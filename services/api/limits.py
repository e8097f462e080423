"""The limits of one API process; the defaults suit a demo on a CPU."""

from dataclasses import dataclass, field

from services.core.images import ImageForm
from services.core.wire.common import MAX_IMAGE_BASE64_CHARS
from services.fetch.rules import FetchRules


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests, memory, streams and waiting times."""

    # The cascade: candidates that the model scores, the default deadline, and how many prompts of
    # one request are in the engine at once.
    num_scored: int = 20
    timeout_seconds: float = 10.0
    max_in_flight: int = 64
    # Waiting updates above which interactions are refused, and seconds between two counts.
    max_backlog: int = 100_000
    backlog_seconds: float = 0.5
    # Seconds between two polls of Redis's state.
    redis_seconds: float = 5.0
    # Seconds between two looks for newly published artifacts.
    reload_seconds: float = 5.0
    # Seconds between two looks for a choice of adapters made by another process.
    adapter_poll_seconds: float = 2.0
    # About 2,000 items with an image of 336 x 336.
    item_cache_bytes: int = 128 * 1024 * 1024
    # Resized images for people, about 5 KB each.
    cover_cache_bytes: int = 16 * 1024 * 1024
    # Streams of events: how many at once, seconds between two looks, seconds of silence before a
    # keep-alive, and seconds after which a client has to reconnect (its key is then checked again).
    max_streams: int = 200
    stream_poll_seconds: float = 0.15
    stream_silence_seconds: float = 10.0
    stream_seconds: float = 300.0
    max_body_bytes: int = 4 * 1024 * 1024
    max_item_body_bytes: int = MAX_IMAGE_BASE64_CHARS + 256 * 1024
    # The form of the catalogue's prepared images (manifest of `items`).
    image_form: ImageForm = field(default_factory=ImageForm)
    # Large images are decoded one at a time in any case (core/images.py).
    max_images_at_once: int = 2
    # GET /health/ready probes the engine if its last answer or failure is older than this.
    engine_silence_seconds: float = 30.0
    engine_failure_seconds: float = 2.0
    engine_wait_seconds: float = 2.0
    fetch: FetchRules = field(default_factory=lambda: FetchRules(allowed_hosts=()))
