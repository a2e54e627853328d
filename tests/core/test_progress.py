from __future__ import annotations

import io
import re

import pytest

from edgexfer.core import progress
from edgexfer.core.progress import Progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_file_gets_a_line_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 1000, stream=stream) as bar:
        for _ in range(10):
            clock.now += 2
            bar.update(10, "loss 0.3")
    first, last = stream.getvalue().splitlines()
    assert first == "train    8% 80/1000 img  5 img/s  3:04 left  loss 0.3"
    assert last == "train   10% 100/1000 img  5 img/s  3:00 left  loss 0.3"
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_live_line(clock: Clock) -> None:
    stream = Terminal()
    with Progress("train", 100, stream=stream) as bar:
        for _ in range(4):
            clock.now += 1
            bar.update(25, "x" * 20)
        bar.update(0, "y")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    lines = text.split("\r")[1:]
    assert "100% 100/100 img  25 img/s  0:00 left  y" in lines[-1]
    assert [line.count("#") for line in lines] == [5, 10, 15, 20, 20]
    assert {line.index("]") - line.index("[") for line in lines} == {21}
    assert len(lines[-1].rstrip("\n")) >= len(lines[-2])


def test_a_narrow_terminal_is_not_wrapped(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with Progress("train", 100, stream=stream) as bar:
        clock.now += 1
        bar.update(25, "x" * 200)
    assert max(len(line) for line in stream.getvalue().rstrip("\n").split("\r")) <= 39


def test_earlier_work_counts_as_done_but_not_as_speed(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 100, stream=stream) as bar:
        bar.skip(50)
        clock.now += 20
        bar.update(20)
    assert "70% 70/100 img  1 img/s  0:30 left" in stream.getvalue()


def test_an_unknown_total_shows_the_count_and_long_times_show_hours(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("read", unit="file", stream=stream) as bar:
        clock.now += 20
        bar.update(3)
    assert stream.getvalue() == "read  3 file  0.15 file/s\n"
    stream = io.StringIO()
    with Progress("train", 10_000, stream=stream) as bar:
        clock.now += 20
        bar.update(20)
    assert re.search(r" 2:46:20 left", stream.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_done_or_quiet_shows_nothing(clock: Clock, stream: io.StringIO) -> None:
    with Progress("train", 10, stream=stream):
        clock.now += 20
    with Progress("train", 10, stream=stream, quiet=True) as bar:
        clock.now += 20
        bar.update(5)
    assert stream.getvalue() == ""


def test_a_line_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("teacher cache: 10 MB")
    assert capsys.readouterr() == ("", "teacher cache: 10 MB\n")
