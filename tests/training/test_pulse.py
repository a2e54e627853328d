"""What the pulses of several processes, here in one, say of the one that is to blame."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
    assert pulses[0].blame() == "rank 1 was killed"


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
