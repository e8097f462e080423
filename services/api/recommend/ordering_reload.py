"""The ordering in use, replaced without a restart when the offline steps publish a new one.

Every few seconds the manifests of the cheap rankers and of `ranker` are read. If one changed, both
are loaded in a thread and replace the old ones in one assignment. Artifacts that cannot be used
(damaged, or a ranker for other cheap rankers) are refused: the old ordering stays in use, the
reason is logged and shown in `/health/ready`, and they are not tried again until something else is
published. A failure of the disk or the network is reported too, but tried again. So a new
`msr fit-retrieval` takes effect together with the `msr fit-ranker` after it.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.api.monitoring.metrics import Metrics
from services.api.recommend.ordering import Ordering
from services.core.artifacts import Artifact, find_artifacts
from services.core.errors import ArtifactMismatch, ArtifactMissing
from services.engines.contract import EngineIdentity
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.fusion import ADAPTER_RANKER, Ranker

log = structlog.get_logger(__name__)

RETRIEVAL = "retrieval"
# Fitted on whole histories, including the target items that an evaluation holds out.
RETRIEVAL_WHOLE = "retrieval-whole"
RANKER = "ranker"
_OF_ADAPTER = re.compile(rf"{ADAPTER_RANKER}([0-9a-f]{{16}})")


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of the artifacts in the data folder; `ranker` is "" if there is none."""

    retrieval: str
    ranker: str
    # (adapter, fingerprint) of weights that lie beside it, for further adapters.
    for_adapters: tuple[tuple[str, str], ...] = ()
    any_adapter: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PublishedOrdering:
    """The artifacts of a data folder that order candidates, for one engine's margins.

    `any_adapter()`: whether to use weights for other adapters than this engine's too, because the
    adapter was chosen while the API runs.
    """

    data: str
    identity: EngineIdentity
    any_adapter: Callable[[], bool] = lambda: False

    def fingerprints(self) -> Fingerprints:
        """What `load` would load now; ArtifactMissing without cheap rankers."""
        ranker = Artifact(self.data, RANKER)
        return Fingerprints(
            retrieval=Artifact(self.data, self._retrieval()).manifest().fingerprint,
            ranker=ranker.manifest().fingerprint if ranker.exists() else "",
            for_adapters=tuple(
                (adapter, Artifact(self.data, name).manifest().fingerprint)
                for adapter, name in self._beside().items()
            ),
            any_adapter=self.any_adapter(),
        )

    def load(self) -> Ordering:
        """Read all of them. ArtifactMismatch with the remedy if they cannot be used,
        ArtifactMissing if there are none or one was replaced while it was read.
        """
        before = self.fingerprints()
        try:
            ranker = Ranker.load(self.data) if before.ranker else None
            rankers = CheapRankers.load(self.data, self._retrieval())
            found = {
                adapter: Ranker.load(self.data, name) for adapter, name in self._beside().items()
            }
            for_adapters = {
                adapter: each
                for adapter, each in found.items()
                if _weighs_features_of(each, rankers)
            }
            ordering = Ordering.of(
                rankers, ranker, self.identity, for_adapters, any_adapter=self.any_adapter()
            )
        except ArtifactMismatch:
            self._require_still(before)
            raise
        except ArtifactMissing as error:
            self._require_still(before)
            raise ArtifactMismatch(str(error)) from error  # it was not replaced: a file is lost
        self._require_still(before)
        return ordering

    def _require_still(self, before: Fingerprints) -> None:
        if self.fingerprints() != before:
            raise ArtifactMissing(f"rankers in {self.data} were replaced while they were read")

    def _beside(self) -> dict[str, str]:
        """The names of weights for further adapters, by these adapters."""
        names = find_artifacts(self.data, f"{ADAPTER_RANKER}*")
        return {found[1]: name for name in names if (found := _OF_ADAPTER.fullmatch(name))}

    def _retrieval(self) -> str:
        """The rankers of whole histories, unless they were fitted to older interactions."""
        whole, cut = Artifact(self.data, RETRIEVAL_WHOLE), Artifact(self.data, RETRIEVAL)
        if not whole.exists():
            return RETRIEVAL
        if not cut.exists():
            return RETRIEVAL_WHOLE
        made_from = [each.manifest().inputs.get("interactions") for each in (whole, cut)]
        return RETRIEVAL_WHOLE if made_from[0] == made_from[1] else RETRIEVAL


