"""The recurrence: full blocks are written, the tail waits, and arrival order does not matter."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.core.recurrence import (
    PreferenceState,
    advance,
    count_equal_leading,
    current_preference,
    rebuild,
    split_blocks,
)

State = PreferenceState[str]


async def joined_ids(previous: str, block: Sequence[str]) -> str:
    return ",".join(filter(None, [previous, *block]))


def test_only_the_elements_before_the_first_difference_count_as_equal():
    assert count_equal_leading("abcd", "abxd") == 2
    assert count_equal_leading("ab", "abc") == 2
    assert count_equal_leading("", "abc") == 0


async def test_an_unfinished_block_stays_out_of_the_checkpoint():
    state = await advance(State(), ["i1", "i2", "i3", "i4"], write=joined_ids)

    assert (state.checkpoint, state.tail) == ("i1,i2,i3", ("i4",))


async def test_the_current_preference_includes_the_tail_and_leaves_the_state_alone():
    state = await advance(State(), ["i1", "i2", "i3", "i4"], write=joined_ids)

    assert await current_preference(state, write=joined_ids) == "i1,i2,i3,i4"
    assert state.checkpoint == "i1,i2,i3"


async def test_nothing_is_written_for_an_empty_history():
    async def never(previous: str, block: Sequence[str]) -> str:
        raise AssertionError("nothing to write")

    assert await current_preference(await advance(State(), [], write=never), write=never) == ""


@given(st.lists(st.text("abc", min_size=1, max_size=2), max_size=14), st.data())
async def test_any_batching_of_arrivals_gives_the_same_state(history, data):
    state, rest = State(), list(history)
    while rest:
        taken = data.draw(st.integers(1, len(rest)))
        state = await advance(state, rest[:taken], write=joined_ids)
        rest = rest[taken:]

    assert state == await advance(State(), history, write=joined_ids)
    assert list(state.history) == history


@given(st.lists(st.integers(0, 99), max_size=14, unique=True), st.integers(0, 14))
async def test_a_late_interaction_rewrites_its_block_and_the_later_ones_only(numbers, position):
    before = [str(n) for n in numbers]
    late = position % (len(before) + 1)
    after = [*before[:late], "late", *before[late:]]
    state = await advance(State(), before, write=joined_ids)
    written: list[Sequence[str]] = []

    async def counted(previous: str, block: Sequence[str]) -> str:
        written.append(block)
        return await joined_ids(previous, block)

    rebuilt = await rebuild(state, after, write=counted)

    assert rebuilt == await advance(State(), after, write=joined_ids)
    assert written == split_blocks(after)[0][late // 3 :]
