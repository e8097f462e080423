"""An engine is probed when it is opened: a model that cannot answer is refused at once."""

import math
from dataclasses import dataclass, field

import pytest

from services.core.errors import AnswerTokenMissing, EngineRefused, EngineUnavailable, ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity
from services.engines.probe import probe
from services.engines.refusals import NUM_FIRST, StopsIfAllRefused
from tests.engines.conftest import a_prompt

LIMITS = GenerationLimits(5)


@dataclass
class FaultyEngine:
    """Answers as it is told, or raises what it is told, for prompts with an image or for all."""

    error: Exception | None = None
    yes: float = -0.5
    only_with_image: bool = False
    identity: EngineIdentity = field(default_factory=lambda: EngineIdentity("m1", ""))
    num_shortened: int = 0

    def _fail(self, messages: Messages) -> None:
        if self.error and (messages[0].image is not None or not self.only_with_image):
            raise self.error

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        self._fail(messages)
        return "a text"

    async def score(self, messages: Messages) -> AnswerLogprobs:
        self._fail(messages)
        return AnswerLogprobs(yes=self.yes, no=-1.0)

    async def close(self) -> None:
        pass


async def test_a_model_that_answers_passes():
    await probe(FaultyEngine(), "model")


async def test_a_model_that_cannot_take_images_is_refused_with_what_is_supported():
    engine = FaultyEngine(EngineRefused("no images here"), only_with_image=True)

    with pytest.raises(ModelUnusable, match=r"a prompt with an image \(no images here\).*Qwen3-VL"):
        await probe(engine, "some-model")


@pytest.mark.parametrize(
    "engine", [FaultyEngine(yes=math.nan), FaultyEngine(AnswerTokenMissing("no Yes"))]
)
async def test_answers_that_are_no_numbers_are_refused(engine: FaultyEngine):
    with pytest.raises(ModelUnusable, match="some-model does not answer a prompt of text alone"):
        await probe(engine, "some-model")


async def test_a_server_that_is_away_is_no_fault_of_the_model():
    with pytest.raises(EngineUnavailable):
        await probe(FaultyEngine(EngineUnavailable("away")), "some-model")


async def test_a_model_that_refuses_its_first_prompts_ends_the_batch():
    engine = StopsIfAllRefused(FaultyEngine(EngineRefused("too odd")))
    for _ in range(NUM_FIRST - 1):
        with pytest.raises(EngineRefused):
            await engine.generate(a_prompt(), LIMITS)

    with pytest.raises(ModelUnusable, match=r"m1 refused the first 20 prompts.*too odd"):
        await engine.generate(a_prompt(), LIMITS)


async def test_after_one_answer_any_number_may_be_refused():
    faulty = FaultyEngine()
    engine = StopsIfAllRefused(faulty)
    await engine.generate(a_prompt(), LIMITS)
    faulty.error = EngineRefused("too odd")

    for _ in range(2 * NUM_FIRST):
        with pytest.raises(EngineRefused):
            await engine.generate(a_prompt(), LIMITS)
