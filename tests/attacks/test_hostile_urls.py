"""The corpus of `msr bench hostile`: addresses from which nothing may be fetched."""

import pytest

from benchmarks.attacks import url_attack_run, urls
from services.fetch.download import CheckedClient, fetch_image
from services.fetch.rules import FetchRules
from tests.fetch.image_server import Answer, ImageServer, an_image

CORPUS = urls.corpus()


def test_the_corpus_has_60_addresses_of_different_names():
    assert len({hostile.name for hostile in CORPUS}) == len(CORPUS) == 60


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda hostile: hostile.name)
async def test_a_hostile_address_is_refused_and_nobody_inside_is_asked(hostile: urls.HostileUrl):
    async with url_attack_run.network() as network:
        reached = await url_attack_run.try_url(hostile, network)

    assert (reached.num_inside, reached.fetched) == (0, None)
    assert reached.refusal


async def test_without_the_rules_on_addresses_half_of_them_would_reach_what_is_inside():
    async with url_attack_run.network() as network:
        reached = [
            (await url_attack_run.try_url(hostile, network, allow_private=True)).num_inside > 0
            for hostile in CORPUS
        ]

    assert sum(reached) >= 30


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    with (
        ImageServer({"/1.png": Answer(an_image())}) as server,
        ImageServer({}) as proxy,
    ):
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
            monkeypatch.setenv(name.upper(), f"http://{proxy.host}")
        rules = FetchRules((server.host,), allow_private=True)
        async with CheckedClient(rules) as client:
            assert await fetch_image(client, server.url("/1.png"), rules) == an_image()

    assert not proxy.requests
