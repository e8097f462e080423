"""What the client adds is measured against httpx on the same server."""

from benchmarks.service.client import holds, run, table


async def test_either_client_is_compared_with_httpx_alone():
    figures = await run(["--rounds", "2", "--calls", "3"])

    for kind in ("blocking", "asynchronous"):
        assert figures[kind]["client_ms"] > 0
        assert figures[kind]["spread_ms"][0] <= figures[kind]["added_ms"]
    assert len(table(figures).splitlines()) == 4


def test_a_client_that_adds_a_millisecond_does_not_hold():
    measured = {"blocking": {"added_ms": 0.3}, "asynchronous": {"added_ms": 0.4}}

    assert holds(measured)
    assert not holds(measured | {"asynchronous": {"added_ms": 1.0}})
