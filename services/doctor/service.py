"""Checks the settings, Redis and its clock, and the model servers."""

import asyncio
import difflib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import AliasChoices, ValidationError

from services.core.errors import MsrError
from services.deployment.assemble import EngineChoice, open_store
from services.deployment.settings import Settings
from services.doctor.findings import Finding, note, ok, problem, problem_of
from services.engines.adapter_manifest import MANIFEST, read_adapter_manifest
from services.engines.checkpoints import identify
from services.engines.contract import AS_SERVED, EngineIdentity
from services.engines.models.model_files import load_processor, require_images
from services.engines.prompt_encoding import PromptEncoder
from services.engines.vllm_client.model_list import Weights
from services.engines.vllm_client.server_check import read_models
from services.engines.vllm_client.server_http import (
    AttemptFailed,
    ConnectionLost,
    Send,
    ServerHttp,
    open_session,
    sender,
)
from services.state.embedded_redis.server import server_binary
from services.state.server_info import Server, load_server

# 6.2 added XAUTOCLAIM, with which a worker takes over the work of a killed one.
OLDEST_REDIS = (6, 2)
FULL_MEMORY_SHARE = 0.8
SKEW_SECONDS = 2.0
LARGE_SKEW_SECONDS = 60.0
# Read by the entry point and by `msr bench evaluate-microlens`: neither settings nor options.
_READ_ELSEWHERE = ("MSR_LOG_LEVEL", "MSR_MICROLENS")


# --- settings ------------------------------------------------------------------------------------


def check_settings(
    environment: Mapping[str, str],
    options: Iterable[str],
    error: ValidationError | MsrError | None,
) -> Iterator[Finding]:
    """Is the environment valid, and is every MSR_ variable read?

    `options` are the variables that set options of `msr`; `error` is the error of reading the
    settings, None if they could be read.
    """
    if isinstance(error, MsrError):
        yield problem_of(error)
    elif error is not None:
        for fault in error.errors(include_input=False, include_url=False):
            yield problem(
                f"{_variable('.'.join(map(str, fault['loc'])))} cannot be used: {fault['msg']}.",
                "Correct or unset it; the findings below use the default of every setting.",
            )
    known = {*_setting_names(), *options, *_READ_ELSEWHERE}
    strange = sorted(name for name in environment if name.startswith("MSR_") and name not in known)
    for name in strange:
        near = difflib.get_close_matches(name, known, n=1)
        yield note(
            f"nothing reads the variable {name}.",
            f"Did you mean {near[0]}?"
            if near
            else "Unset it; docs/serving.md lists all variables.",
        )
    if error is None and not strange:
        num_set = sum(name in environment for name in known)
        yield ok(f"{num_set} set in the environment, all valid.")


def _setting_names() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            yield from (str(choice) for choice in alias.choices)
        else:
            yield _variable(name)


def _variable(name: str) -> str:
    return name if name.isupper() else f"MSR_{name.upper()}"


# --- Redis ---------------------------------------------------------------------------------------


def check_redis(data: str, settings: Settings) -> Iterator[Finding]:
    """Can Redis hold the state, does it keep it, and does its clock agree with ours?"""
    if settings.redis_url is None:
        folder = Path(settings.state or Path(data) / "state")
        yield note(
            f"REDIS_URL is unset: an embedded Redis keeps the state in {folder}.",
            "Enough for one machine: every write is on disk. For several machines set REDIS_URL.",
        )
        if not folder.is_dir():
            # Redis is not started, so that a check makes no folder.
            yield ok(f"{server_binary()} will serve it.")
            return
    server, skew_seconds = asyncio.run(_ask_redis(data, settings))
    yield from judge_redis(server)
    yield judge_clock(skew_seconds)


async def _ask_redis(data: str, settings: Settings) -> tuple[Server, float]:
    async with open_store(data, settings) as store:
        before = time.time()
        server = await load_server(store.connection)
        return server, server.time_ms / 1000 - (before + time.time()) / 2


