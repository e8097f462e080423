"""`msr serve-model`: a vLLM server of a checkpoint and its adapters, up and warm or not at all.

    msr serve-model --model DIR [--adapter NAME=DIR] [--port P] [-- ARGUMENTS FOR VLLM]

Prints the command it runs and, once every model it serves has answered a prompt with an image,
`listening on URL`. vLLM's own output goes to stderr. SIGTERM and SIGINT are passed on; nothing that
was started stays behind.
"""

import asyncio
import contextlib
import io
import signal
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import structlog
from PIL import Image

from services.core.errors import EngineUnavailable
from services.core.images import DEFAULT_IMAGE_SIZE, prepare_image
from services.core.prompts import GenerationLimits, scoring_messages
from services.core.records import Item, ItemId
from services.engines.checkpoints import is_merged
from services.engines.contract import EngineOptions
from services.engines.models.model_files import takes_images
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_server.command import (
    DRAIN_SECONDS,
    Device,
    ServeOptions,
    VllmCommand,
    build_command,
    device_of_this_machine,
    read_json,
)
from services.engines.vllm_server.process_group import ProcessGroup
from services.process.announce import announce, is_loopback
from services.process.http_server import reserved

log = structlog.get_logger(__name__)

_ASK_AGAIN_SECONDS = 0.25
# vLLM's first prompt with an image is slow: a large model is compiled for it.
_WARM_UP_SECONDS = 600.0
# After the time that requests in hand have, for the processes to end.
_END_SECONDS = 20.0


def run(options: ServeOptions, device: Device | None = None) -> int:
    """Serve until a signal ends it. The exit status is 0 after a signal, else vLLM's own or 1.

    The device is this machine's, unless it is named. Raises InputError, ModelUnusable or
    ArtifactMismatch before anything is started, and EngineUnavailable if vLLM is not installed or
    does not come up.
    """
    # The port is kept while vLLM loads, which would say in a traceback that it is taken.
    with contextlib.ExitStack() as kept:
        if options.port == 0 or not options.print_only:
            port = kept.enter_context(
                reserved(options.host, options.port, remedy="--host and --port")
            )
            options = replace(options, port=port)
        command = build_command(options, device or device_of_this_machine())
        if options.print_only:
            print(command)
            return 0
        print(command, file=sys.stderr, flush=True)
        if options.load_adapters_from is not None and not is_loopback(options.host):
            log.warning(
                "adapters_loaded_for_everybody",
                host=options.host,
                remedy="every host that reaches the port may load adapters from the folder: let "
                "only the API reach it",
            )
        return asyncio.run(_serve(options, command))


async def _serve(options: ServeOptions, command: VllmCommand) -> int:
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    group = await ProcessGroup.start(command.arguments, command.environment)
    try:
        ended = asyncio.create_task(group.wait())
        stopped = asyncio.create_task(signals.get())
        up = asyncio.create_task(_wait_until_ready(options))
        await asyncio.wait((ended, stopped, up), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await group.end()
            raise EngineUnavailable(
                f"vLLM ended with status {ended.result()} before it answered: "
                f"{group.failure_reason()}"
            )
        if stopped.done():
            # While it loads, perhaps for minutes, vLLM ignores signals. No request is in hand yet.
            return 0
        up.result()
        announce(_url(options.host, options.port))
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            await _end(group, signals, stopped.result(), ended)
            return 0 if ended.done() else 128 + signal.SIGKILL
        await group.end()
        # vLLM ends with 0 when its engine has died. A supervisor must see a failure.
        log.error("model_server_died", status=ended.result(), reason=group.failure_reason())
        return ended.result() or 1
    finally:
        await group.end()


async def _end(
    group: ProcessGroup, signals: "asyncio.Queue[int]", number: int, ended: "asyncio.Task[int]"
) -> None:
    """Pass the signal on and wait for the end, at most until a second signal or the time is up."""
    group.send(number)
    again = asyncio.create_task(signals.get())
    await asyncio.wait(
        (ended, again), timeout=DRAIN_SECONDS + _END_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    again.cancel()
    if not ended.done():
        log.warning("model_server_killed", reason="it did not end after a signal")


async def _wait_until_ready(options: ServeOptions) -> None:
    """Wait until the server is there and each model it serves has answered."""
    url = _url(options.host, options.port)
    async with httpx.AsyncClient(base_url=url) as http:
        is_healthy = False
        while not is_healthy:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            with contextlib.suppress(httpx.TransportError):
                is_healthy = (await http.get("/health")).is_success
    for adapter in (None, *(name for name, _ in options.adapters)):
        await _warm_up(url, options, adapter)


async def _warm_up(url: str, options: ServeOptions, adapter: str | None) -> None:
    """Ask as a client will; so what no client could use is found here."""
    image = io.BytesIO()
    if not takes_images(options.model):
        await _warm_up_writer(url, options)
        return
    side = _image_side(options.model)
    Image.new("RGB", (side, side), "gray").save(image, "PNG")
    item = Item(ItemId("warm-up"), "warm-up", prepare_image(image.getvalue(), side))
    prompt = scoring_messages("", item)
    engine = await VllmEngine.connect(
        EngineOptions(options.served_name, adapter, urls=[url], timeout_seconds=_WARM_UP_SECONDS)
    )
    try:
        await engine.score(prompt)
        if adapter is None and not is_merged(options.model):
            await engine.generate(prompt, GenerationLimits(max_new_tokens=1))
    finally:
        await engine.close()


async def _warm_up_writer(url: str, options: ServeOptions) -> None:
    engine = await VllmEngine.connect(
        EngineOptions(
            options.served_name, urls=[url], timeout_seconds=_WARM_UP_SECONDS, texts_only=True
        )
    )
    await engine.close()


def _image_side(model: str) -> int:
    """The side in pixels of images that the processor does not enlarge; families have one number
    in their configuration, two, or none.
    """
    vision = read_json(Path(model) / "config.json").get("vision_config", {})
    size = vision.get("image_size", DEFAULT_IMAGE_SIZE)
    own: int = min(size) if isinstance(size, list) else size
    return min(own, DEFAULT_IMAGE_SIZE)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
