"""Sensors are read from the files of boards that are not here, laid out below a root."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgexfer.bench.channels import Counter, system_channels
from edgexfer.bench.power import choose_rails
from edgexfer.bench.sensors import Sampler, throttling
from edgexfer.bench.tegrastats import Tegrastats, parse_line
from edgexfer.core.samples import Sensors
from tests.bench.fake_nvml import NOT_SUPPORTED, FakeNvml
from tests.bench.unfold import BOARDS, lay_out, unfold


def read_once(root: Path, nvml: FakeNvml | None = None) -> Sensors:
    """Read every sensor at least twice."""
    sampler = Sampler(root, 0.02, *([nvml.open] if nvml else []))
    sampler.start()
    time.sleep(0.03)
    return sampler.stop()


def first(sensors: Sensors) -> dict[str, float | None]:
    return {name: column[0] for name, column in sensors.series.items()}


def test_an_orin_nano(tmp_path: Path) -> None:
    sensors = read_once(unfold("jetson-orin-nano-jp6", tmp_path))
    assert first(sensors) == {
        "cpu0_mhz": 1344.0,
        "gpu_mhz": 1020.0,
        "cpu-thermal_c": 52.125,
        "gpu-thermal_c": 53.0,
        "ina3221:VDD_IN_mw": 14_000.0,
        "ina3221:VDD_CPU_GPU_CV_mw": pytest.approx(6986.0),
        "ina3221:VDD_SOC_mw": pytest.approx(2694.6),
    }
    assert {name: column[0] for name, column in sensors.flags.items()} == {
        "oc1_event_cnt": 0,
        "oc3_event_cnt": 27390,
        "cooling:cpufreq-cpu0": 0,
        "cooling:devfreq-17000000.gpu": 0,
    }
    assert "does not answer" in sensors.absent["cv0-thermal_c"]
    assert choose_rails(sensors) == ("ina3221:VDD_IN_mw",)
    assert throttling(sensors).throttled == ()


def test_an_agx_orin_adds_up_the_rails_of_its_module(tmp_path: Path) -> None:
    sensors = read_once(unfold("jetson-agx-orin-jp5", tmp_path))
    assert "reads -256000, which cannot be" in sensors.absent["CV0-therm_c"]
    assert sensors.series["gpu_mhz"][0] == 612.0
    # VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0 and would be counted twice.
    rails = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert choose_rails(sensors) == tuple(f"ina3221:{rail}_mw" for rail in rails)


def test_a_thor_whose_gpu_is_off(tmp_path: Path) -> None:
    sensors = read_once(unfold("jetson-thor-jp7", tmp_path))
    assert first(sensors)["ina238:VIN_mw"] == 25_530.0
    assert sensors.series["gpu_mhz"][0] == 1575.0
    assert "curr1_input reads -20, which cannot be" in sensors.absent["ina3221:VDD_GPU_mw"]
    assert choose_rails(sensors) == ("ina238:VIN_mw",)


def test_tegrastats_stands_in_where_sysfs_shows_no_rail(tmp_path: Path) -> None:
    sensors = read_once(unfold("jetson-agx-orin-jp7", tmp_path))
    assert first(sensors) == {
        "gpu_mhz": 1290.0,
        "memory_mhz": 3199.0,
        "cpu_c": 49.5,
        "gpu_c": 51.2,
        "tegrastats:VDD_GPU_SOC_mw": 12_100.0,
        "tegrastats:VDD_CPU_CV_mw": 2_900.0,
        "tegrastats:VIN_SYS_5V0_mw": 6_400.0,
    }
    assert len(choose_rails(sensors)) == 3
    assert "gpu_mhz" not in sensors.absent


def test_a_raspberry_pi_that_is_throttled(tmp_path: Path) -> None:
    sensors = read_once(unfold("raspberry-pi-4", tmp_path))
    assert first(sensors) == {"cpu0_mhz": 600.0, "cpu-thermal_c": 82.3}
    assert throttling(sensors).throttled == (
        "under-voltage (get_throttled)",
        "throttled (get_throttled)",
    )
    assert sensors.absent["power"] == "this machine shows no power sensor"


def test_a_raspberry_pi_that_is_not_and_its_fan(tmp_path: Path) -> None:
    sensors = read_once(unfold("raspberry-pi-5", tmp_path))
    assert list(sensors.flags) == ["get_throttled"]
    assert throttling(sensors).throttled == ()


@pytest.mark.parametrize("said", ["exit 1", "echo throttled=0xzz", "echo error=1 nothing"])
def test_a_raspberry_pi_whose_tool_talks_nonsense(tmp_path: Path, said: str) -> None:
    root = lay_out(f"=x usr/bin/vcgencmd\n#!/bin/sh\n{said}", unfold("raspberry-pi-5", tmp_path))
    sensors = read_once(root)
    assert sensors.flags == {}
    assert "vcgencmd get_throttled" in sensors.absent["get_throttled"]


def test_an_intel_cpu_whose_energy_wraps(tmp_path: Path) -> None:
    root = unfold("x86-intel", tmp_path)
    sampler = Sampler(root, 10.0)
    sampler.start()
    time.sleep(0.1)
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("171150\n")
    (root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count").write_text("8\n")
    sensors = sampler.stop()
    assert sensors.series["rapl:package-0_uj"] == (0.0, 500_000.0)
    assert not any("core" in name for name in sensors.series if name.endswith("_uj"))
    assert sensors.series["acpitz_c"] == (27.8, 27.8)
    assert "reads 0, which cannot be" in sensors.absent["acpitz#2_c"]
    assert set(sensors.series["gpu_mhz"]) == {650}
    assert throttling(sensors).throttled == ("cpu0_core_throttle_count rose by 1",)
    assert choose_rails(sensors) == ("rapl:package-0_uj",)


def test_an_amd_cpu(tmp_path: Path) -> None:
    sensors = read_once(unfold("x86-amd", tmp_path))
    assert first(sensors) == {"cpu0_mhz": 4650.0, "k10temp_c": 61.5, "amdgpu:PPT_mw": 14_000.0}


def test_a_container_without_sensors_says_so_of_each_kind(tmp_path: Path) -> None:
    sensors = read_once(unfold("container", tmp_path))
    assert not sensors.series
    assert not sensors.flags
    assert sensors.absent == {
        "cpu_mhz": "no cpufreq on this machine (a virtual machine has none)",
        "gpu_mhz": "no GPU shows its clock in /sys",
        "temperature_c": "the kernel shows no temperature",
        "nvml": sensors.absent["nvml"],
        "tegrastats": "there is no tegrastats",
        "power": "this machine shows no power sensor",
        "throttling": "this machine shows no counter or register of throttling",
    }


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("text", ["", "abc", "-5", "0", "\x00\xff", "1.5", "99999999999999999999"])
def test_garbage_is_never_a_reading(tmp_path: Path, board: str, text: str) -> None:
    """Every number of every board replaced by nonsense: no series, each with a reason."""
    root = unfold(board, tmp_path)
    (root / "usr/bin/tegrastats").unlink(missing_ok=True)
    for path in (root / "sys").rglob("*"):
        plain = path.is_file() and not path.is_symlink()
        if plain and path.read_text().strip().lstrip("-").isdigit():
            path.write_text(text)
    found = system_channels(root, {0})
    for name, read in found.series.items():
        if not name.startswith("rapl:") or text != "0":  # a counter that begins at 0 may move
            with pytest.raises(ValueError, match="/sys/"):
                read()
    found.close()


@pytest.fixture
def nobody() -> Iterator[Callable[[Path], None]]:
    """Take a file's rights away, from root too."""
    was_root = os.geteuid() == 0

    def forbid(path: Path) -> None:
        path.chmod(0)
        if was_root:
            os.seteuid(65534)

    yield forbid
    if was_root:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_sensor_that_root_alone_may_read(public: Path, nobody: Callable[[Path], None]) -> None:
    nobody(unfold("x86-intel", public) / "sys/class/powercap/intel-rapl:0/energy_uj")
    sensors = read_once(public)
    reason = "/sys/class/powercap/intel-rapl:0/energy_uj may be read by root alone"
    assert sensors.absent["rapl:package-0_uj"] == reason
    assert sensors.absent["power"] == reason
    assert "cpu0_mhz" in sensors.series


