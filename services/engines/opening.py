"""Open the engine that a deployment names."""

from collections.abc import Sequence
from typing import Literal

from services.core.errors import ModelUnusable
from services.engines.contract import Engine

EngineKind = Literal["local", "vllm"]


async def open_engine(
    kind: EngineKind,
    *,
    model: str,
    adapter: str | None = None,
    urls: Sequence[str] = (),
    timeout_seconds: float = 120.0,
) -> Engine:
    """An engine ready to answer.

    `local` takes checkpoint and adapter folders; `vllm` takes the names under which the server at
    `urls[0]` serves them. Raises ModelUnusable, ArtifactMismatch (an adapter trained under other
    definitions or on another base) or EngineUnavailable, with what to change.
    """
    # Imported here, so that a client of vLLM does not load torch.
    if kind == "local":
        from services.engines.adapters import read_adapter_manifest, require_servable
        from services.engines.local import LocalEngine

        manifest = read_adapter_manifest(adapter) if adapter is not None else None
        engine = LocalEngine.load(model, adapter)
        if manifest is not None:
            require_servable(manifest, model=engine.identity.model)
        return engine
    from services.engines.vllm import VllmEngine

    if not urls:
        raise ModelUnusable("the vllm engine needs the address of a server: set MSR_VLLM_URLS")
    return await VllmEngine.connect(
        urls[0], model=model, adapter=adapter, timeout_seconds=timeout_seconds
    )
