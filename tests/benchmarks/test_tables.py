"""Each benchmark's table shows what its figures say, and has the keys that are promised."""

import pytest

from benchmarks.engines import preferences, scoring, summaries
from benchmarks.service import scale, service_overhead
from benchmarks.support import gpu
from benchmarks.support.paired_rounds import Claim, Rounds
from benchmarks.support.served_model import TokenCounts, read_token_counts


def judged(bar: float | None) -> dict[str, object]:
    rounds = Rounds("any", {"side": [1.0] * 3, "reference": [20.0] * 3})
    return rounds.judge(Claim("side", "reference", bar))


def test_scoring_shows_a_row_for_each_ratio_and_the_hit_rate():
    figures = {
        "measured": {name: judged(bar) for name, bar in scoring.BARS.items()},
        "prefix_hit_rate": 0.9,
        "prefix_hit_rate_bar": 0.85,
        "largest_margin_difference": 0.01,
    }
    table = scoring.table(figures)
    assert all(scoring.NAMES[name] in table for name in scoring.BARS)
    assert table.count("| yes") == 4  # 20 reaches 18, 12 and 2.5, not 100; and the hit rate
    assert "| NO" in table


@pytest.mark.parametrize("module", [summaries, preferences])
def test_writing_shows_one_row(module):
    name = module.__name__.split(".")[-1]
    assert "20.00" in module.table(
        {"images": 24, "tokens": 100, "measured": {name: judged(module.BAR)}}
    )


def test_service_overhead_shows_both_rates():
    figures = {
        "measured": judged(0.9),
        "requests_per_second": 1.5,
        "direct_requests_per_second": 1.6,
        "in_flight": 16,
        "shed_share": 0.125,
    }
    table = service_overhead.table(figures)
    assert "1.50" in table
    assert "1.60" in table
    assert "12.5% of the requests were shed" in table


def test_scale_shows_a_row_for_each_size():
    row = {"size": 1000, "median_ms": 2.0, "p95_ms": 3.0, "bytes": 5_000_000, "bytes_each": 5000}
    figures = {
        "candidates": [row | {"per_second": 9.0, "scored_share": 0.97}],
        "items": [row | {"recall": 0.97}],
        "users": [row | {"num_interactions": 50}],
    }
    lines = scale.table(figures).splitlines()
    assert len(lines) == 2 + 3
    assert "97.0% scored in time" in lines[2]
    assert "5.0 MB, 5,000 bytes each" in lines[-1]


def test_a_gpu_row_has_tokens_hits_and_share():
    row = {
        **{"prompts": 256, "seconds": 4.0, "prompts_per_second": 64.0, "kv_hit_rate": 0.91},
        **{"new_tokens_per_second": 80_000.0, "generated_tokens_per_second": 64.0},
        "matrix_share": 0.431,
    }
    table = gpu.table({"gpu": "a card", "matrix_tflops": 790.0, "measured": {"scores": row}})
    assert "a card: 790 TFLOP/s" in table
    assert all(shown in table for shown in ("80,000", "0.910", "43.1%"))


def test_a_servers_counters_are_read_and_subtracted():
    metrics = (
        '# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total{model_name="a"} 100\n'
        '# TYPE vllm:prompt_tokens_cached counter\nvllm:prompt_tokens_cached_total{a="b"} 60\n'
    )
    counts = read_token_counts(metrics)
    assert counts == TokenCounts(prompt=100, cached=60, generated=0)
    assert counts.since(TokenCounts(20, 20, 0)).hit_rate == 0.5
