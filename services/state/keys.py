"""Every Redis key, lifetime and cap; nothing else in the system formats a key.

    msr:{p17}:user:ID        hash     version, revision, folded_version, what was dropped
    msr:{p17}:history:ID     hash     event id -> timestamp and item id
    msr:{p17}:preference:ID  string   written blocks, tail, current preference (encoding.py)
    msr:{p17}:scores:ID      hash     score key -> margin
    msr:{p17}:shown:ID       hash     item recommended in an experiment -> experiment and arm
    msr:{p17}:lease:ID       string   token of the worker that updates this user now
    msr:{p17}:events         stream   users whose history grew
    msr:{p17}:dead           stream   users whose update failed too often, with the reason
    msr:{i05}:item:ID        hash     title, image, version, summary, status, writer
    msr:{i05}:queue          stream   items that wait for their summary
    msr:published            string   fingerprints of the artifacts last published
    msr:texts                hash     what is known of the published texts (texts/)
    msr:rewriter             string   the process that writes texts anew at the moment
    msr:adapters             hash     base model -> which adapters score (adapter_selection.py)
    msr:api-keys             hash     API key id -> name, scopes, limits, digest of its secret
    msr:{kID}:bucket         hash     tokens of one API key, and when they were counted

Users and items are spread over NUM_PARTITIONS hash tags by a stable hash of their id. All keys of
one user share a tag, so a script that touches them runs on one slot of a Redis Cluster.

Guarantee: an interaction takes effect once, however often it is delivered. Its event id is kept as
long as it is in the history, which holds HISTORY_CAP interactions; an interaction older than those
is refused, so a dropped one cannot return. A user without a new interaction for USER_TTL_SECONDS
expires completely, with the event ids.
"""

import hashlib
import zlib

from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import ItemId, UserId

NUM_PARTITIONS = 64

# Interactions kept of one user; older ones are dropped in whole written blocks.
HISTORY_CAP = 3_000
# Times the cap that a history may reach before updating and dropping catch up; more is refused.
HISTORY_SLACK = 2
USER_TTL_SECONDS = 180 * 24 * 3600

SCORES_TTL_SECONDS = 24 * 3600
SCORES_CAP = 2_000

# Lifetime and number of the recommendations that an experiment keeps per user.
SHOWN_TTL_SECONDS = 7 * 24 * 3600
SHOWN_CAP = 500

DEAD_LETTER_CAP = 1_000  # a partition

GROUP = "workers"
PUBLISHED = "msr:published"
TEXTS = "msr:texts"
REWRITER = "msr:rewriter"
ADAPTERS = "msr:adapters"
API_KEYS = "msr:api-keys"

# For SCAN: the counters of every user, and every item.
USER_PATTERN = "msr:{p??}:user:*"
ITEM_PATTERN = "msr:{i??}:item:*"


def partition_of(any_id: str) -> int:
    """The partition, 0 to NUM_PARTITIONS - 1, of a user or item: stable across processes."""
    return zlib.crc32(any_id.encode()) % NUM_PARTITIONS


def user(user_id: UserId) -> str:
    """Counters of one user."""
    return f"{_user_tag(user_id)}:user:{user_id}"


def history(user_id: UserId) -> str:
    """Interactions of one user by event id."""
    return f"{_user_tag(user_id)}:history:{user_id}"


def preference(user_id: UserId) -> str:
    """Preference state of one user."""
    return f"{_user_tag(user_id)}:preference:{user_id}"


def scores(user_id: UserId) -> str:
    """Margins computed for one user."""
    return f"{_user_tag(user_id)}:scores:{user_id}"


def shown(user_id: UserId) -> str:
    """Items recommended to one user by an experiment."""
    return f"{_user_tag(user_id)}:shown:{user_id}"


def lease(user_id: UserId) -> str:
    """Who updates one user at the moment."""
    return f"{_user_tag(user_id)}:lease:{user_id}"


def events(partition: int) -> str:
    """Stream of users to update."""
    return f"msr:{{p{partition:02d}}}:events"


def dead_letters(partition: int) -> str:
    """Stream of users whose update failed too often."""
    return f"msr:{{p{partition:02d}}}:dead"


def item(item_id: ItemId) -> str:
    """One item."""
    return f"msr:{{i{partition_of(item_id):02d}}}:item:{item_id}"


def item_queue(partition: int) -> str:
    """Stream of items to summarize."""
    return f"msr:{{i{partition:02d}}}:queue"


def bucket(key_id: str) -> str:
    """Token bucket of one API key."""
    return f"msr:{{k{key_id}}}:bucket"


def score_key(preference_text: str, item_version: str, adapter: str) -> str:
    """Key of a cached margin, a digest of all its inputs: 24 hex digits."""
    facts = "\x00".join((SCORING_FINGERPRINT, adapter, item_version, preference_text))
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def id_in(key: bytes) -> str:
    """The id that a key of a user or item ends with."""
    return key.split(b":", 3)[3].decode()


def _user_tag(user_id: UserId) -> str:
    return f"msr:{{p{partition_of(user_id):02d}}}"
