"""What keeps the model's texts and scores from being taken at their word, in health and in answers.

    texts-alike                  the texts do not vary: the model does not know what it describes
    texts-of-another-model       another model than this server's wrote them
    model-of-another-catalogue   the model knows its own catalogue only, and not this one

Each has one sentence, in `/health/ready` and the console; an answer of `POST /recommend` names
those that hold for it. A user who is met with another model's text is put into the queue: a worker
writes this text anew before those of users without traffic.
"""

import asyncio
from collections.abc import Collection, Mapping

import structlog
from cachetools import TTLCache

from services.api.monitoring.texts_watch import TextsWatch
from services.core.artifacts import Artifact
from services.core.data_folder.text_writers import REMEDY, UNKNOWN_ORIGIN, TextWriters
from services.core.errors import ArtifactError, StateError
from services.core.records import UserId
from services.core.wire.recommend import Caveat, Mode
from services.engines.adapter_manifest import AdapterManifest
from services.engines.models.model_card import ModelCard
from services.state.records import UserRecord
from services.state.texts.text_origins import TextNote, TextOrigins
from services.state.user_store import Store

log = structlog.get_logger(__name__)

ACCEPTED = "answers mark them; a worker that is started with --accept-other-texts writes them anew"
# A user is not queued again for so long; a worker needs less.
QUEUED_SECONDS = 60
MAX_QUEUED = 10_000


class TextCaveats:
    """Follows Redis's note on the texts and the catalogue of the data folder; see `look`."""

    def __init__(
        self,
        store: Store,
        watch: TextsWatch,
        own: TextWriters,
        card: ModelCard,
        data: str | None,
        *,
        accepts_others: bool = False,
    ) -> None:
        """`own`: who writes texts in this deployment. `card` is the scoring model's."""
        self._store = store
        self._origins = TextOrigins(store.connection)
        self._watch = watch
        self._own = own
        self._card = card
        self._data = data
        self._accepts_others = accepts_others
        # Of the data folder's items: digests of the files that they come from, and fingerprint.
        self._catalogue: Collection[str] | None = None
        self._items: str | None = None
        self._note: TextNote | None = None
        self._is_unknown = False
        self._queued: TTLCache[UserId, None] = TTLCache(MAX_QUEUED, QUEUED_SECONDS)
        # What holds for this deployment as a whole: what is wrong and, last, what to do.
        self.sentences: Mapping[Caveat, str] = {}

    async def look(self) -> None:
        """Look once. What cannot be read now leaves what was known before."""
        await self._watch.look()
        try:
            self._note = await self._origins.load()
            self._is_unknown = self._note is None and bool(await self._store.load_published())
            if self._data is not None:
                items = await asyncio.to_thread(Artifact(self._data, "items").manifest)
                self._catalogue, self._items = items.inputs.values(), items.fingerprint
        except (StateError, ArtifactError, OSError) as error:
            log.debug("texts_not_readable", error=str(error))
        before, self.sentences = self.sentences, self._what_holds()
        for caveat, sentence in self.sentences.items():
            if caveat not in before and caveat != "texts-alike":  # the watch logs that one
                log.warning("texts_not_to_be_trusted", caveat=caveat, reason=sentence)

    def _what_holds(self) -> dict[Caveat, str]:
        found: dict[Caveat, str] = {}
        if catalogue := self._card.caveat(self._catalogue):
            found["model-of-another-catalogue"] = catalogue
        if other := self._other_model():
            found["texts-of-another-model"] = other
        if alike := self._watch.warning:
            found["texts-alike"] = alike
        return found

    def describe(self) -> str:
        """Who wrote the texts, and how much they vary."""
        if self._note is None:
            return self._watch.describe()
        writers = self._note.writers
        by = f"summaries by {writers.summaries}"
        if writers.preferences is not None:
            by += f", preferences by {writers.preferences}"
        return f"{self._watch.describe()}; {by}"

    def of_answer(self, user: UserRecord, mode: Mode) -> list[Caveat]:
        """Those that hold for a ranking for this user; a cheap one uses neither model nor texts."""
        if mode == "cheap":
            return []
        found = set(self.sentences) - {"texts-of-another-model"}
        if self.is_of_another(user):
            found.add("texts-of-another-model")
        return sorted(found)

    def is_of_another(self, user: UserRecord) -> bool:
        """Whether another model wrote some of this user's texts."""
        assert self._own.preferences is not None
        return user.has_texts_of_others(self._own.preferences.identity)

    def is_foreign(self, adapter: AdapterManifest) -> bool:
        """Whether an adapter was validated on other items than the data folder holds, or on
        preferences of another writer than this deployment's; False if neither is known.
        """
        trained_on, read = adapter.inputs.get("items"), adapter.preferences_by
        assert self._own.preferences is not None
        return (None not in (trained_on, self._items) and trained_on != self._items) or (
            read not in ("", self._own.preferences.identity)
        )

    async def queue_if_due(self, user: UserRecord, *, origin: str) -> None:
        """Ask for an update of a user with texts of another model."""
        if self.is_of_another(user) and user.user_id not in self._queued:
            self._queued[user.user_id] = None
            await self._store.request_updates([user.user_id], origin=origin, anew=True)

    def _other_model(self) -> str:
        if self._note is None:
            return UNKNOWN_ORIGIN if self._is_unknown else ""
        difference, rewriting = self._own.difference(self._note.writers), self._note.rewriting
        if not difference and rewriting is None:
            return ""
        if rewriting is None or self._own.differing(rewriting.writers):
            if not difference and rewriting is not None:
                difference = self._own.difference(rewriting.writers)
            remedy = ACCEPTED if self._accepts_others else REMEDY
            return f"texts of another model: {difference}; {remedy}"
        left = (
            f"{rewriting.num_items_left:,} of {rewriting.num_items:,} items and "
            f"{rewriting.num_users_left:,} of {rewriting.num_users:,} users are left"
        )
        if difference:
            left += f" ({difference})"
        return f"a worker writes texts of another model anew: {left}; until then answers mark them"
