"""Server-sent events: the standard's examples, and any cut of the bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.python.event_stream import Event, EventStream


def events_of(told: bytes) -> list[Event]:
    return list(EventStream().feed(told))


def ids_after(told: bytes, last_id: str = "") -> list[str]:
    """The last id at each event."""
    stream = EventStream(last_id)
    return [stream.last_id for _ in stream.feed(told)]


def test_an_event_has_a_type_data_and_an_id() -> None:
    told = b"event: preference\nid: 7\ndata: {}\n\n"
    assert events_of(told) == [Event("preference", "{}")]
    assert ids_after(told) == ["7"]


def test_the_examples_of_the_standard_read_as_it_says() -> None:
    assert events_of(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Event("message", "YHOO\n+2\n10")]
    four = (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        b"data:  third event\n\n"
    )
    assert [event.data for event in events_of(four)] == [
        "first event", "second event", " third event",
    ]  # fmt: skip
    assert ids_after(four) == ["1", "", ""]
    assert [event.data for event in events_of(b"data\n\ndata\ndata\n\ndata:")] == ["", "\n"]
    assert events_of(b"data:test\n\ndata: test\n\n") == [Event("message", "test")] * 2


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_in_three_ways(end: bytes) -> None:
    told = end.join([b"event: a", b"data: 1", b"", b"data: 2", b"", b""])
    assert events_of(told) == [Event("a", "1"), Event("message", "2")]


def test_what_is_unfinished_was_never_sent() -> None:
    stream = EventStream("3")
    assert list(stream.feed(b"id: 4\ndata: half")) == []
    assert stream.last_id == "3"


def test_an_id_lasts_and_one_with_a_nul_is_none() -> None:
    told = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\x00\ndata: c\n\n"
    assert ids_after(told) == ["1", "1", "1"]
    assert ids_after(b"data: a\n\n", last_id="9") == ["9"]


def test_comments_unknown_fields_and_events_without_data_are_nothing() -> None:
    assert events_of(b": keep-alive\n\nwhat: ever\n\nevent: empty\n\n") == []


def test_the_server_may_say_how_long_to_wait() -> None:
    stream = EventStream()
    list(stream.feed(b"retry: 1500\nretry: soon\nretry:\n"))
    assert stream.retry_seconds == 1.5


def test_a_byte_order_mark_is_no_data_and_other_line_ends_are() -> None:
    assert events_of("\ufeffdata: a\u2028\x85\x0bb\n\n".encode()) == [
        Event("message", "a\u2028\x85\x0bb")
    ]


# Bytes that mean something, in any order, among them cut characters.
pieces = st.lists(
    st.sampled_from([b"data: ", b"data", b"event:", b"id: 5", b"id:\x00", b"retry: 10", b":", b" ",
                     b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", "é\u2028".encode(), b"\xc3", b"\xff",
                     b"\xef\xbb\xbf", b"x"]),
    max_size=30,
)  # fmt: skip


@given(pieces, st.lists(st.integers(0, 200)))
def test_where_the_bytes_are_cut_changes_nothing(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[a:b] for a, b in pairwise(places)]
    one, cut, bytewise = EventStream(), EventStream(), EventStream()
    expected = list(one.feed(whole))
    assert [event for chunk in chunks for event in cut.feed(chunk)] == expected
    assert [event for byte in whole for event in bytewise.feed(bytes([byte]))] == expected
    assert one.last_id == cut.last_id == bytewise.last_id
    assert one.retry_seconds == cut.retry_seconds == bytewise.retry_seconds
