"""How much a worker takes on, how patient it is, and when it gives up."""

from dataclasses import dataclass

from services.core.backoff import growing_pause


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Counts and seconds of one worker.

    A failure that is an item's or user's own counts towards `num_tries`. An engine or Redis that
    does not answer is nobody's own fault and is waited for without end. `max_deliveries` bounds how
    often work may be taken up and vanish with its worker; it is high, because innocent work
    vanishes with it.
    """

    num_users: int = 64
    num_items: int = 16
    num_tries: int = 5
    max_deliveries: int = 25
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    # A killed worker's leases end and its work is claimed after these; a living one renews both.
    lease_seconds: float = 15.0
    claim_after_seconds: float = 20.0
    claim_every_seconds: float = 5.0
    block_seconds: float = 0.5
    # Blocks of a long history written between two saves, so that a killed worker's are not lost.
    blocks_between_saves: int = 4

    def pause_seconds(self, num_tries: int) -> float:
        """How long to wait after the num_tries-th failure in a row."""
        return growing_pause(
            num_tries,
            first_seconds=self.first_pause_seconds,
            longest_seconds=self.longest_pause_seconds,
        )
