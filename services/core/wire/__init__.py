"""The bodies of the HTTP API's requests and responses.

The server validates with these models, and the clients use them as types. So this package needs
only pydantic and the standard library. Requests reject unknown fields; responses may get new ones.
Versions count the interactions of a user's history: `history_version` those accepted,
`preference_version` those that the written preference covers.
"""

from services.core.wire.adapters import *
from services.core.wire.common import *
from services.core.wire.interactions import *
from services.core.wire.items import *
from services.core.wire.operations import *
from services.core.wire.recommend import *
from services.core.wire.users import *