def judge_redis(server: Server) -> Iterator[Finding]:
    """Whether this Redis can hold the state."""
    version = tuple(int(part) for part in re.findall(r"\d+", server.version)[:2])
    if version < OLDEST_REDIS:
        yield problem(
            f"Redis {server.version} lacks commands that the worker needs.", "Use 6.2 or newer."
        )
    else:
        yield ok(f"Redis {server.version} answers.")
    if server.in_cluster:
        yield problem(
            "it is a node of a Redis Cluster, and the client connects to one primary.",
            "Set REDIS_URL to a Redis that is not part of a cluster.",
        )
    if not server.is_primary:
        yield problem("it is a replica, which refuses writes.", "Set REDIS_URL to its primary.")
    yield from _judge_durability(server)
    yield from _judge_memory(server)


def _judge_durability(server: Server) -> Iterator[Finding]:
    if not server.writes_to_disk:
        yield problem("its last write to disk failed.", "See its log; usually the disk is full.")
    if server.appends:
        yield ok("every write goes to its append-only file.")
    else:
        yield note(
            "it has no append-only file: a restart loses everything since the last snapshot.",
            "Set `appendonly yes`; docs/operations.md says what each setting can lose.",
        )


def _judge_memory(server: Server) -> Iterator[Finding]:
    used = f"{server.used_bytes / 2**20:,.0f} MiB used"
    if not server.max_bytes:
        yield ok(f"{used}, and no bound on its memory.")
        return
    share = server.used_bytes / server.max_bytes
    text = f"{used} of {server.max_bytes / 2**20:,.0f} MiB"
    if server.eviction != "noeviction":
        yield problem(
            f"its eviction policy is {server.eviction}: when memory is full, it deletes histories.",
            "Set `maxmemory-policy noeviction`.",
        )
    if share >= FULL_MEMORY_SHARE:
        yield problem(f"{text}.", "Raise maxmemory before Redis refuses writes.")
    else:
        yield ok(f"{text}.")


def judge_clock(skew_seconds: float) -> Finding:
    """Whether Redis and this machine agree on the time; positive: Redis is ahead."""
    size = abs(skew_seconds)
    if size < SKEW_SECONDS:
        return Finding("clock", "ok", "Redis and this machine agree on the time.")
    text = f"the clock of Redis is {size:,.0f} s {'ahead' if skew_seconds > 0 else 'behind'}."
    remedy = (
        "Synchronize both machines with a time server: leases, lags and expiry use these clocks."
    )
    return Finding("clock", "problem" if size >= LARGE_SKEW_SECONDS else "note", text, remedy)


# --- model servers -------------------------------------------------------------------------------


def check_model_servers(data: str, choose: Callable[[], EngineChoice]) -> Iterator[Finding]:
    """Does each server answer, does it have the weights that we would use, and is its adapter the
    one in the data folder, if there is one?
    """
    choice = choose()
    named = choice.settings
    if not choice.on_servers:
        if named.vllm_urls:
            yield note(
                f"servers are named (MSR_VLLM_URLS or --url), but the engine is `{choice.kind}`.",
                "Add `--engine vllm` (MSR_ENGINE=vllm) to use them.",
            )
        else:
            yield ok("none is used: the model runs in this process.")
        return
    if not (named.vllm_urls or named.recommender_urls):
        yield problem(
            "the engine is vllm, but no server is named.",
            "Give --url http://HOST:PORT, or set MSR_VLLM_URLS.",
        )
    merged = named.recommender or AS_SERVED
    found = []
    for purpose, urls, model, adapter in (
        ("texts and scores", named.vllm_urls, choice.model, choice.adapter),
        ("scores of the merged checkpoint", named.recommender_urls, merged, None),
    ):
        seen = asyncio.run(_ask_all(urls, model, adapter))
        replicas = [weights for weights in seen.values() if isinstance(weights, Weights)]
        for url, weights in seen.items():
            yield _finding_of(url, weights, purpose)
        yield from _judge_agreement(replicas)
        yield from _judge_adapter(Path(data) / "adapter", replicas)
        found.append(replicas)
    writers, scorers = found
    if writers and scorers and writers[0].identity.model != scorers[0].identity.model:
        yield problem(
            "the merged checkpoint does not come from the base model that writes the texts.",
            "Serve the base model that the adapter was trained on, or merge it into this one.",
        )


