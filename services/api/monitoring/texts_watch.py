"""How much the texts vary that this API serves: for `/health/ready`, the console and a metric.

A model that does not know the catalogue writes one text about everything, and every answer built on
it looks well. Every few seconds the note is read that `msr publish` leaves in Redis. If an older
version published, the artifacts of the data folder are read instead, once for each of them.
"""

import asyncio
from collections.abc import Sequence

import structlog

from services.api.monitoring.metrics import Metrics
from services.core.artifacts import Artifact
from services.core.data_folder.steps import SERVED_PREFERENCES
from services.core.data_folder.text_statistics import TextStatistics
from services.core.errors import ArtifactError, StateError
from services.state.texts.published_texts import PublishedTexts

log = structlog.get_logger(__name__)


class TextsWatch:
    """Holds the statistics of the served texts; `statistics` is empty while none are known."""

    def __init__(self, published: PublishedTexts, metrics: Metrics, data: str | None) -> None:
        """`data`: the data folder, None without one."""
        self.statistics: Sequence[TextStatistics] = ()
        self._published = published
        self._metrics = metrics
        self._data = data
        # Of artifacts without a note in their manifest, by fingerprint: reading them takes a while.
        self._counted: dict[str, TextStatistics] = {}
        self._warned = ""

    @property
    def warning(self) -> str:
        """What is wrong with the texts and what to do; "" if they vary.

        One sentence: preferences are written from summaries, so if both do not vary, the summaries
        are the cause.
        """
        return next((warning for each in self.statistics if (warning := each.warning())), "")

    def describe(self) -> str:
        """The counts in words."""
        return "; ".join(each.describe() for each in self.statistics) or "nothing is known of them"

    async def look(self) -> None:
        """Look once. What cannot be read now leaves what was known before."""
        try:
            found = await self._published.load_statistics()
            if not found and self._data is not None:
                found = await asyncio.to_thread(self._read, self._data)
        except (StateError, ArtifactError, OSError) as error:
            log.debug("texts_not_readable", error=str(error))
            return
        self._use(found)

    def _read(self, data: str) -> list[TextStatistics]:
        """Of the artifacts that `msr publish` would publish."""
        found = []
        for names in (("summaries",), SERVED_PREFERENCES):
            artifact = next((a for name in names if (a := Artifact(data, name)).exists()), None)
            if artifact is None:
                continue
            key = artifact.manifest().fingerprint
            statistics = self._counted.get(key) or artifact.text_statistics()
            if statistics is not None:
                self._counted[key] = statistics
                found.append(statistics)
        return found

    def _use(self, found: Sequence[TextStatistics]) -> None:
        self.statistics = found
        metrics = self._metrics
        metrics.texts_published.clear()
        metrics.texts_most_frequent_share.clear()
        for each in found:
            metrics.texts_published.labels(each.kind).set(each.num_texts)
            metrics.texts_most_frequent_share.labels(each.kind).set(each.most_frequent_share)
        if self.warning and self.warning != self._warned:
            log.warning("texts_do_not_vary", reason=self.warning)
        self._warned = self.warning
