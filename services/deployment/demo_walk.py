"""`msr demo`: prepares and serves the demo world on one machine, and shows one user's update.

Prepares the demo world by the ordinary steps (finished ones are not repeated) and serves it with an
embedded Redis. Then it shows a user's history, preference and top 5, sends three interactions
through the API, and checks that preference and ranking change accordingly.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from clients.python import ClientError, MsrClient
from model_training.demo.attributes import VALUES, Attributes
from model_training.demo.personas import demo_personas
from model_training.demo.sentences import named_values
from model_training.demo.world import IMAGE_SIZE, DemoWorld, read_world, write_files
from model_training.rankers import fit_ranker
from services.batch import build_preferences, prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.data_folder.personas import has_personas, write_personas
from services.core.errors import EmptyDataset
from services.core.recurrence import BLOCK_SIZE
from services.core.wire.interactions import InteractionIn
from services.core.wire.recommend import RecommendResponse
from services.deployment import assemble
from services.deployment.settings import Settings

TOP = 5
# The first requests warm the model up, so the walk does not use the default deadline.
PATIENCE_SECONDS = 60.0


async def run(data: str, *, port: int, once: bool) -> bool:
    """Prepare, serve and walk; then serve until interrupted, unless `once`. Whether it held."""
    # The demo has a Redis of its own: the one in REDIS_URL may hold real users.
    # The walk sends no API key, and only this machine can reach the server.
    own = {"redis_url": None, "state": None, "require_keys": False}
    settings = Settings().model_copy(update=own)
    choice = assemble.choose_engine(data, settings, kind="local", model=None, adapter=None)
    await prepare(data, choice)
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        assemble.serve(
            data,
            choice,
            settings,
            host="127.0.0.1",
            port=port,
            with_worker=True,
            on_listening=listening.set_result,
            stop=stop,
        )
    )
    serving.add_done_callback(lambda ended: listening.cancel())
    try:
        held = await asyncio.to_thread(walk, await listening)
        if not once:
            print(
                f"\nServing until interrupted (Ctrl-C). The console: {listening.result()}/",
                flush=True,
            )
            await stop.wait()
    except ClientError:
        if not stop.is_set():
            raise
        held = False  # interrupted in the middle of the walk
    finally:
        stop.set()
        await serving  # raises why it could not serve
    return held


def open_demo_world(data: str) -> Plain:
    """The demo world as a plain catalogue in the data folder, written there the first time, and
    some of its users as personas.
    """
    folder = Path(data) / "demo-world"
    is_written = (folder / "truth.json").exists()  # written last
    world = read_world(folder) if is_written else write_files(folder)
    if not has_personas(data):
        write_personas(data, demo_personas(world))
    return Plain(folder)


async def prepare(data: str, choice: assemble.EngineChoice) -> None:
    """The offline steps over the demo world."""
    source = open_demo_world(data)
    await asyncio.to_thread(prepare_catalogue.run, source, data=data, image_size=IMAGE_SIZE)
    engine = await choice.open()
    try:
        with _timed("Summaries of all items"):
            await summarize_images.run(data, engine)
        with _timed("Preferences of all users, for serving"):
            await build_preferences.run(data, engine, cut="none")
    finally:
        await engine.close()
    with _timed("The cheap rankers and the weights of their fusion"):
        # Without margins: scoring the candidates of 50 validation users would take longer than all
        # the rest. `msr build-preferences` and `msr fit-ranker` add them, also while it serves.
        await fit_ranker.ensure(data, serving=engine.identity)


# --- the walk ------------------------------------------------------------------------------------


def walk(base_url: str) -> bool:
    """Show one user before and after three interactions; whether every check holds."""
    world = DemoWorld()
    attributes = {item.item_id: item.attributes for item in world.items}
    user_id = world.users[0].user_id
    with MsrClient(base_url, timeout_seconds=2 * PATIENCE_SECONDS) as client:
        first = client.preference(user_id)
        history = [item_id for block in first.timeline for item_id in block.item_ids] + first.tail
        _headline(f"{user_id} took, oldest first")
        _show_items(client, history)
        _headline("The preference, written by the model block after block")
        print(f"  {first.preference}")
        before = client.recommend(user_id, k=TOP, timeout_seconds=PATIENCE_SECONDS)
        _headline(f"Top {TOP} of {len(world.items)} items")
        _show_ranking(client, before)

        palette, style, taken = _new_taste(first.preference, history, attributes)
        _headline(f"Three interactions arrive: {palette} covers in {style} style")
        _show_items(client, taken)
        answer = client.interact(
            *(InteractionIn(user_id=user_id, item_id=item_id) for item_id in taken)
        )
        second = client.wait_for_version(
            user_id, answer.versions[user_id], timeout_seconds=PATIENCE_SECONDS
        )
        _headline("The new preference")
        print(f"  {second.preference}")
        after = client.recommend(user_id, k=TOP, timeout_seconds=PATIENCE_SECONDS)
        _headline(f"The new top {TOP}")
        _show_ranking(client, after)

    def likeness(ranking: RecommendResponse) -> int:
        return sum(
            (attributes[item.item_id].palette == palette)
            + (attributes[item.item_id].style == style)
            for item in ranking.items
        )

    palettes, styles = (named_values(second.preference, each) for each in ("palette", "style"))
    claims = {
        "the model scored every item shown": _scored(before) and _scored(after),
        "all three interactions were accepted": answer.accepted == len(taken),
        f"the new preference names {palette} and {style}": palette in palettes and style in styles,
        f"the new top {TOP} is more {palette} and {style} than the old one": (
            likeness(after) > likeness(before)
        ),
    }
    _headline("Does the walk hold?")
    for claim, holds in claims.items():
        print(f"  {'yes' if holds else 'NO '}  {claim}", flush=True)
    return all(claims.values())


def _new_taste(
    preference: str, history: Sequence[str], attributes: Mapping[str, Attributes]
) -> tuple[str, str, list[str]]:
    """A palette and a style that the preference does not name, and three such items, not taken."""
    for palette, style in product(VALUES["palette"], VALUES["style"]):
        if palette in named_values(preference, "palette") or style in named_values(
            preference, "style"
        ):
            continue
        fitting = [
            item_id
            for item_id, item in attributes.items()
            if (item.palette, item.style) == (palette, style) and item_id not in history
        ]
        if len(fitting) >= BLOCK_SIZE:
            return palette, style, fitting[:BLOCK_SIZE]
    raise EmptyDataset(
        "this user has taken so much of the demo world that nothing new is left; "
        "start over with `make clean demo`"
    )


def _scored(ranking: RecommendResponse) -> bool:
    return len(ranking.items) == TOP and all(item.probability is not None for item in ranking.items)


def _headline(text: str) -> None:
    print(f"\n{text}", flush=True)


def _show_items(client: MsrClient, item_ids: Sequence[str]) -> None:
    for item_id in item_ids:
        item = client.item(item_id)
        print(f"  {item.title:<34} {item.summary}", flush=True)


def _show_ranking(client: MsrClient, ranking: RecommendResponse) -> None:
    for place in ranking.items:
        item = client.item(place.item_id)
        shown = "   -  " if place.probability is None else f"{place.probability:6.1%}"
        print(
            f"  {place.rank}. P(Yes) {shown}  found by {place.source:<10}  {item.title:<34} "
            f"{item.summary}",
            flush=True,
        )


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)
