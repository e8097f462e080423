"""Stage `sft`: supervised fine-tuning on the answer tokens (MLLM-MSR, section 3.3).

Every row of the examples is a question with its answer: Yes for the target item, No for a negative
sample. The loss is on the answer alone.
"""

from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from model_training.finetune.collation import AnswerCollator, training_row
from model_training.finetune.peft_methods import new_adapter
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import NonFiniteLossGuard, PromptRows, trainer_arguments
from services.core.records import ItemId


class RowsWithImages(PromptRows):
    """Questions with their answers, for `AnswerCollator`."""

    def complete(self, item_id: ItemId, preference: str, label: bool) -> dict[str, Any]:
        """The row's `images`, `prompt` and `completion`."""
        return training_row(self.prompt(item_id, preference), label=label)


class AnswerTrainer(NonFiniteLossGuard, SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's trainer with a weight for each of the two answers."""

    def __init__(self, *, yes: int, weights: tuple[float, float], **kwargs: Any) -> None:
        """`yes` is the first token of a positive answer, `weights` are those of No and Yes."""
        super().__init__(**kwargs)
        self._yes, self._weights = yes, weights

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over answer tokens of weight x negative log-likelihood.

        `num_items_in_batch` counts the answer tokens of all processes and accumulated batches.
        """
        positive = (inputs["labels"] == self._yes).any(dim=1)
        weights = torch.where(positive, self._weights[1], self._weights[0])
        # The fused head gives the log-probability of each supervised token and 0 elsewhere,
        # (B, T - 1), without the logits of all tokens: gigabytes at a real vocabulary.
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        if num_items_in_batch is None:
            num_items_in_batch = outputs.label_mask.sum()
        loss = -(outputs.log_probs * weights[:, None]).sum() / num_items_in_batch
        # Gradients are averaged over processes, while the tokens are counted over all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def answer_weights(
    num_negative: int, num_positive: int, positive_weight: float
) -> tuple[float, float]:
    """Weights of a No and a Yes row: in the ratio 1 to `positive_weight`, and 1 on average.

    The average of 1 keeps the meaning of learning_rate.
    """
    mean = (num_negative + positive_weight * num_positive) / (num_negative + num_positive)
    return 1 / mean, positive_weight / mean


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> AnswerTrainer:
    """The trainer over the rows, checkpointing and logging into `scratch`."""
    rows = plan.rows.select(["item_id", "preference", "label"]).to_pylist()
    num_positive = sum(row["label"] for row in rows)
    collate = AnswerCollator(processor)
    return AnswerTrainer(
        yes=collate.answers.yes,
        weights=answer_weights(len(rows) - num_positive, num_positive, plan.config.positive_weight),
        model=model,
        # Truncation would silently cut images or the answer.
        args=SFTConfig(**trainer_arguments(plan.config, scratch), max_length=None),
        data_collator=collate,
        train_dataset=RowsWithImages.dataset(plan, rows),
        processing_class=processor,
        peft_config=new_adapter(plan.config, model),
    )


STAGE = Stage("sft", "adapter", build_trainer, starts_from_adapter=False)
