"""How much a worker does at once, how long it waits, and when it gives up."""

from dataclasses import dataclass

from services.core.backoff import growing_pause


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Counts and seconds of one worker.

    A failure that an item or a user causes counts towards `num_tries`. While the engine or Redis is
    unavailable, the worker waits without limit. `max_deliveries` bounds how often an entry may be
    delivered to workers that die; it is high, because a dying worker takes other entries with it.
    """

    num_users: int = 64
    num_items: int = 16
    num_tries: int = 5
    max_deliveries: int = 25
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    # When a killed worker's leases expire and its work is claimed; a running one renews both.
    lease_seconds: float = 15.0
    claim_after_seconds: float = 20.0
    claim_every_seconds: float = 5.0
    block_seconds: float = 0.5
    # Texts of another model: how often they are looked for, how many are written anew at once (few,
    # so that the work of users with traffic goes first), and when a killed rewriter is replaced.
    look_for_texts_seconds: float = 2.0
    num_rewritten_at_once: int = 8
    rewriter_seconds: float = 30.0
    # Blocks of a long history between two saves: what a killed worker loses at most.
    blocks_between_saves: int = 4

    def pause_seconds(self, num_tries: int) -> float:
        """How long to wait after the num_tries-th failure in a row."""
        return growing_pause(
            num_tries,
            first_seconds=self.first_pause_seconds,
            longest_seconds=self.longest_pause_seconds,
        )
