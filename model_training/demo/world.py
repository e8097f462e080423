"""The demo world: a deterministic catalogue of drawn covers, and users whose taste drifts.

A user has a taste, one value per attribute. At some point of the history one or two attributes move
to another value. Each interaction picks an item with probability

    popularity x product over attributes of P(value | taste),

where palette and style (only in the cover) follow the taste strictly and topic and mood (in the
title) loosely, so that a model with covers ranks much better than one with titles alone.

The demo that ships is `DemoWorld(DEMO_SEED)`. The demo model is trained on other seeds only.
"""

import json
import math
from collections.abc import Sequence
from csv import writer as csv_writer
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from model_training.demo.attributes import ATTRIBUTE_NAMES, VALUES, Attributes
from model_training.demo.covers import draw_cover

DEMO_SEED = 2025
NUM_ITEMS = 480
NUM_USERS = 500
IMAGE_SIZE = 56

# How often a choice keeps the taste's value; otherwise the value is drawn evenly from all.
KEEP_RATES = {"palette": 0.95, "topic": 0.45, "style": 0.95, "mood": 0.45}
HISTORY_LENGTHS = (7, 14)
DRIFT_WITHIN = (0.2, 0.5)  # of the history
POPULARITY_SPREAD = 0.6  # standard deviation of the logarithm
FIRST_TIMESTAMP_MS = 1_672_531_200_000  # 2023-01-01
DAY_MS = 86_400_000

_TITLES = (
    "The {mood} {topic} {where}",
    "A {mood} {topic} {where}",
    "{topic} {where}: a {mood} tale",
    "One {mood} {topic}, {count}",
    "{count}: the {mood} {topic}",
    "My {mood} little {topic} {where}",
    "Good night, {mood} {topic} {where}",
    "The {topic} that felt {mood}, {count}",
    "{mood} {topic} {where}, {count}",
    "Song of a {mood} {topic} {where}",
)
_WHERE = tuple(
    f"{preposition} {place}"
    for preposition, places in {
        "in": ["Lisbon", "Oslo", "Kyoto", "Quito", "Dakar", "winter", "summer", "spring", "autumn"],
        "by": ["the sea", "the river", "the window", "the old bridge", "the market"],
        "at": ["dawn", "noon", "midnight", "the fair", "the border"],
        "of": ["the north", "the south", "Marie", "Omar", "Ingrid", "the valley"],
    }.items()
    for place in places
)
_COUNT = ("part 1", "part 2", "part 3", "volume 4", "chapter 5", "number 6", "take 7", "issue 8")


@dataclass(frozen=True, slots=True)
class DemoItem:
    """One item with its true attributes; the cover is drawn on demand."""

    item_id: str
    title: str
    attributes: Attributes
    cover_seed: int

    def cover_png(self) -> bytes:
        """The cover as a PNG file; the same bytes every time."""
        return draw_cover(self.attributes, Random(self.cover_seed), size=IMAGE_SIZE)


@dataclass(frozen=True, slots=True)
class DemoUser:
    """One user: the taste before and after the drift, and the choices, oldest first."""

    user_id: str
    first_taste: Attributes
    last_taste: Attributes
    drifts_at: int
    choices: tuple[int, ...]
    timestamps_ms: tuple[int, ...]


@dataclass(frozen=True)
class DemoWorld:
    """Everything of one world, from its seed."""

    seed: int = DEMO_SEED
    num_items: int = NUM_ITEMS
    num_users: int = NUM_USERS

    @cached_property
    def items(self) -> tuple[DemoItem, ...]:
        """Items in order of their ids, all titles different."""
        rng = Random(f"items {self.seed}")
        items: list[DemoItem] = []
        titles: set[str] = set()
        for number, attributes in enumerate(_even_combinations(self.num_items, rng)):
            title = draw_title(attributes, rng)
            while title in titles:
                title = draw_title(attributes, rng)
            titles.add(title)
            items.append(DemoItem(f"item-{number:05d}", title, attributes, rng.getrandbits(48)))
        return tuple(items)

    @cached_property
    def popularity(self) -> tuple[float, ...]:
        """A factor for each item by which it is chosen more often."""
        rng = Random(f"popularity {self.seed}")
        return tuple(math.exp(rng.gauss(0, POPULARITY_SPREAD)) for _ in range(self.num_items))

    @cached_property
    def users(self) -> tuple[DemoUser, ...]:
        """Users in order of their ids."""
        rng = Random(f"users {self.seed}")
        return tuple(self._draw_user(f"user-{number:05d}", rng) for number in range(self.num_users))

    def _draw_user(self, user_id: str, rng: Random) -> DemoUser:
        first = draw_taste(rng)
        last = drifted_taste(first, rng)
        length = rng.randint(*HISTORY_LENGTHS)
        drifts_at = round(length * rng.uniform(*DRIFT_WITHIN))
        choices: list[int] = []
        for taste, until in ((first, drifts_at), (last, length)):
            weights = [
                popularity * math.exp(taste_log_odds(taste, item.attributes))
                for popularity, item in zip(self.popularity, self.items, strict=True)
            ]
            for taken in choices:
                weights[taken] = 0.0
            while len(choices) < until:
                choice = rng.choices(range(self.num_items), weights)[0]
                choices.append(choice)
                weights[choice] = 0.0
        time = FIRST_TIMESTAMP_MS + rng.randrange(300 * DAY_MS)
        timestamps = []
        for _ in choices:
            timestamps.append(time)
            time += 60_000 + round(rng.expovariate(1 / (3 * DAY_MS)))
        return DemoUser(user_id, first, last, drifts_at, tuple(choices), tuple(timestamps))


