"""Sizes of published models: against what is published, and against the real processors."""

import torch

from benchmarks.families.model_sizes import (
    CARDS,
    GIB,
    LLAVA,
    MODELS,
    _LivingBytes,
    count_parameters,
    largest_batch,
    resident_items,
    step_bytes,
    training_gib,
)


def test_parameters_are_those_that_are_published():
    billions = [round(count_parameters(model).total / 1e9, 2) for model in MODELS.values()]

    assert billions == [7.57, 4.44, 8.77]


def test_the_most_that_lives_at_once_is_counted():
    known = torch.empty(1000)
    with _LivingBytes([known]) as living:
        one = torch.empty(100)  # 400 bytes
        two = one + 1
        del two
        three = one.view(10, 10) * known[:10]
        assert three.shape == (10, 10)

    assert living.peak == 800


def test_a_step_keeps_the_input_of_every_layer_and_all_of_one():
    tokens, layers, hidden, mlp = 1376, 32, 4096, 14_336
    kept = 2 * layers * tokens * hidden

    one, further = step_bytes(LLAVA, tokens)

    # One layer again: each of seven inputs in two precisions with its dropout, and the outputs.
    again = tokens * (6 * hidden + mlp) * 16
    assert kept < further < kept + again
    assert further <= one < 1.5 * further


def test_more_memory_holds_more_and_4_bit_weights_leave_more():
    items = [resident_items(LLAVA, card) for card in CARDS]
    batches = [largest_batch(LLAVA, card) for card in CARDS]

    assert items == sorted(items)
    assert batches == sorted(batches)
    saved = training_gib(LLAVA, 1) - training_gib(LLAVA, 1, method="qlora")
    assert saved > 1.4 * count_parameters(LLAVA).quantized / GIB