def counter(values: list[float], wraps_at: int | None = None) -> Counter:
    return Counter(iter(values).__next__, wraps_at)


def test_a_counter_that_goes_backwards_without_a_limit_is_broken() -> None:
    energy = counter([100, 50, 80])
    assert energy() == 0
    with pytest.raises(ValueError, match="reset or is broken"):
        energy()
    assert energy() == 30


def test_a_counter_that_wraps_more_than_can_be_is_broken() -> None:
    energy = counter([100, 50], 262143328850)
    energy()
    with pytest.raises(ValueError, match="the energy counter jumped"):
        energy()


def test_a_gpu_and_what_it_does_not_support(tmp_path: Path) -> None:
    fake = FakeNvml()
    fake.reasons = 0x04 | 0x40
    fake.refused["nvmlDeviceGetPowerUsage"] = NOT_SUPPORTED
    sensors = read_once(tmp_path, fake)
    assert first(sensors) == {
        "nvml:gpu0_mhz": 1710,
        "nvml:gpu0_memory_mhz": 7001,
        "nvml:gpu0_c": 61,
    }
    assert sensors.absent["nvml:gpu0_mw"] == "nvmlDeviceGetPowerUsage: Not Supported"
    assert throttling(sensors).throttled == ("power cap (gpu0)", "temperature (hardware) (gpu0)")
    assert fake.opened == 0


