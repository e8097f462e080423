"""Trains the demo base model from scratch: summaries, preferences, and Yes/No about an item.

    python -m model_training.demo.train_base --out model_training/demo/weights/base

About 30 minutes on 2 cores. Every step draws fresh chats (`chats.py`), renders them through the
processor's chat template, as serving does, and takes the loss on answers alone: the tokens between
[/INST] and the end token, that one included.
"""

import argparse
import io
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from model_training.demo.attributes import VALUES, Attributes
from model_training.demo.chats import (
    Chat,
    Mix,
    direct_chat,
    preference_chat,
    question_chat,
    summary_chat,
)
from model_training.demo.checkpoint import (
    WEIGHTS_FILE,
    build_config,
    load_checkpoint,
    save_checkpoint,
)
from model_training.demo.covers import draw_cover
from model_training.demo.tokenizer import build_processor, build_tokenizer
from model_training.demo.world import IMAGE_SIZE
from services.core.images import prepare_image
from services.engines.models.model_card import CARD

# It names the demo world as the one that the model knows.
SHIPPED_CARD = Path(__file__).parent / "weights" / "base" / CARD

NUM_COVERS = 24_000
WARM_UP_STEPS = 200


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: its steps, its highest learning rate, and the chats of one step.

    The model reads the chats in three passes (with a cover, from titles, histories), so that short
    ones are not padded to long ones. Every sixth step has a few direct chats instead of preference
    chats.
    """

    num_steps: int
    learning_rate: float
    num_summaries: int
    num_questions: int
    num_title_summaries: int
    num_title_questions: int
    num_preferences: int
    num_direct: int
    mix: Mix


DIRECT_EVERY = 6
# The model learns to see and to answer in the first stage. Earlier values of a preference need two
# comparisons and are learned in the second, where it also learns to say that it does not know.
STAGES = (
    Stage(2600, 1e-3, 10, 8, 2, 6, 12, 6, Mix(unfamiliar_titles=0.0, new_tastes=0.0)),
    Stage(1400, 8e-4, 5, 4, 3, 2, 22, 6, Mix(unfamiliar_titles=0.15, new_tastes=0.4)),
)
LOG_EVERY = 50


def run(
    out: Path,
    *,
    stages: Sequence[Stage] = STAGES,
    num_covers: int = NUM_COVERS,
    seed: int = 1,
) -> None:
    """Train and write the checkpoint to `out`; the seed differs from the demo world's.

    Each stage writes a checkpoint beside `out`, and the next one starts from it. So a killed run
    resumes with the unfinished stage and gives the same result.
    """
    started = time.monotonic()
    torch.manual_seed(seed)
    processor = build_processor(build_tokenizer())
    model = LlavaNextForConditionalGeneration(build_config(processor))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{num_parameters:,} parameters, {len(processor.tokenizer)} tokens", flush=True)
    pool, pixels = draw_covers(num_covers, processor, seed)
    print(f"{num_covers:,} covers drawn in {time.monotonic() - started:.0f} s", flush=True)
    for number, stage in enumerate(stages, start=1):
        folder = out if number == len(stages) else out.with_name(f"{out.name}-stage-{number}")
        if not (folder / WEIGHTS_FILE).exists():
            rng = Random(f"lessons {seed}, stage {number}")
            _fit(model, processor, stage, pool, pixels, rng)
            save_checkpoint(model, processor, folder)
            (folder / CARD).write_bytes(SHIPPED_CARD.read_bytes())
        model, _ = load_checkpoint(folder)
        print(f"stage {number}: {folder} after {time.monotonic() - started:.0f} s", flush=True)


def draw_covers(
    num_covers: int, processor: LlavaNextProcessor, seed: int
) -> tuple[list[Attributes], torch.Tensor]:
    """Covers as the image processor gives them to the model: (N, 3, size, size) in half precision.

    One tile each: a square cover of the grid's size has two equal ones. Every eighth cover is
    prepared at the default size, as in a catalogue that was not prepared for the demo model.
    """
    rng = Random(f"covers {seed}")
    pool: list[Attributes] = []
    pixels = torch.empty((num_covers, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.float16)
    for number in range(num_covers):
        cover = Attributes(*(rng.choice(VALUES[name]) for name in ("palette", "topic", "style")))
        data = draw_cover(cover, rng, size=IMAGE_SIZE)
        prepared = prepare_image(data) if number % 8 == 0 else prepare_image(data, IMAGE_SIZE)
        tiles = processor.image_processor(Image.open(io.BytesIO(prepared)), return_tensors="np")
        pixels[number] = torch.from_numpy(np.asarray(tiles["pixel_values"][0][0]))
        pool.append(cover)
    return pool, pixels


def _fit(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    stage: Stage,
    pool: Sequence[Attributes],
    pixels: torch.Tensor,
    rng: Random,
) -> None:
    """Run one stage, in place."""
    started = time.monotonic()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_up_and_cosine(step, stage.num_steps)
    )
    progress: dict[str, list[float]] = defaultdict(list)
    model.train()
    for step in range(1, stage.num_steps + 1):
        for chats in _draw_chats(stage, step, pool, rng):
            _loss(model, processor, chats, pixels, progress).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress["norm"].append(float(norm))
        if step % LOG_EVERY == 0 or step == stage.num_steps:
            seconds = time.monotonic() - started
            means = "  ".join(
                f"{name} {sum(values) / len(values):.3f}"
                for name, values in sorted(progress.items())
            )
            print(f"step {step}/{stage.num_steps}  {seconds:.0f} s  {means}", flush=True)
            progress.clear()


def _draw_chats(
    stage: Stage, step: int, pool: Sequence[Attributes], rng: Random
) -> list[list[Chat]]:
    """The rows of one step: those with a cover, those from titles, and histories."""
    passes = []
    for with_cover, num_summaries, num_questions in (
        (True, stage.num_summaries, stage.num_questions),
        (False, stage.num_title_summaries, stage.num_title_questions),
    ):
        rows = [
            summary_chat(pool, rng, with_cover=with_cover, mix=stage.mix)
            for _ in range(num_summaries)
        ]
        rows += [question_chat(pool, rng, with_cover=with_cover) for _ in range(num_questions)]
        passes.append(rows)
    if step % DIRECT_EVERY == 0:
        passes.append([direct_chat(rng, stage.mix) for _ in range(stage.num_direct)])
    else:
        passes.append([preference_chat(rng, stage.mix) for _ in range(stage.num_preferences)])
    return passes


def render(processor: LlavaNextProcessor, chat: Chat) -> str:
    """A chat as the template writes it, with as many image tokens as an image takes."""
    messages = []
    for number, (asked, answer) in enumerate(chat.turns):
        parts = [{"type": "image"}] if number == 0 and chat.cover is not None else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text: str = processor.apply_chat_template(messages, tokenize=False)
    sizes = processor._get_num_multimodal_tokens(image_sizes=[(IMAGE_SIZE, IMAGE_SIZE)])
    return text.replace(processor.image_token, processor.image_token * sizes["num_image_tokens"][0])


def answer_mask(input_ids: torch.Tensor, *, opens: int, closes: int) -> torch.Tensor:
    """Which tokens (B, T) are taught: those after `opens` up to and including `closes`."""
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    inside = torch.zeros(len(input_ids), dtype=torch.bool)
    for position in range(input_ids.shape[1]):
        mask[:, position] = inside
        inside = (inside | (input_ids[:, position] == opens)) & (input_ids[:, position] != closes)
    return mask


def _loss(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    chats: list[Chat],
    pixels: torch.Tensor,
    progress: dict[str, list[float]],
) -> torch.Tensor:
    """Mean loss over the answer tokens of some rows, all with a cover or all without.

    Rows are padded at the end, where causal attention lets no real token see the padding.
    """
    tokenizer = processor.tokenizer
    texts = [render(processor, chat) for chat in chats]
    batch = tokenizer(
        texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
    )
    input_ids = batch["input_ids"]
    covers = [chat.cover for chat in chats if chat.cover is not None]
    images = {}
    if covers:
        tile = pixels[covers].float()
        images = {
            "pixel_values": torch.stack([tile, tile], dim=1),
            "image_sizes": torch.full((len(covers), 2), IMAGE_SIZE),
        }
    hidden = model.model(input_ids=input_ids, use_cache=False, **images).last_hidden_state

    opens = tokenizer.convert_tokens_to_ids("[/INST]")
    taught = answer_mask(input_ids, opens=opens, closes=tokenizer.eos_token_id)[:, 1:]
    logits = model.lm_head(hidden[:, :-1][taught])
    targets = input_ids[:, 1:][taught]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    _record(progress, chats, taught, losses.detach(), logits.detach().argmax(-1) == targets)
    return losses.mean()


def _record(
    progress: dict[str, list[float]],
    chats: list[Chat],
    taught: torch.Tensor,
    losses: torch.Tensor,
    right: torch.Tensor,
) -> None:
    """Keep loss and share of right answers (whole sentences; for questions single words)."""
    rows = taught.nonzero()[:, 0]
    for number, chat in enumerate(chats):
        of_row = rows == number
        from_title = chat.cover is None and chat.kind in ("summary", "question")
        kind = f"title_{chat.kind}" if from_title else chat.kind
        progress[f"{kind}_loss"].append(float(losses[of_row].mean()))
        if chat.kind == "question":
            words = right[of_row][::2]  # each answer is one word and the end token
            progress[f"{kind}_right"].extend(words.float().tolist())
        else:
            progress[f"{kind}_right"].append(float(right[of_row].all()))


def _warm_up_and_cosine(step: int, num_steps: int) -> float:
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    share = (step - WARM_UP_STEPS) / max(1, num_steps - WARM_UP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    run(given.out, seed=given.seed)
