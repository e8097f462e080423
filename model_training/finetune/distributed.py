"""Which of several training processes this one is, as `accelerate launch` tells it.

Every process reads the same data and trains on rows of its own; the main one alone writes, reports
and publishes. Without a launcher there is one process, and it is the main one.
"""

import os


def num_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The number of this one among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process writes and publishes."""
    return process_index() == 0


def local_device() -> int:
    """The number of the GPU that belongs to this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
