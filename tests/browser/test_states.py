"""What is shown while nothing is there, or something does not answer."""

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.batch import summarize_images
from services.core.api_keys import Scope
from services.core.data_folder.text_statistics import TextStatistics
from services.core.errors import EngineUnavailable
from services.core.images import blank_image
from services.core.records import Item, ItemId
from services.engines.models.model_card import ModelCard
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.texts.published_texts import PublishedTexts
from services.state.user_store import Store
from tests.api.builders import (
    IDENTITY,
    ITEM_IDS,
    WITH_KEYS,
    ScriptedEngine,
    a_token,
    an_app,
    put_catalogue,
    put_user,
)
from tests.artifact_builders import EchoEngine, write_items
from tests.browser.chromium import a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser


async def a_user(store: Store) -> None:
    await put_catalogue(store)
    await put_user(store, "ann", ["i1", "i2", "i3"], preference="Likes foxes.")


def test_an_empty_system_says_what_to_run(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url) as url, a_page(browser, url) as watched:
        page = watched.page
        for view in ("users", "catalogue"):
            page.goto(f"/#/{view}")
            expect(page.locator(".message")).to_contain_text("There is nothing here yet")
            expect(page.locator(".message pre")).to_contain_text("make demo")
        page.goto("/#/work")
        expect(page.locator(".figures")).to_contain_text("0.0 s")
        assert watched.all_faults() == []


def test_a_slow_model_leaves_what_is_there_with_scores_pending(
    browser: Browser, redis_url: str
) -> None:
    engine = ScriptedEngine(stalled=ITEM_IDS)
    world = a_world(redis_url, a_user, lambda store: an_app(store, engine, timeout_seconds=1.0))
    with world as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/users/ann")
        expect(page.locator(".place")).to_have_count(3)
        expect(page.locator(".yes.pending")).to_have_count(3)
        expect(page.locator(".preference .text")).to_have_text("Likes foxes.")
        expect(page.locator(".banner")).to_contain_text("The model was late")
        expect(page.locator(".yes.unscored")).to_have_count(3)
        assert watched.all_faults() == []


def test_a_dead_model_is_reported_and_rankings_are_cheap(browser: Browser, redis_url: str) -> None:
    engine = ScriptedEngine(failure=EngineUnavailable("gone"))
    world = a_world(redis_url, a_user, lambda store: an_app(store, engine))
    with world as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/users/ann")
        expect(page.locator(".banner")).to_contain_text("The model is away")
        expect(page.locator(".place")).to_have_count(3)
        expect(page.locator("#notice")).to_contain_text("The model does not answer")
        page.goto("/#/health")
        expect(page.locator(".component").filter(has_text="Model")).to_contain_text("Degraded")
        assert watched.all_faults() == []


def test_a_dead_redis_is_reported_and_the_page_comes_back_by_itself(
    browser: Browser, tmp_path: Path
) -> None:
    redis = EmbeddedRedis(tmp_path)
    with a_world(redis.start(), a_user) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/users/ann")
        expect(page.locator(".live")).to_have_text("Live")
        redis.stop()
        page.get_by_role("link", name="Catalogue").click()
        expect(page.locator(".message")).to_contain_text("The store is away")
        expect(page.locator("#notice")).to_contain_text("Redis does not answer")
        redis.start()
        expect(page.locator(".item")).to_have_count(6)
        assert watched.all_faults() == []
    redis.stop()


def test_a_key_is_asked_for_kept_in_the_tab_and_shown_with_every_request(
    browser: Browser, redis_url: str
) -> None:
    tokens: dict[str, str] = {}

    async def populate(store: Store) -> None:
        await a_user(store)
        await store.items.put_item(Item(ItemId("i1"), "A fox", blank_image(64)), summary="red")
        tokens["read"] = await a_token(store, Scope.READ)

    world = a_world(redis_url, populate, lambda store: an_app(store, rules=WITH_KEYS))
    with world as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/users/ann")
        give_key(page, "msr_0123456789ab_" + "x" * 43)
        give_key(page, tokens["read"])
        expect(page.locator(".preference .text")).to_have_text("Likes foxes.")
        expect(page.locator(".live")).to_have_text("Live")
        expect(page.locator(".strip img").first).to_have_js_property("naturalWidth", 64)
        page.locator(".take").first.click()
        expect(page.locator(".toast")).to_contain_text("lacks the scope `write`")
        page.goto("/#/adapters")
        expect(page.locator(".message")).to_contain_text("This key may not see that")
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        assert tokens["read"] not in page.url
        assert watched.all_faults() == []


