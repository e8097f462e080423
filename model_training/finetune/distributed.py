"""The rank of this training process, from the environment that `accelerate launch` sets.

Every process reads the same data and trains on its own share of the rows. Only the main process
writes, reports and publishes. Without a launcher there is one process, the main one.
"""

import os


def num_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The rank of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process writes and publishes."""
    return process_index() == 0


def local_device() -> int:
    """The number of this process's GPU on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
