"""The bodies of the HTTP API: what a request may say and what an answer holds.

The server validates with these models and the clients are typed by them, so this file needs
pydantic and the standard library alone. Requests refuse what they do not know; answers may grow
fields.
Versions count the interactions of a user's history: `history_version` is how many were taken in,
`preference_version` how many of them the written preference covers.
"""

from services.core.wire.adapters import *
from services.core.wire.common import *
from services.core.wire.interactions import *
from services.core.wire.items import *
from services.core.wire.operations import *
from services.core.wire.recommend import *
from services.core.wire.users import *
