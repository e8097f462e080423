"""The whole road of one family: encode, score, train by three stages, merge, and serve on vLLM."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from transformers import AutoProcessor

from benchmarks.families.checkpoints import FAMILIES, write_checkpoint
from benchmarks.support.msr_process import serving_model
from benchmarks.support.served_model import TIMEOUT_SECONDS
from benchmarks.support.synthetic_catalogue import (
    SyntheticTexts,
    draw_items,
    draw_preference,
    draw_preference_prompts,
    write_plain_catalogue,
)
from model_training.data import build_examples
from model_training.finetune import merge_adapter, train
from model_training.finetune.config import TrainConfig
from services.batch import build_preferences, prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.prompts import Messages, scoring_messages, summary_messages
from services.core.records import Item, ItemId, UserId
from services.core.scoring import answer_margin
from services.engines.checkpoints import identify_model
from services.engines.contract import EngineIdentity, EngineOptions, Scorer
from services.engines.local.engine import LocalEngine
from services.engines.models import families
from services.engines.models.model_files import load_processor, read_config
from services.engines.prompt_encoding import EncodedPrompt, PromptEncoder
from services.engines.rendering import chat_content, prompt_images
from services.engines.vllm_client.chat_requests import tokens_request
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_server.command import device_of_this_machine

BASE, MERGED = "base", "merged"
STAGES = ("sft", "dpo", "rank")
NUM_USERS, NUM_ITEMS, NUM_PROMPTS = 30, 40, 20  # prompts with images
MERGED_WITHIN = 1e-3
_BYTES_PER_VALUE = 2  # keys and values in bfloat16
_SHORT: dict[str, Any] = {
    **{"max_steps": 2, "batch_size": 2, "num_negatives": 1, "rank_negatives": 1},
    **{"lora_rank": 8, "learning_rate": 1e-2, "warmup_fraction": 0.0},
    **{"gradient_checkpointing": False, "max_validation_users": 2},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a family did.

    `ids_equal`: the local engine's and vLLM's token ids are the processor's own.
    `margin_difference`: the largest one between the local engine and vLLM, base and adapter.
    `image_tokens`: of a prepared cover. `kv_bytes_per_item`: their keys and values in bfloat16 in
    a published checkpoint. `note`: what vLLM lacks here. The others: whether this step of the road
    worked, and had an effect. Where vLLM takes no adapters, `adapter_on_vllm` is the merged
    checkpoint.
    """

    ids_equal: bool
    local: bool
    vllm: bool
    margin_difference: float | None
    sft: bool
    dpo: bool
    rank: bool
    adapter_on_vllm: bool
    merge: bool
    image_tokens: int
    kv_bytes_per_item: int
    note: str

    def as_dict(self) -> dict[str, Any]:
        """By field."""
        return asdict(self)


async def prepare_data(folder: Path) -> str:
    """A data folder with covers, preferences and examples; it serves all families."""
    data, catalogue = str(folder / "data"), folder / "catalogue"
    users = [UserId(f"user-{number}") for number in range(NUM_USERS)]
    write_plain_catalogue(catalogue, draw_items("families", NUM_ITEMS), users)
    await asyncio.to_thread(prepare_catalogue.run, Plain(catalogue), data=data)
    texts = SyntheticTexts(EngineIdentity("drawn", ""))
    await summarize_images.run(data, texts)
    await build_preferences.run(data, texts)
    await asyncio.to_thread(build_examples.run, data, num_negatives=2)
    return data


def scored_prompts() -> list[Messages]:
    """Scoring prompts with images of two shapes in turn, and one of text alone."""
    items = draw_items("families", NUM_PROMPTS)
    items[::2] = map(_widened, items[::2])
    items.append(Item(ItemId("bare"), items[0].title, None))
    return [
        scoring_messages(draw_preference(f"user-{number}"), item)
        for number, item in enumerate(items)
    ]