def give_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_server_that_goes_away_is_reported(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url, a_user) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator(".person")).to_have_count(1)
        page.route("**/*", lambda route: route.abort())
        page.get_by_role("link", name="Catalogue").click()
        expect(page.locator(".message")).to_contain_text("The server does not answer")
        page.unroute_all()
        expect(page.locator(".item")).to_have_count(6)


def test_a_user_who_is_forgotten_is_gone_from_the_page(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url, a_user) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/users/ann")
        expect(page.locator(".live")).to_have_text("Live")
        assert page.request.delete(f"{url}/users/ann").ok
        expect(page.locator(".toast")).to_contain_text("forgotten")
        expect(page.locator(".preference")).to_contain_text("Nothing is known yet")
        expect(page.locator(".timeline li")).to_have_count(0)
        assert watched.all_faults() == []


def test_where_no_stream_is_free_the_preference_is_shown_all_the_same(
    browser: Browser, redis_url: str
) -> None:
    world = a_world(redis_url, a_user, lambda store: an_app(store, max_streams=0))
    with world as url, a_page(browser, url) as watched:
        watched.page.goto("/#/users/ann")
        expect(watched.page.locator(".preference .text")).to_have_text("Likes foxes.")
        expect(watched.page.locator(".live")).to_have_text("Reconnecting…")


def test_texts_that_do_not_vary_are_said_calmly_on_every_page(
    browser: Browser, redis_url: str
) -> None:
    gray = TextStatistics("summaries", 633, 50, "A <b>gray</b> tree.", 240)

    async def published(store: Store) -> None:
        await a_user(store)
        await PublishedTexts(store.connection).save_statistics([gray])

    with a_world(redis_url, published) as url, a_page(browser, url) as watched:
        page = watched.page
        for view in ("users", "users/ann", "catalogue", "adapters", "work", "health"):
            page.goto(f"/#/{view}")
            expect(page.locator("#notice p")).to_have_text(f"{gray.warning()}.")
            expect(page.locator("#notice")).to_have_attribute("data-status", "degraded")
        expect(page.locator(".component", has_text="Texts")).to_contain_text("Degraded")
        assert watched.all_faults() == []


def test_a_users_page_says_why_scores_and_texts_are_not_to_be_trusted(
    browser: Browser, redis_url: str
) -> None:
    async def by_another(store: Store) -> None:
        await put_catalogue(store)
        await put_user(store, "ann", ["i1"], preference="foxes", writer="another/prompt")
        await put_user(store, "bob", ["i1"], preference="Likes foxes.")

    toy = ScriptedEngine(identity=replace(IDENTITY, card=ModelCard("Toy", ("ab" * 32,))))
    world = a_world(redis_url, by_another, lambda store: an_app(store, toy))
    with world as url, a_page(browser, url) as watched:
        page, banners = watched.page, watched.page.locator(".recommendations .banner")
        page.goto("/#/users/ann")
        expect(banners).to_contain_text(["The model knows another", "Another model wrote this"])
        expect(page.locator(".preference")).to_contain_text("Another model than this server's")
        page.goto("/#/users/bob")
        expect(page.locator(".preference .text")).to_have_text("Likes foxes.")
        expect(banners).to_have_count(1)
        expect(banners).to_contain_text("The model knows another")
        expect(page.locator(".preference")).not_to_contain_text("Another model")
        assert watched.all_faults() == []


def test_the_work_page_says_how_much_the_texts_vary(
    browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    titles = {f"i{k}": "gray" if k < 30 else f"title {k}" for k in range(60)}
    pictures = {item_id: item_id.encode() for item_id in titles}  # so that each is another item

    async def summarized(store: Store) -> None:
        write_items(str(tmp_path), titles, pictures)
        await summarize_images.run(str(tmp_path), EchoEngine())

    world = a_world(redis_url, summarized, lambda store: an_app(store, data=str(tmp_path)))
    with world as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/work")
        step = page.locator(".step", has_text="summaries")
        expect(step).to_contain_text("31 distinct texts · the most frequent one 50 %")
        expect(step.locator(".banner")).to_contain_text("30 of 60 summaries are the same text")
        assert watched.all_faults() == []
