"""Adapters for the API's tests: the two shipped ones, and an engine on a script that swaps."""

import shutil
from pathlib import Path
from typing import Any

from services.core.errors import EngineError
from services.core.prompts import Messages
from services.core.scoring import AnswerLogprobs
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify_servable
from services.engines.contract import EngineIdentity, Scorer
from tests.api.builders import ScriptedEngine, a_title

SERVED, SFT = DEMO_WEIGHTS / "adapter", DEMO_WEIGHTS / "adapter-sft"
MODEL = "d17f483c8851237f"  # the shipped base, as the manifests name it
SERVED_WEIGHTS, SFT_WEIGHTS = "a26066e9312df0b8", "49b789e816b72db3"
SFT_ITEMS = "f385323bd93efcc5"  # the items that it was trained and validated on


def put_adapter(folder: Path, name: str, source: Path = SFT, **manifest: str) -> Path:
    """An adapter in a registry's folder; texts of its manifest are replaced as given."""
    copied = shutil.copytree(source, folder / name)
    written = (copied / "manifest.json").read_text()
    for before, after in manifest.items():
        assert before in written
        written = written.replace(before, after)
    (copied / "manifest.json").write_text(written)
    return copied


class _Scripted:
    """Answers with one margin for everything but what `by_title` names."""

    def __init__(self, identity: EngineIdentity, margin: float) -> None:
        self.identity = identity
        self.margin = margin
        self.by_title: dict[str, float] = {}
        self.failure: EngineError | None = None
        self.num_asked = 0

    async def score(self, messages: Messages) -> AnswerLogprobs:
        self.num_asked += 1
        if self.failure is not None:
            raise self.failure
        text = messages[0].text
        named = [margin for item, margin in self.by_title.items() if a_title(item) in text]
        return AnswerLogprobs(yes=[*named, self.margin][0] - 1.0, no=-1.0)


class SwappingEngine(ScriptedEngine):
    """Its own adapter is the shipped one, and margins are 0; others answer with `margin`."""

    def __init__(self, *, margin: float = 2.0, **options: Any) -> None:
        super().__init__(identity=EngineIdentity(MODEL, SERVED_WEIGHTS), **options)
        self.margin = margin
        self.load_failure: EngineError | None = None
        self.loaded: dict[str, _Scripted] = {}
        self.num_loads = 0

    async def load_adapter(self, folder: str) -> Scorer:
        if self.load_failure is not None:
            raise self.load_failure
        self.num_loads += 1
        identity = identify_servable(folder, model=MODEL)
        self.loaded[identity.adapter] = _Scripted(identity, self.margin)
        return self.loaded[identity.adapter]

    async def unload_adapter(self, scorer: Scorer) -> None:
        del self.loaded[scorer.identity.adapter]
