"""What a real API process says of secrets, in its log, answers and metrics: nothing."""

from pathlib import Path

import httpx
import pytest

from benchmarks.faults.supervised_process import api, ended_after, free_port, redis_server
from benchmarks.faults.world import prepare
from services.core.api_keys import Scope, issue
from services.state.api_keys import ApiKeys
from services.state.user_store import Store

PASSWORD, QUERY = "hunter2-redis", "hunter2-url"
URLS = (
    f"https://user:{QUERY}@allowed.invalid/1.png",
    f"https://other.invalid/1.png?token={QUERY}",
    f"http://allowed.invalid/1.png?token={QUERY}#{QUERY}",  # resolves to nothing
    f"http://127.0.0.1/1.png?token={QUERY}",
    f"http://user:{QUERY}/1.png",
    f"ftp://allowed.invalid/1.png?token={QUERY}",
)


@pytest.mark.slow
async def test_no_secret_stands_in_a_log_an_answer_or_a_metric(tmp_path: Path):
    data, port = await prepare(tmp_path), free_port()
    redis = redis_server(tmp_path, port)
    with ended_after([redis]):
        await redis.start()
        store = await Store.open(f"redis://127.0.0.1:{port}/0")
        key, token = issue("test", list(Scope), now_ms=1)
        await ApiKeys(store.connection).add(key)
        await store.connection.call("CONFIG", "SET", "requirepass", PASSWORD)
        server = api(
            data,
            f"redis://:{PASSWORD}@127.0.0.1:{port}/0",
            tmp_path,
            MSR_REQUIRE_KEYS="1",
            MSR_IMAGE_HOSTS="allowed.invalid,127.0.0.1",
            MSR_LOG_LEVEL="debug",
        )
        with ended_after([server]):
            await server.start()
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(
                base_url=server.said, headers=headers, timeout=120
            ) as http:
                answers = [
                    await http.put("/items", json={"item_id": "i", "title": "t", "image_url": url})
                    for url in URLS
                ]
                answers.append(await http.get(f"/items/i?token={QUERY}"))
                assert (await http.get("/health/ready")).json()["components"]["redis"][
                    "state"
                ] == "ok"
                metrics = await http.get("/metrics")
                await redis.kill()
                answers.append(await http.get("/items/i"))
        log = (tmp_path / "api.log").read_text()

    assert [answer.status_code for answer in answers] == [403, 403, 422, 403, 403, 403, 404, 503]
    assert "request_failed" in log
    _, _, secret = token.split("_", 2)  # which may hold underscores too
    for said in (log, metrics.text, *(answer.text + str(answer.headers) for answer in answers)):
        assert not [each for each in (PASSWORD, QUERY, secret) if each in said]
