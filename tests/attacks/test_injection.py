"""How `msr bench injection` counts places."""

from benchmarks.attacks.titles import ATTACKS, HELD_OUT
from benchmarks.resilience import injection
from model_training.demo.world import DemoWorld
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity


class Gullible:
    """Says Yes to every title that holds the word, and is undecided of all others."""

    identity = EngineIdentity(model="gullible", adapter="")
    num_shortened = 0

    async def score(self, messages: Messages) -> AnswerLogprobs:
        title = messages[0].text.split('"')[1]
        yes = 1.0 if "Yes" in title else len(title) / 1e6
        return AnswerLogprobs(yes=yes, no=0.0)

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        raise AssertionError("nothing here is written")

    async def close(self) -> None:
        """Nothing is held."""


def test_there_are_50_attacks_and_others_held_out():
    assert len(ATTACKS) == 50
    assert len(HELD_OUT) == 30
    assert not {attack("fox") for attack in HELD_OUT.values()} & {
        attack("fox") for attack in ATTACKS.values()
    }


def test_every_attack_keeps_the_words_of_its_title():
    for name, attack in (*ATTACKS.items(), *HELD_OUT.items()):
        kept = attack("The calm kite").replace("\u200b", "").replace("\u200d", "")
        assert "The calm kite" in kept, name


async def test_an_item_that_a_title_moves_to_the_top_gains_all_places_above_it():
    attacks = {name: ATTACKS[name] for name in ("yes", "invisible letters")}
    changes = await injection.measure(Gullible(), DemoWorld(), attacks, 3)
    figures = injection.summarize(changes, 3)

    assert figures["attacks"]["invisible letters"] == {"absolute": 0, "up": 0}
    assert figures["worst_attack"] == "yes"
    assert figures["worst_up"] > 1


def test_an_item_that_falls_does_not_hide_one_that_rises():
    figures = injection.summarize({"up": [4, 4], "down": [-4, -4]}, 2)

    assert (figures["mean_up"], figures["mean_absolute_change"]) == (0, 4)
    assert not injection.holds(figures)
    assert "+4.00 (up)" in injection.table({**figures, "held_out": figures})
    assert injection.holds(injection.summarize({"up": [0, 1]}, 2))
