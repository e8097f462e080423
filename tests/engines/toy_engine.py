"""An engine from outside the service: it likes what is red."""

from dataclasses import dataclass

from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity, EngineOptions


@dataclass
class ToyEngine:
    """Implements `contract.Engine`."""

    identity: EngineIdentity
    num_shortened: int = 0

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        return "a red thing"

    async def score(self, messages: Messages) -> AnswerLogprobs:
        is_red = "red" in messages[-1].text
        return AnswerLogprobs(yes=-0.1, no=-2.4) if is_red else AnswerLogprobs(yes=-2.4, no=-0.1)

    async def close(self) -> None:
        pass


async def open_engine(options: EngineOptions) -> ToyEngine:
    return ToyEngine(EngineIdentity(options.model, options.adapter or ""))