def test_a_sensor_that_falls_silent_leaves_gaps(tmp_path: Path) -> None:
    root = unfold("raspberry-pi-4", tmp_path)
    zone = root / "sys/class/thermal/thermal_zone0/temp"
    sampler = Sampler(root, 10.0)
    sampler.start()
    time.sleep(0.1)
    zone.write_text("")
    assert sampler.stop().series["cpu-thermal_c"] == (82.3, None)


def test_the_measured_part_begins_at_time_zero(tmp_path: Path) -> None:
    sampler = Sampler(unfold("x86-amd", tmp_path), 0.01)
    sampler.start()
    time.sleep(0.05)
    sampler.mark()
    sensors = sampler.stop()
    assert sensors.times_ns[0] < 0 < sensors.times_ns[-1]
    assert sensors.period_ns == 10_000_000
    assert list(sensors.times_ns) == sorted(sensors.times_ns)


def test_stopping_what_was_never_started(tmp_path: Path) -> None:
    assert Sampler(tmp_path).stop() == Sensors(250_000_000, (), {})


def flags(name: str, *values: int | None) -> Sensors:
    """One reading before the measured part, the others in it, a second apart."""
    times = tuple(int(1e9) * second for second in range(-1, len(values) - 1))
    return Sensors(int(1e9), times, {}, {name: values})


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        ((0x50000, 0x50000, 0x50000), ()),
        ((0x0, 0x40000, 0x40000), ("throttled (get_throttled)",)),
        ((0x0, 0x8, 0x80000), ("soft temperature limit (get_throttled)",)),
        ((None, 0x10000, 0x10000), ()),
        ((0x0, None, None), ()),
    ],
)
def test_sticky_bits_count_where_they_are_new(
    readings: tuple[int | None, ...], words: tuple[str, ...]
) -> None:
    assert throttling(flags("get_throttled", *readings)).throttled == words


def test_a_cooling_device_at_work_is_throttling_and_over_current_a_doubt() -> None:
    assert throttling(flags("cooling:cpufreq-cpu0", 0, 0, 2)).throttled == (
        "cpufreq-cpu0 was at step 2",
    )
    found = throttling(flags("oc3_event_cnt", 5, 5, 9))
    assert (found.throttled, found.doubts) == ((), ("oc3_event_cnt rose by 4",))


def test_what_follows_the_measured_part_is_not_held_against_it() -> None:
    sensors = flags("cooling:cpufreq-cpu0", 0, 0, 0, 3)
    assert throttling(sensors, int(1.5e9)).throttled == ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "EMC_FREQ 12%@3199 GR3D_FREQ 98%@1020 cpu@52.1C tj@53.0C "
            "VDD_IN 14120mW/13890mW VDD_CPU_GPU_CV 7120mW/7010mW",
            {"gpu_mhz": 1020, "memory_mhz": 3199, "cpu_c": 52.1, "tj_c": 53.0}
            | {"tegrastats:VDD_IN_mw": 14120, "tegrastats:VDD_CPU_GPU_CV_mw": 7120},
        ),
        (
            "EMC_FREQ 7%@3200 GR3D_FREQ @[314,314,314] VIC 59%@423 cpu@34.843C/34.843C "
            "VDD_GPU -392mW/0mW/0mW VIN 25530mW/12765mW",
            {"gpu_mhz": 314, "memory_mhz": 3200, "cpu_c": 34.843, "tegrastats:VIN_mw": 25530},
        ),
        ("GR3D_FREQ 0%@0 gpu@-256C CV0@1.2.3C VDD_IN 0mW/0mW", {}),
        ("", {}),
        ("Cannot open /sys/kernel/debug\x00", {}),
    ],
    ids=["jetpack-6", "thor", "all off", "empty", "an error"],
)
def test_lines_of_tegrastats(line: str, found: dict[str, float]) -> None:
    assert parse_line(line) == found


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("#!/bin/sh\necho tegrastats: permission denied", "says nothing that can be read"),
        ("no program", "cannot be started"),
    ],
)
def test_a_tegrastats_that_is_of_no_use(
    tmp_path: Path, program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgexfer.bench.tegrastats._FIRST_LINE_S", 0.2)
    root = lay_out(f"=x usr/bin/tegrastats\n{program}", tmp_path)
    with pytest.raises(ValueError, match=reason):
        Tegrastats(root, 0.1)


def test_a_tegrastats_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out("=x usr/bin/tegrastats\n#!/bin/sh\necho 'VDD_IN 5mW/5mW'", tmp_path)
    tool = Tegrastats(root, 0.1)
    assert tool.latest("tegrastats:VDD_IN_mw") == 5
    with pytest.raises(ValueError, match="tegrastats gives no gpu_mhz"):
        tool.latest("gpu_mhz")
    now = time.monotonic()
    monkeypatch.setattr("edgexfer.bench.tegrastats.time.monotonic", lambda: now + 60)
    with pytest.raises(ValueError, match="fell silent"):
        tool.latest("tegrastats:VDD_IN_mw")
    tool.close()