def _weighs_features_of(ranker: Ranker, rankers: CheapRankers) -> bool:
    """Whether these weights fit the cheap rankers; logs and skips those that do not."""
    try:
        ranker.require_retrieval(rankers.definition)
    except ArtifactMismatch as error:
        log.warning("adapter_ranker_skipped", error=str(error))
        return False
    return True


class LiveOrdering:
    """Holds the ordering in use; `current` changes between requests, never within one."""

    def __init__(
        self, ordering: Ordering, metrics: Metrics, source: PublishedOrdering | None
    ) -> None:
        """Without a `source` the ordering never changes.

        `refusal` says why the published artifacts are not in use; "" if they are.
        """
        self.current = ordering
        self.refusal = ""
        self._metrics = metrics
        self._source = source
        self._refused_fingerprints: Fingerprints | None = None
        self._last_used: Fingerprints | None = None
        self._publish_use()

    def by(self, identity: EngineIdentity) -> Ordering:
        """The ordering in use, for margins of this adapter."""
        return self.current.by(identity)

    @property
    def weighs_margins(self) -> bool:
        """Whether there are weights of fusion for the margins of any adapter."""
        ranker = self.current.ranker
        return ranker is not None and ranker.with_margin is not None

    async def look(self) -> None:
        """Look once for newly published artifacts, and load what is new."""
        source = self._source
        if source is None:
            return
        found: Fingerprints | None = None
        try:
            found = await asyncio.to_thread(source.fingerprints)
            if found in (self._in_use(), self._last_used):
                self._refused_fingerprints, self.refusal = None, ""
            elif not self._has_refused(found):
                self._use(await asyncio.to_thread(source.load))
                self._last_used = found
        except ArtifactMissing as error:
            # Newer files replaced them during the read; the next look finds those.
            log.debug("ordering_not_readable", error=str(error))
        except OSError as error:
            self._refuse(None, f"{type(error).__name__}: {error}")
        except Exception as error:  # any fault of what was published: the old one stays
            self._refuse(found, f"{type(error).__name__}: {error}")

    def _has_refused(self, found: Fingerprints) -> bool:
        refused = self._refused_fingerprints
        return found == refused and found.any_adapter == refused.any_adapter

    def _use(self, loaded: Ordering) -> None:
        self.current = loaded
        self._refused_fingerprints, self.refusal = None, ""
        self._metrics.ordering_reloads.labels("loaded").inc()
        self._publish_use()

    def _refuse(self, found: Fingerprints | None, why: str) -> None:
        if (found, why) == (self._refused_fingerprints, self.refusal):
            return  # logged already
        self._refused_fingerprints, self.refusal = found, why
        self._metrics.ordering_reloads.labels("refused").inc()
        log.error("ordering_refused", error=why)

    def _in_use(self) -> Fingerprints:
        ranker = self.current.ranker
        return Fingerprints(
            self.current.rankers.fingerprint,
            ranker.fingerprint if ranker else "",
            tuple(
                sorted(
                    (of, for_adapters.fingerprint)
                    for of, for_adapters in self.current.for_adapters.items()
                )
            ),
        )

    def _publish_use(self) -> None:
        ordering, in_use = self.current, self._in_use()
        self._metrics.ordering_in_use.clear()
        self._metrics.ordering_in_use.labels("retrieval", in_use.retrieval).set(1)
        if in_use.ranker:
            self._metrics.ordering_in_use.labels("ranker", in_use.ranker).set(1)
        log.info(
            "ordering_in_use",
            retrieval=in_use.retrieval,
            ranker=in_use.ranker,
            cheap_order=ordering.cheap_order,
            final_order=ordering.final_order,
        )
