"""An engine that keeps what it is asked, and evaluations by it."""

from model_training.evaluation import evaluate
from services.core.errors import EngineUnavailable
from services.core.scoring import AnswerLogprobs, Calibration
from services.core.splits import split_users
from services.engines.contract import EngineIdentity
from tests.model_training.builders import some_histories


class RecordingEngine:
    """Scores by a rule over the messages and keeps them: no real engine shows its prompts."""

    def __init__(
        self,
        margin=lambda messages: 0.0,
        *,
        adapter="a1",
        fail_after=None,
        slope=1.0,
        prior=None,
    ):
        self.identity = EngineIdentity("m1", adapter, Calibration(slope, prior=prior))
        self.num_shortened = 0
        self.asked = []
        self._margin = margin
        self._fail_after = fail_after

    async def score(self, messages):
        if self._fail_after is not None and len(self.asked) >= self._fail_after:
            raise EngineUnavailable("gone")
        self.asked.append(messages[0])
        return AnswerLogprobs(yes=self._margin(messages[0]), no=0.0)


async def ask(data, engine=None, *, models=("mllm",), **options):
    """The evaluation of the multimodal model alone, unless others are named."""
    return await evaluate.run(data, engine or RecordingEngine(), models=models, **options)


def test_users() -> list[str]:
    return [user for user, part in split_users(list(some_histories())).items() if part == "test"]


test_users.__test__ = False  # type: ignore[attr-defined]