def draw_title(attributes: Attributes, rng: Random) -> str:
    """A title that names the topic and the mood, with words that have no meaning."""
    title = rng.choice(_TITLES).format(
        topic=attributes.topic,
        mood=attributes.mood,
        where=rng.choice(_WHERE),
        count=rng.choice(_COUNT),
    )
    return title[0].upper() + title[1:]


def draw_taste(rng: Random) -> Attributes:
    return Attributes(**{name: rng.choice(values) for name, values in VALUES.items()})


def drifted_taste(taste: Attributes, rng: Random) -> Attributes:
    """The taste with one or two attributes moved to another value."""
    moving = rng.sample(ATTRIBUTE_NAMES, rng.choice((1, 2)))
    values = {name: taste.value_of(name) for name in ATTRIBUTE_NAMES}
    for name in moving:
        values[name] = rng.choice([value for value in VALUES[name] if value != values[name]])
    return Attributes(**values)


def taste_log_odds(taste: Attributes, item: Attributes) -> float:
    """How much likelier a user of this taste takes the item than an item drawn evenly.

    This is the oracle: apart from popularity, no ranking is better.
    """
    log_odds = 0.0
    for name, keep_rate in KEEP_RATES.items():
        likes = taste.value_of(name) == item.value_of(name)
        log_odds += math.log(1 - keep_rate + (keep_rate * len(VALUES[name]) if likes else 0.0))
    return log_odds


def write_files(
    folder: Path, *, seed: int = DEMO_SEED, num_items: int = NUM_ITEMS, num_users: int = NUM_USERS
) -> DemoWorld:
    """Write a world as a plain catalogue: items.csv, interactions.csv, covers/, and truth.json.

    truth.json holds item attributes and user tastes for benchmarks; no step may read it.
    """
    world = DemoWorld(seed, num_items, num_users)
    covers = folder / "covers"
    covers.mkdir(parents=True, exist_ok=True)
    for item in world.items:
        (covers / f"{item.item_id}.png").write_bytes(item.cover_png())
    _write_csv(
        folder / "items.csv",
        ("item_id", "title", "image"),
        [(item.item_id, item.title, f"covers/{item.item_id}.png") for item in world.items],
    )
    _write_csv(
        folder / "interactions.csv",
        ("user_id", "item_id", "timestamp_ms"),
        [
            (user.user_id, world.items[choice].item_id, timestamp_ms)
            for user in world.users
            for choice, timestamp_ms in zip(user.choices, user.timestamps_ms, strict=True)
        ],
    )
    truth = {
        "seed": seed,
        "items": {item.item_id: asdict(item.attributes) for item in world.items},
        "users": {
            user.user_id: {
                "first_taste": asdict(user.first_taste),
                "last_taste": asdict(user.last_taste),
                "drifts_at": user.drifts_at,
            }
            for user in world.users
        },
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return world


def read_world(folder: Path) -> DemoWorld:
    """The world that was written there; its items are drawn when they are first used."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return DemoWorld(truth["seed"], len(truth["items"]), len(truth["users"]))


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv_writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(rows)


def _even_combinations(num_items: int, rng: Random) -> list[Attributes]:
    """Attribute values for all items: palettes and styles crossed evenly, the rest drawn."""
    pairs = [(palette, style) for palette in VALUES["palette"] for style in VALUES["style"]]
    strict = [pairs[number % len(pairs)] for number in range(num_items)]
    rng.shuffle(strict)
    return [
        Attributes(palette, rng.choice(VALUES["topic"]), style, rng.choice(VALUES["mood"]))
        for palette, style in strict
    ]