def _widened(item: Item) -> Item:
    """The item with a cover twice as wide as high."""
    assert item.image is not None
    file = BytesIO()
    with Image.open(BytesIO(item.image)) as cover:
        cover.resize((cover.width, cover.height // 2)).save(file, "JPEG")
    return replace(item, image=file.getvalue())


def encoded_prompts() -> list[Messages]:
    """One of each kind of prompt, with and without an image where it can have one."""
    [shown] = draw_items("families", 1)
    bare = Item(ItemId("bare"), shown.title, None)
    asked = [summary_messages(shown), summary_messages(bare)]
    asked += [scoring_messages(draw_preference("user"), item) for item in (shown, bare)]
    return [*asked, *draw_preference_prompts("user", 1)]


async def travel(name: str, data: str, folder: Path) -> Outcome:
    """Take a small checkpoint of the family through every step; errors are those of the steps."""
    base = await asyncio.to_thread(write_checkpoint, name, folder / BASE)
    family = families.FAMILIES[read_config(str(base)).model_type]
    trained, merged = {stage: folder / stage for stage in STAGES}, folder / MERGED
    encoder = PromptEncoder(load_processor(str(base)))
    ids = [_as_list(encoder.encode(messages)) for messages in encoded_prompts()]
    with ExitStack() as servers:
        # Started first: a minute passes until it answers.
        starting = asyncio.create_task(_start_server(servers, family, base))
        try:
            await asyncio.to_thread(_train, base, data, trained)
            await asyncio.to_thread(
                merge_adapter.run, str(base), str(trained["sft"]), str(merged), dtype="float32"
            )
            local = await _margins(LocalEngine.load(str(base)), trained)
            by_merged = await _margins(LocalEngine.load(str(merged)), {})
        finally:
            url = await starting
        on_vllm, vllm_ids = {}, ids
        if url is not None:
            vllm_ids = [_ids_by_vllm(url, messages, encoder) for messages in encoded_prompts()]
            engine = await VllmEngine.connect(EngineOptions(BASE, urls=[url]))
            if engine.identity.model != identify_model(str(base)):
                raise RuntimeError(f"{engine.identity.model} is not {identify_model(str(base))}")
            adapters = {"sft": trained["sft"]} if family.lora_on_vllm else {}
            on_vllm = await _margins(engine, adapters)
            if not family.lora_on_vllm:
                on_vllm["sft"] = await _margins_of_merged(servers, merged)
    num_image_tokens = _num_image_tokens(encoder)
    layers, heads, numbers = FAMILIES[name].published
    processor = AutoProcessor.from_pretrained(str(base))
    its_own = [ids_by_processor(processor, messages) for messages in encoded_prompts()]
    return Outcome(
        ids_equal=vllm_ids == ids == its_own,
        local=_are_different(local[BASE]),
        vllm=bool(on_vllm) and _are_different(on_vllm[BASE]),
        margin_difference=max(
            (_difference(local[scorer], on_vllm[scorer]) for scorer in on_vllm), default=None
        ),
        sft=local["sft"] != local[BASE],
        dpo=local["dpo"] != local["sft"],
        rank=local["rank"] != local["sft"],
        adapter_on_vllm=bool(on_vllm) and on_vllm["sft"] != on_vllm[BASE],
        merge=_difference(by_merged[BASE], local["sft"]) < MERGED_WITHIN,
        image_tokens=num_image_tokens,
        kv_bytes_per_item=2 * layers * heads * numbers * _BYTES_PER_VALUE * num_image_tokens,
        note=_note(family, url),
    )


async def _start_server(servers: ExitStack, family: families.Family, base: Path) -> str | None:
    """Its URL; None where this machine's vLLM does not compute the family."""
    if not family.vllm_on_cpu and device_of_this_machine() == "cpu":
        return None
    options = ("--load-adapters-from", str(base.parent)) if family.lora_on_vllm else ()
    server = serving_model(base, "--name", BASE, *options)
    return await asyncio.to_thread(servers.enter_context, server)


async def _margins_of_merged(servers: ExitStack, merged: Path) -> list[float]:
    server = serving_model(merged, "--name", MERGED)
    url = await asyncio.to_thread(servers.enter_context, server)
    engine = await VllmEngine.connect(EngineOptions(MERGED, urls=[url]))
    return (await _margins(engine, {}))[BASE]


def _note(family: families.Family, url: str | None) -> str:
    if url is None:
        return "not on vLLM's CPU build"
    return "" if family.lora_on_vllm else "adapters merged on vLLM"


def _train(base: Path, data: str, trained: Mapping[str, Path]) -> None:
    """Two steps of each stage; the later ones start from the first one's adapter."""
    for stage, output in trained.items():
        train.run(
            data,
            TrainConfig(base_model=str(base), precision="float32", **_SHORT),
            stage=stage,
            start_adapter=None if stage == "sft" else str(trained["sft"]),
            output=str(output),
        )


async def _margins(
    engine: LocalEngine | VllmEngine, adapters: Mapping[str, Path]
) -> dict[str, list[float]]:
    """The margins of all scoring prompts by BASE and by each adapter; the engine is closed."""
    try:
        scorers: dict[str, Scorer] = {BASE: engine}
        for name, adapter in adapters.items():
            scorers[name] = await engine.load_adapter(str(adapter))
        return {name: await _score(scorer) for name, scorer in scorers.items()}
    finally:
        await engine.close()


async def _score(scorer: Scorer) -> list[float]:
    answers = await asyncio.gather(*(scorer.score(messages) for messages in scored_prompts()))
    return [answer_margin(yes=answer.yes, no=answer.no) for answer in answers]


def ids_by_processor(processor: Any, messages: Messages) -> list[int]:
    """The token ids of a prompt, as a user of transformers gets them.

    The processor is one of transformers; its chat template opens the answer.
    """
    content = chat_content(messages)
    for image, part in zip(prompt_images(messages), content[0]["content"], strict=False):
        part["image"] = image
    encoded = processor.apply_chat_template(
        content, tokenize=True, add_generation_prompt=True, return_dict=True
    )
    return list(encoded["input_ids"][0])


def _ids_by_vllm(url: str, messages: Messages, encoder: PromptEncoder) -> list[int]:
    request = tokens_request(BASE, messages, adds_special_tokens=encoder.adds_special_tokens)
    answer = httpx.post(
        url + request.path,
        content=request.body(()),
        headers={"content-type": "application/json"},
        timeout=TIMEOUT_SECONDS,
    )
    return request.read(answer.raise_for_status().json())


def _num_image_tokens(encoder: PromptEncoder) -> int:
    """How many tokens a prepared cover has, with those that open and close it."""
    [item] = draw_items("families", 1)
    [message] = scoring_messages("Likes it.", item)
    with_it, without = (
        encoder.encode((each,)).num_tokens for each in (message, replace(message, image=None))
    )
    return with_it - without


def _as_list(encoded: EncodedPrompt) -> list[int]:
    ids: list[int] = encoded.tokens["input_ids"].tolist()
    return ids


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _are_different(margins: Sequence[float]) -> bool:
    """Whether the images and texts of the prompts make a difference at all."""
    return len(set(margins)) > 1
