"""What training shows of titles that strangers wrote."""

from model_training.demo.sentences import parse_preference
from model_training.finetune.hostile_titles import UNCHANGED, HostileTitles
from services.core.records import Item, ItemId

PREFERENCES = ("Likes red colors and a calm mood.", "Likes blue colors.")
ITEMS = [Item(ItemId(f"i{number}"), "Fox with calm words", b"cover") for number in range(400)]


def shown(share: float, seed: int = 1) -> list[Item]:
    titles = HostileTitles(share, PREFERENCES, seed)
    return [titles.in_prompt(item, "Likes stars.") for item in ITEMS]


def test_the_title_stays_and_something_is_added():
    changed = [item.title for item in shown(0.99) if item.title != "Fox with calm words"]
    assert len(changed) > 350
    assert all("Fox with calm words" in title for title in changed)
    assert len(set(changed)) > 300


def test_a_share_of_the_prompts_is_changed_and_nothing_but_titles():
    changed = [item for item in shown(0.3) if item.title != "Fox with calm words"]
    assert 80 < len(changed) < 160
    assert {(item.image, item.item_id in {each.item_id for each in ITEMS}) for item in changed} == {
        (b"cover", True)
    }


def test_what_a_prompt_gets_follows_from_seed_item_and_preference():
    assert shown(0.5) == shown(0.5)
    assert shown(0.5) != shown(0.5, seed=2)
    titles = HostileTitles(0.9, PREFERENCES, 1)
    assert [titles.in_prompt(item, "a") for item in ITEMS] != [
        titles.in_prompt(item, "b") for item in ITEMS
    ]


def test_yes_and_no_are_ordered_alike_often():
    titles = " ".join(item.title.lower() for item in shown(0.99)).split()
    num_yes, num_no = titles.count("yes"), titles.count("no")
    assert num_yes > 40
    assert 0.5 < num_yes / num_no < 2


def test_tastes_of_other_users_are_among_what_is_added():
    assert any(parse_preference(item.title) for item in shown(0.99))


def test_without_a_share_every_title_is_its_own():
    assert all(UNCHANGED.in_prompt(item, "Likes stars.") is item for item in ITEMS)
