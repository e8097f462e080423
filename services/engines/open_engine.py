"""Open the engine that a deployment names."""

from collections.abc import Sequence

from services.core.errors import ArtifactMismatch, ModelUnusable
from services.engines.contract import Engine, EngineKind


async def open_engine(
    kind: EngineKind,
    *,
    model: str,
    adapter: str | None = None,
    urls: Sequence[str] = (),
    recommender: str | None = None,
    recommender_urls: Sequence[str] = (),
    timeout_seconds: float = 120.0,
    patience_seconds: float = 0.0,
) -> Engine:
    """An engine ready to answer.

    `local` and `vllm-in-process` take checkpoint and adapter folders; `vllm` takes the names under
    which the servers at `urls` serve them, or AS_SERVED. Raises ModelUnusable, ArtifactMismatch (an
    adapter trained under other definitions or on another base) or EngineUnavailable, with what to
    change.
    """
    # Imported here, so that a client of vLLM does not load torch.
    if kind == "vllm":
        from services.engines.vllm_client.engine import VllmEngine

        if not urls and not recommender_urls:
            raise ModelUnusable(
                "the vllm engine needs the address of a server: give --url, or set MSR_VLLM_URLS"
            )
        return await VllmEngine.connect(
            urls,
            model=model,
            adapter=adapter,
            recommender=recommender,
            recommender_urls=recommender_urls,
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
        )
    from services.engines.adapter_manifest import require_servable
    from services.engines.checkpoints import manifest_in_use

    manifest = manifest_in_use(model, adapter)
    engine: Engine
    if kind == "local":
        from services.engines.local.engine import LocalEngine

        engine = LocalEngine.load(model, adapter)
    else:
        from services.engines.vllm_offline.engine import VllmOfflineEngine

        engine = VllmOfflineEngine.load(model, adapter)
    if manifest is not None:
        try:
            require_servable(manifest, model=engine.identity.model)
        except ArtifactMismatch:
            await engine.close()
            raise
    return engine
