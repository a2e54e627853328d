"""What the pulses of several processes, here in one, say of the one that is to blame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from edgexfer.training import pulse
from edgexfer.training.pulse import Pulse

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_BEAT_S", 0.02)
    monkeypatch.setattr(pulse, "_SILENT_S", 1.0)
    # A pulse that finds its process stuck ends it: here that is the process of the tests.
    monkeypatch.setattr(pulse, "_GRACE_S", 1e9)


@pytest.fixture
def pulses() -> Iterator[list[Pulse]]:
    # mypy finds no type of torch's stores.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))  # type: ignore[attr-defined]
    made = [Pulse(store, rank, 3) for rank in range(3)]
    for each in made:
        each.__enter__()
    yield made
    for each in made:
        each.__exit__()


def test_nobody_is_blamed_while_all_are_alive_and_as_far(pulses: list[Pulse]) -> None:
    for each in pulses:
        each.arrive()
    assert pulses[0].blame() is None


def test_who_falls_silent_was_killed(pulses: list[Pulse]) -> None:
    pulses[1].__exit__()
    # On a very busy machine a living one may be silent for as long; it is heard again.
    assert any(pulses[0].blame() == "rank 1 was killed" for _ in range(5))


def test_who_has_not_come_as_far_hangs(pulses: list[Pulse]) -> None:
    for each in (pulses[0], pulses[1]):
        each.arrive()
    time.sleep(0.1)
    assert pulses[0].blame() == "rank 2 hangs"


def test_who_ended_with_an_error_is_named_with_it_and_at_once(pulses: list[Pulse]) -> None:
    pulses[2].give_up("ValueError: this rank breaks")
    pulses[1].give_up("")
    started = time.monotonic()
    assert pulses[0].blame() == "rank 2 ended with ValueError: this rank breaks"
    assert time.monotonic() - started < 0.5


def test_who_ended_because_of_another_is_not_blamed(pulses: list[Pulse]) -> None:
    pulses[1].give_up("")
    pulses[1].__exit__()
    pulses[2].__exit__()
    assert pulses[0].blame() == "rank 2 was killed"


def test_the_leader_is_waited_for(pulses: list[Pulse]) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(each.follow, 5.0) for each in pulses[1:]]
        time.sleep(0.2)
        assert not any(future.done() for future in waiting)
        assert pulses[0].follow(5.0)
        assert all(future.result(2.0) for future in waiting)
        # And again, at the next place.
        later = pool.submit(pulses[1].follow, 5.0)
        time.sleep(0.2)
        assert not later.done()
        assert pulses[0].follow(5.0) and later.result(2.0)


def test_a_leader_that_gives_up_is_not_waited_for(pulses: list[Pulse]) -> None:
    pulses[0].give_up("DiskError: no room left")
    assert not pulses[1].follow(5.0)


def test_a_leader_without_a_pulse_is_waited_for_in_patience_only(pulses: list[Pulse]) -> None:
    pulses[0].__exit__()
    started = time.monotonic()
    assert not pulses[1].follow(0.5)
    assert 0.4 < time.monotonic() - started < 3.0
