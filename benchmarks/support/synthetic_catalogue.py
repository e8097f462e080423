"""Items, users and texts of realistic size, drawn from a seed: what the speed benchmarks work on.

What the words say is of no matter here, only how long they are: a title has about 8 words, a
summary 25, a preference 45 to 60, which is 60 to 90 tokens of the tokenizer in `random_model.py`.
Whatever is drawn under another name is new to every cache.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image

from services.core.images import DEFAULT_IMAGE_SIZE, prepare_image
from services.core.prompts import GenerationLimits, HistoryItem, Messages, preference_messages
from services.core.records import Item, ItemId, UserId
from services.core.recurrence import BLOCK_SIZE
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity

COARSE_SIDE = 42
FIRST_TIMESTAMP_MS = 1_700_000_000_000
ITEMS_A_USER = 12

_VOCABULARY = """
amber ancient antique apron autumn bakery balcony banner barrel basil basket beach beacon bicycle
birch blanket blossom bottle boulder bouquet bracelet branch breeze brick bridge bright bronze brook
brush bucket butterfly button cabin cactus camera candle canoe canvas canyon carpet castle cedar
ceramic chain chalk cherry chestnut chimney cinnamon circle city clay cliff cloud clover coast
cobalt coffee comet copper coral corner cotton courtyard cradle cream crimson crystal curtain
cushion daisy dawn deer denim desert diagonal diamond dragon drawing dusk eagle earth ember emerald
evening fabric falcon feather fern festival field flame flannel flower foam fog forest fountain fox
frame frost garden garland ginger glacier glass globe golden granite grape grass gravel guitar
harbor harvest hazel hearth hill honey horizon indigo island ivory ivy jacket jade jasmine jewel
kettle kitchen lace ladder lagoon lake lantern lavender leather lemon lighthouse lilac linen lion
lotus maple marble market meadow melody mint mirror mist monochrome moon morning mosaic mountain
muted narrow needle night northern oak ocean olive opal orange orchard orchid oval owl paint palace
palm paper pastel path pattern peach pearl pebble pencil pepper petal piano picnic pine plain plum
pocket pond poppy porcelain portrait pottery prairie quiet quilt rain raven reef ribbon ridge river
robin rocket roof rose rough round rustic saddle saffron sail sand sapphire scarf scarlet sepia
shade shadow shell shore silk silver sketch sky slate smoke smooth snow soft southern spark spice
spiral spring square star stone storm stream street striped studio summer sunny swan table tapestry
teapot temple thistle thunder tiger timber topaz tower trail tulip tunnel turquoise twilight
umbrella valley vanilla velvet village vine vintage violet violin walnut warm water wave
weathered wheat willow window winter wooden woven yarn yellow zebra
"""
_WORDS = _VOCABULARY.split()


def draw_title(name: str) -> str:
    """A title of 8 words."""
    return " ".join(Random(f"title {name}").sample(_WORDS, 8)).capitalize()


def draw_summary(name: str) -> str:
    """A sentence of about 25 words on one item."""
    a, b, c, d, e, f, g, h = Random(f"summary {name}").sample(_WORDS, 8)
    return (
        f"The picture shows a {a} {b} beside a {c} {d}, photographed in {e} and {f} colors with "
        f"soft edges, and its mood is {g}, a little {h}."
    )


def draw_preference(name: str) -> str:
    """A text of 45 to 60 words on one user's taste."""
    random = Random(f"preference {name}")
    words = iter(random.sample(_WORDS, 40))
    opening = (
        f"Likes {next(words)} and {next(words)} subjects, above all {next(words)} with "
        f"{next(words)}, in {next(words)} or {next(words)} colors"
    )
    middle = "".join(f", also {next(words)} {next(words)}" for _ in range(random.randint(6, 13)))
    return (
        f"{opening}{middle}; prefers a {next(words)} style and a {next(words)} mood, where before "
        f"{next(words)}, {next(words)} and {next(words)} prevailed."
    )


def draw_cover(name: str) -> bytes:
    """An image that needs no preparing: a JPEG of 336 x 336 pixels, about 40 KB."""
    coarse = Random(f"cover {name}").randbytes(3 * COARSE_SIDE * COARSE_SIDE)
    image = Image.frombytes("RGB", (COARSE_SIDE, COARSE_SIDE), coarse)
    side = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    return prepare_image(_as_png(image.resize(side, Image.Resampling.BICUBIC)))


def draw_items(name: str, num_items: int) -> list[Item]:
    """Items with titles and covers that nothing has seen under another `name`."""
    ids = [f"{name}-{number}" for number in range(num_items)]
    return [Item(ItemId(each), draw_title(each), draw_cover(each)) for each in ids]


def draw_preference_prompts(name: str, num_users: int) -> list[Messages]:
    """What users whose preference is carried one block forward are asked for."""
    prompts = []
    for user in (f"{name}-{number}" for number in range(num_users)):
        ids = [f"{user}-{number}" for number in range(BLOCK_SIZE)]
        block = [HistoryItem(draw_title(each), draw_summary(each)) for each in ids]
        prompts.append(preference_messages(draw_preference(user), block))
    return prompts


def write_plain_catalogue(folder: Path, items: Sequence[Item], users: Sequence[UserId]) -> None:
    """The two tables and the covers that `msr prepare-catalogue --catalogue` reads; one block
    of interactions a user. Items without an image have no cover.
    """
    covers = folder / "covers"
    covers.mkdir(parents=True)
    with (folder / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("item_id", "title", "image"))
        for item in items:
            cover = f"covers/{item.item_id}.jpg" if item.image is not None else ""
            if item.image is not None:
                (folder / cover).write_bytes(item.image)
            rows.writerow((item.item_id, item.title, cover))
    with (folder / "interactions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "item_id", "timestamp_ms"))
        for user_id in users:
            taken = Random(f"history {user_id}").sample(items, BLOCK_SIZE)
            rows.writerows(
                (user_id, item.item_id, FIRST_TIMESTAMP_MS + k) for k, item in enumerate(taken)
            )


def write_microlens(folder: Path, *, num_items: int, num_users: int) -> str:
    """A pairs and a titles file as MicroLens publishes them, without covers; returns the folder.

    Every user has ITEMS_A_USER interactions, so none is cut off by the k-core of MicroLens.
    """
    folder.mkdir(parents=True)
    draw = Random("microlens")
    titles = [(item, draw_title(f"microlens {item}")) for item in range(num_items)]
    pairs = [
        (user, item, FIRST_TIMESTAMP_MS + draw.randrange(10**10))
        for user in range(num_users)
        for item in draw.sample(range(num_items), ITEMS_A_USER)
    ]
    for name, header, rows in (
        ("made-up_titles.csv", ("item", "title"), titles),
        ("made-up_pairs.csv", ("user", "item", "timestamp"), pairs),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return str(folder)


class SyntheticTexts:
    """An engine that writes drawn texts at once: the steps before the one that is measured.

    Every prompt gets a text of its own, in the name of the model that is going to serve.
    """

    num_shortened = 0

    def __init__(self, identity: EngineIdentity) -> None:
        """`identity` is the serving engine's, so that what is written here counts as its own."""
        self.identity = identity

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """A preference-sized text that follows from the prompt alone."""
        return draw_preference(messages[-1].text)

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """Scores are what is measured, so never drawn."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to give back."""


def _as_png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    return encoded.getvalue()
