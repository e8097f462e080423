"""The engines there are, and how a deployment opens the one that it names.

A new engine is one module and one line in ENGINES. The module has

    async def open_engine(options: EngineOptions) -> Engine

and is imported when its engine is opened, so that a client of vLLM does not load torch.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from services.core.errors import InputError
from services.engines.contract import Engine, EngineOptions
from services.engines.probe import probe, probe_writer


@dataclass(frozen=True, slots=True)
class EngineModule:
    """Where an engine is; `on_servers` if the weights are on servers and not in this process,
    `from_checkpoint` if its model can only be a checkpoint folder or a hub name.
    """

    name: str
    on_servers: bool = False
    from_checkpoint: bool = False


# By the engine's kind, which `msr` takes as --engine.
ENGINES = {
    "local": EngineModule("services.engines.local.engine", from_checkpoint=True),
    "vllm": EngineModule("services.engines.vllm_client.engine", on_servers=True),
    "vllm-in-process": EngineModule("services.engines.vllm_offline.engine", from_checkpoint=True),
}


def find_engine(kind: str) -> EngineModule:
    """The line of this kind; InputError if there is none."""
    if kind not in ENGINES:
        raise InputError(f"there is no engine {kind!r}; choose from {', '.join(ENGINES)}")
    return ENGINES[kind]


async def open_engine(kind: str, **options: Any) -> Engine:
    """An engine ready to answer; `options` are the fields of EngineOptions.

    Raises InputError for an unknown kind, ModelUnusable, ArtifactMismatch (an adapter trained under
    other definitions or on another base) or EngineUnavailable, with what to change.
    """
    module = import_module(find_engine(kind).name)
    engine: Engine = await module.open_engine(EngineOptions(**options))
    try:
        probing = probe_writer if options.get("texts_only") else probe
        await probing(engine, str(options["model"]))
    except BaseException:
        await engine.close()
        raise
    return engine
