"""What a trainer may say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.workers.protocol import BURST, MAX_KEYS, MAX_LINE_BYTES, RATE, Inbox, MessageRefused, parse

PROGRESS = {
    "type": "progress",
    "phase": "train",
    "epoch": 0,
    "epochs": 2,
    "step": 5,
    "steps": 10,
    "images_per_second": 1.5,
}
CHECKPOINT = {
    "type": "checkpoint",
    "path": "checkpoint-5.safetensors",
    "step": 5,
    "epoch": 0,
    "bytes": 9,
    "sha256": "0" * 64,
    "metrics": {"validation_accuracy": 0.5},
}
FAILURE = {"type": "failure", "class": "nan_loss", "evidence": "the loss is nan", "fix": "lower the rate"}


def line(message: object) -> bytes:
    """A message as a trainer sends it."""
    return json.dumps(message).encode() + b"\n"


def metrics(*steps: int, key: str = "loss") -> dict[str, object]:
    """Points of a curve."""
    return {"type": "metrics", "key": key, "steps": list(steps), "values": [0.5] * len(steps)}


class Clock:
    """A clock that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


CELL = {"type": "cell", "index": 3, "count": 12, "source": "net = Net()"}


@pytest.mark.parametrize(
    "message", [PROGRESS, CHECKPOINT, FAILURE, CELL, metrics(1, 2), {"type": "stopped", "step": 3}]
)
def test_a_good_message_is_taken_as_it_is(message: dict[str, object]) -> None:
    assert parse(line(message)) == message


def test_keys_beyond_the_schema_are_left_out() -> None:
    assert parse(line(PROGRESS | {"state": "succeeded"})) == PROGRESS


@pytest.mark.parametrize(
    "message",
    [
        [],
        None,
        7,
        {},
        {"type": "finish"},
        {"type": ["progress"]},
        PROGRESS | {"step": -1},
        PROGRESS | {"step": True},
        PROGRESS | {"step": 1.5},
        PROGRESS | {"step": 2**63},
        PROGRESS | {"phase": "sleep"},
        PROGRESS | {"images_per_second": "fast"},
        CHECKPOINT | {"path": "/etc/passwd"},
        CHECKPOINT | {"path": "../other/checkpoint"},
        CHECKPOINT | {"path": ".hidden"},
        CHECKPOINT | {"path": "a/../../b"},
        CHECKPOINT | {"sha256": "0" * 63},
        CHECKPOINT | {"metrics": {"a": "b"}},
        FAILURE | {"class": "No Such Class"},
        FAILURE | {"evidence": "x" * 20_000},
        FAILURE | {"evidence": "a\0b"},
        CELL | {"index": -1},
        CELL | {"source": "x" * 201},
        {"type": "note", "text": "\ud800"},
        metrics(1) | {"values": [1.0, 2.0]},
        metrics(1) | {"key": "<script>"},
        metrics(1) | {"values": ["1"]},
    ],
)
def test_a_bad_message_is_refused(message: object) -> None:
    with pytest.raises(MessageRefused):
        parse(line(message))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "-1" + "0" * 5000])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(MessageRefused):
        parse(b'{"type":"metrics","key":"loss","steps":[1],"values":[%s]}' % number.encode())


def test_an_integer_of_400_digits_ends_nothing() -> None:
    inbox = Inbox()
    speed = b'{"type":"first_step","seconds":1%s}\n' % (b"0" * 400)
    assert inbox.take(speed + line(PROGRESS)) == [PROGRESS]


def test_messages_arrive_whole_however_they_are_cut() -> None:
    data = line(PROGRESS) + line(metrics(1)) + line(CHECKPOINT)
    inbox = Inbox()
    taken = [message["type"] for byte in data for message in inbox.take(bytes([byte]))]
    assert taken == ["progress", "metrics", "checkpoint"]
    assert inbox.refused == []


def test_a_line_without_an_end_takes_no_memory_and_what_follows_it_is_read() -> None:
    inbox = Inbox()
    for _ in range(100):
        assert inbox.take(b"x" * MAX_LINE_BYTES) == []
        assert len(inbox._rest) <= MAX_LINE_BYTES
    assert inbox.take(b"\n" + line(PROGRESS)) == [PROGRESS]
    assert len(inbox.refused) == 1


def test_too_many_messages_are_dropped_until_time_has_passed() -> None:
    clock = Clock()
    inbox = Inbox(clock)
    assert len(inbox.take(line(PROGRESS) * (BURST + 500))) == BURST
    assert inbox.refused == [f"more than {RATE:g} messages a second"]
    clock.seconds = 1.0
    assert len(inbox.take(line(PROGRESS) * 500)) == RATE


def test_steps_only_rise() -> None:
    inbox = Inbox()
    data = b"".join(map(line, [metrics(1, 5), metrics(5), metrics(6, 6), metrics(3), metrics(7), metrics(1, key="b")]))
    assert [message["steps"] for message in inbox.take(data)] == [[1, 5], [7], [1]]


def test_the_number_of_metrics_is_limited() -> None:
    inbox = Inbox()
    data = b"".join(line(metrics(1, key=f"key{number}")) for number in range(MAX_KEYS + 10))
    assert len(inbox.take(data)) == MAX_KEYS


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_raise(data: bytes, cut: int) -> None:
    inbox = Inbox()
    for start in range(0, len(data), cut):
        inbox.take(data[start : start + cut])
    assert inbox.take(b"\n" + line(PROGRESS))[-1:] == [PROGRESS]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda more: st.lists(more) | st.dictionaries(st.text(), more),
    )
)
def test_no_json_raises(document: object) -> None:
    inbox = Inbox()
    for name in PROGRESS:
        inbox.take(line(PROGRESS | {name: document}))
