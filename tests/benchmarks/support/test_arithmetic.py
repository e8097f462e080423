"""Operations and bytes, against figures worked out by hand or measured."""

import pytest

from benchmarks.support.arithmetic import Work, kv_bytes_per_token
from benchmarks.support.gpu import Measured, dummy_command, summarize_turns
from benchmarks.support.random_model import SEVEN_B


def a_work(**changed: int) -> Work:
    nothing = {"prompts": 1, "prompt_tokens": 1, "cached_tokens": 0, "generated_tokens": 1}
    return Work(**(nothing | {"images": 0} | changed))


def test_a_cached_token_of_the_7b_shape_takes_128_kib():
    assert kv_bytes_per_token(SEVEN_B) == 131_072


def test_a_token_costs_two_operations_a_weight():
    one, two = a_work(prompt_tokens=1000), a_work(prompt_tokens=1001)
    of_a_token = two.flops(SEVEN_B) - one.flops(SEVEN_B)
    # 6.98 G weights in the layers, and attention to 1,000 tokens before it.
    assert of_a_token == pytest.approx(2 * 6.98e9 + 4 * 32 * 4096 * 1000.5, rel=1e-3)


def test_an_image_costs_what_its_three_tiles_do_in_the_vision_tower():
    more = a_work(images=1).flops(SEVEN_B) - a_work().flops(SEVEN_B)
    # 289 M weights in 23 layers, 577 tokens a tile, two operations each, and the rest on top.
    assert more == pytest.approx(3 * 577 * 2 * 289e6, rel=0.2)
    assert more > 3 * 577 * 2 * 289e6


def test_cached_tokens_cost_nothing_but_being_attended_to():
    cold = a_work(prompt_tokens=1300).flops(SEVEN_B)
    warm = a_work(prompt_tokens=1300, cached_tokens=1200).flops(SEVEN_B)
    assert 100 / 1300 < warm / cold < 1.5 * 100 / 1300


def test_generating_costs_a_pass_a_token_after_the_first():
    first = a_work(prompt_tokens=100).flops(SEVEN_B)
    hundred = a_work(prompt_tokens=100, generated_tokens=100).flops(SEVEN_B)
    assert hundred - first == pytest.approx(99 * (2 * 6.98e9 + 2 * 4096 * 32_064), rel=0.02)


def test_a_turn_at_the_matrix_rate_has_a_share_of_one():
    work = a_work(prompts=4, prompt_tokens=4000, cached_tokens=1000, generated_tokens=4)
    turns = [Measured(work, seconds) for seconds in (0.5, 1.0, 2.0)]

    row = summarize_turns(turns, matrix_rate=work.flops(SEVEN_B))

    assert row["matrix_share"] == 1.0
    assert (row["new_tokens_per_second"], row["kv_hit_rate"]) == (3000, 0.25)


def test_the_dummy_server_makes_up_its_weights_and_says_whose_they_are():
    command = dummy_command("folder", 8000)
    assert command[command.index("--load-format") + 1] == "dummy"
    assert "msr:model:dummy-7b" in command
