"""Users are divided by a stable hash: in the shares asked for, and anew for every experiment."""

import subprocess
import sys

import pytest

from services.api.adapters.experiment_arms import draw_arm
from services.core.records import UserId

USERS = [UserId(f"user-{number}") for number in range(20_000)]


@pytest.mark.parametrize("weights", [(1, 1), (9, 1), (0.2, 0.3, 0.5), (1e-6, 1e6)])
def test_the_arms_get_their_shares(weights: tuple[float, ...]) -> None:
    drawn = [draw_arm("spring", user, weights) for user in USERS]
    for arm, weight in enumerate(weights):
        assert drawn.count(arm) / len(USERS) == pytest.approx(weight / sum(weights), abs=0.012)


def test_the_next_experiment_mixes_the_users_of_an_arm_anew() -> None:
    first = [draw_arm("spring", user, (1, 1)) for user in USERS]
    second = [draw_arm("summer", user, (1, 1)) for user in USERS]
    alike = sum(a == b for a, b in zip(first, second, strict=True)) / len(USERS)
    assert alike == pytest.approx(0.5, abs=0.012)


def test_another_process_puts_every_user_into_the_same_arm() -> None:
    program = (
        "from services.api.adapters.experiment_arms import draw_arm;"
        "print([draw_arm('spring', f'user-{n}', (1, 2)) for n in range(200)])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == str([draw_arm("spring", user, (1, 2)) for user in USERS[:200]])


def test_a_larger_weight_only_takes_users_in() -> None:
    before = {user for user in USERS if draw_arm("spring", user, (1, 9)) == 0}
    after = {user for user in USERS if draw_arm("spring", user, (2, 8)) == 0}
    assert before < after