def check_writer(choose: Callable[[], EngineChoice]) -> Iterator[Finding]:
    """Can the writer of preferences be used? Nothing if there is no separate one."""
    choice = choose()
    writer = choice.for_preferences()
    if writer is choice:
        return
    if writer.on_servers:
        seen = asyncio.run(_ask_all(writer.settings.vllm_urls, writer.model, None))
        for url, weights in seen.items():
            if isinstance(weights, Weights):
                yield ok(f"{url} serves {weights.model} to write the preferences.")
            else:
                yield problem_of(weights)
        return
    PromptEncoder(load_processor(writer.model, texts_only=True), texts_only=True)
    yield ok(f"{identify(writer.model).name} writes the preferences, in this process.")


def identify_served(
    choose: Callable[[], EngineChoice],
) -> tuple[EngineIdentity | None, EngineIdentity | None]:
    """The models that would write summaries and preferences; None if no server answers."""
    choice = choose()
    writer, identity = choice.for_preferences(), _identity_of(choice)
    return identity, identity if writer is choice else _identity_of(writer)


def _identity_of(choice: EngineChoice) -> EngineIdentity | None:
    """The model here, or on the first server that answers."""
    if not choice.on_servers:
        if not choice.texts_only:
            require_images(choice.model)
        return identify(choice.model)
    urls = choice.settings.vllm_urls
    seen = asyncio.run(_ask_all(urls, choice.model, choice.adapter)).values()
    return next((weights.identity for weights in seen if isinstance(weights, Weights)), None)


async def _ask_all(
    urls: Sequence[str], model: str, adapter: str | None
) -> dict[str, Weights | MsrError]:
    """The weights of these names at each server, or why there are none."""
    async with open_session() as session:
        send = sender(session)
        answers = await asyncio.gather(*(_ask(url, send, model, adapter) for url in urls))
    return dict(zip(urls, answers, strict=True))


async def _ask(url: str, send: Send, model: str, adapter: str | None) -> Weights | MsrError:
    try:
        http = ServerHttp(url, send)
        return (await read_models(http)).choose(model, adapter)
    except ConnectionLost as lost:
        return MsrError(f"{http.url}: {lost.reason}")
    except AttemptFailed as failure:
        return failure.error
    except MsrError as error:
        return error


def _finding_of(url: str, weights: Weights | MsrError, purpose: str) -> Finding:
    if isinstance(weights, MsrError):
        return problem_of(weights)
    adapter = weights.identity.adapter
    with_adapter = f"with adapter {weights.adapter} " if weights.adapter else ""
    text = f"{url} serves {weights.model} {with_adapter}for {purpose} (weights {adapter or 'base'})"
    if not adapter:
        return note(
            f"{text}: no adapter, so P(Yes) is the base model's.",
            "Start it with `msr serve-model --adapter NAME=DIR` after `msr train`.",
        )
    return ok(f"{text}.")


def _judge_adapter(folder: Path, replicas: Sequence[Weights]) -> Iterator[Finding]:
    """Not for merged checkpoints, whose fingerprint does not show the adapter's."""
    served = {each.identity.adapter for each in replicas if each.adapter}
    if not served or not (folder / MANIFEST).is_file():
        return
    trained = read_adapter_manifest(folder).weights
    if trained not in served:
        yield note(
            f"{folder} holds other weights ({trained}) than the servers ({', '.join(served)}).",
            f"To serve those, start the servers again with `--adapter NAME={folder}`.",
        )


def _judge_agreement(replicas: Sequence[Weights]) -> Iterator[Finding]:
    if len({(each.identity, each.model, each.adapter) for each in replicas}) > 1:
        yield problem(
            "the servers do not serve the same weights.",
            "Start all of them with the same model and adapter: only servers that agree are used.",
        )
