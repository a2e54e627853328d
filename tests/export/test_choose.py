"""The choice of a precision from injected latencies: who wins, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgexfer.core.bundle import Artefact, Candidate, Choice, FileEntry, Rung
from edgexfer.core.codec import decode, encode
from edgexfer.export.choose import Measurement, Tried, all_kept, choose
from edgexfer.profiles import find_profile

ORT, AMX, JETSON = (find_profile(n) for n in ("x86-onnxruntime", "x86-amx-openvino", "jetson"))
NET = "mobilenetv3_small_100"
SIZES = {"fp32": 10_400_000, "fp16": 5_200_000, "bf16": 10_400_000, "int8": 2_800_000}


def passed(precision: str, target: str = ORT.name, notes: tuple[str, ...] = ()) -> Tried:
    name = f"{target}-{precision}"
    files = (FileEntry(f"models/{precision}", SIZES[precision], "0" * 64),)
    artefact = Artefact(name, target, "onnxruntime", precision, files, (), ())
    rung = Rung(name, "torch fp32", 300, 30.0, 0.1, 99.0, 98.0, 0.2, -0.4, 0.8, notes=notes)
    return Tried(precision, artefact, rung)


def times(target: str, **medians: float | tuple[float, ...]) -> Measurement:
    """Latencies in milliseconds; one number is three processes within one percent of it."""
    found = {}
    for precision, ms in medians.items():
        each = ms if isinstance(ms, tuple) else (ms, 1.01 * ms, 0.995 * ms)
        found[f"{target}-{precision}"] = tuple(1e6 * x for x in each)
    return Measurement(found, cpu="Example CPU", doubts=("the machine was busy",))


def by_precision(choice: Choice) -> dict[str, Candidate]:
    return {candidate.precision: candidate for candidate in choice.candidates}


def test_int8_that_is_slower_does_not_pay() -> None:
    """What ONNX Runtime gives for this net on x86: 0.61 times FP32."""
    tried = [passed("fp32"), passed("int8")]
    choice = choose(ORT, NET, tried, times(ORT.name, fp32=0.61, int8=1.0))
    assert choice.chosen == "fp32"
    assert choice.verdict == (
        f"INT8 does not pay on this CPU for {NET}: 0.61 times the speed of FP32; FP32 chosen"
    )
    found = by_precision(choice)
    assert found["int8"].outcome == "dropped"
    assert found["int8"].lost
    assert found["int8"].medians_ns[0] == pytest.approx(1e6)
    assert found["fp32"].outcome == "chosen"
    assert choice.measured_on == "Example CPU"
    assert choice.doubts == ("the machine was busy",)


def test_int8_that_is_faster_is_chosen_and_the_reference_stays() -> None:
    tried = [passed("fp32"), passed("int8")]
    choice = choose(ORT, NET, tried, times(ORT.name, fp32=2.9, int8=1.0))
    assert choice.chosen == "int8"
    assert choice.verdict == f"INT8 chosen on this CPU for {NET}: 2.90 times the speed of FP32"
    assert by_precision(choice)["fp32"].outcome == "kept"
    assert [c.precision for c in choice.candidates] == list(ORT.precisions)


def test_a_third_precision_may_win_over_both() -> None:
    tried = [passed(p, AMX.name) for p in ("fp32", "bf16", "int8")]
    choice = choose(AMX, NET, tried, times(AMX.name, fp32=1.0, bf16=0.6, int8=1.6))
    assert choice.chosen == "bf16"
    assert choice.verdict == (
        f"INT8 does not pay on this CPU for {NET}: 0.62 times the speed of FP32; "
        "BF16 chosen: 1.67 times the speed of FP32"
    )
    slower = choose(AMX, NET, tried, times(AMX.name, fp32=1.0, bf16=0.8, int8=0.5))
    assert slower.verdict == (
        f"BF16 is slower than INT8 on this CPU for {NET}: 1.25 times the speed of FP32; "
        "INT8 chosen: 2.00 times the speed of FP32"
    )
    assert by_precision(slower)["bf16"].lost


def test_a_tie_goes_to_the_smaller() -> None:
    tried = [passed("fp32"), passed("int8")]
    restless = times(ORT.name, fp32=(1.00, 1.06, 1.01), int8=(1.03, 1.02, 1.08))
    choice = choose(ORT, NET, tried, restless)
    assert choice.chosen == "int8"
    assert choice.verdict == (
        f"INT8 chosen on this CPU for {NET}: 0.98 times the speed of FP32, "
        "no more than the processes differ by, and smaller"
    )


def test_a_tie_of_one_size_goes_to_the_more_exact() -> None:
    tried = [passed(p, AMX.name) for p in ("fp32", "bf16")]
    restless = times(AMX.name, fp32=(1.00, 1.06, 1.01), bf16=(1.03, 0.99, 1.00))
    choice = choose(AMX, NET, tried, restless)
    assert choice.chosen == "fp32"
    assert choice.verdict == (
        f"BF16 is as fast as FP32 on this CPU for {NET}, and no smaller; FP32 chosen"
    )


def test_a_choice_on_a_restless_machine_says_so() -> None:
    tried = [passed("fp32"), passed("int8")]
    choice = choose(ORT, NET, tried, times(ORT.name, fp32=(1.0, 1.1, 6.1), int8=(2.0, 2.1, 2.2)))
    assert choice.chosen == "fp32"
    assert choice.verdict.endswith(
        "FP32 chosen; on a restless machine, where processes differ 6.1 times"
    )


def test_what_missed_its_limit_is_left_out_with_the_reason() -> None:
    refused = Tried("int8", outcome="refused", reason="x int8 loses 2.50 points")
    choice = choose(ORT, NET, [passed("fp32"), refused], Measurement({}))
    assert choice.chosen == "fp32"
    assert choice.verdict == (
        "INT8 left out: x int8 loses 2.50 points; FP32 chosen: no other precision is left"
    )
    assert by_precision(choice)["int8"].outcome == "refused"
    assert not by_precision(choice)["int8"].lost
    assert choice.measured_on is None


def test_what_this_cpu_lacks_is_left_out_and_the_others_race() -> None:
    skipped = Tried("bf16", outcome="skipped", reason="this CPU has no bf16")
    tried = [passed("fp32", AMX.name), skipped, passed("int8", AMX.name)]
    choice = choose(AMX, NET, tried, times(AMX.name, fp32=2.0, int8=1.0))
    assert choice.verdict == (
        "BF16 left out: this CPU has no bf16; "
        f"INT8 chosen on this CPU for {NET}: 2.00 times the speed of FP32"
    )
    (said,) = all_kept([AMX, ORT], {AMX.name: tried, ORT.name: [passed("fp32"), passed("int8")]})
    assert (said.target, said.chosen) == (AMX.name, None)
    assert said.verdict == "BF16 left out: this CPU has no bf16"
    assert [c.outcome for c in said.candidates] == ["kept", "skipped", "kept"]


def test_a_target_that_is_not_here_keeps_all_that_passed() -> None:
    tried = [passed(p, JETSON.name) for p in ("fp32", "fp16", "int8")]
    away = Measurement({}, obstacle="its engines are built on the device")
    choice = choose(JETSON, NET, tried, away)
    assert choice.chosen is None
    assert choice.verdict == (
        "not measured here (its engines are built on the device): "
        "INT8, FP16 and FP32 stay, a bench on the device decides"
    )
    assert {c.outcome for c in choice.candidates} == {"kept"}
    refused = Tried("fp16", outcome="refused", reason="it is not finite")
    choice = choose(JETSON, NET, [tried[0], refused, tried[2]], away)
    assert choice.verdict.startswith("FP16 left out: it is not finite; not measured here")
    assert "INT8 and FP32 stay" in choice.verdict


def test_what_a_board_measured_is_said_of_the_board() -> None:
    tried = [passed(p, JETSON.name) for p in ("fp32", "fp16", "int8")]
    there = replace(times(JETSON.name, fp32=2.0, fp16=1.0, int8=4.0), board="ssh:nano")
    assert choose(JETSON, NET, tried, there).verdict == (
        f"INT8 does not pay on ssh:nano for {NET}: 0.50 times the speed of FP32; "
        "FP16 chosen: 2.00 times the speed of FP32"
    )
    gone = Measurement({}, obstacle="nobody answers", board="ssh:nano")
    assert choose(JETSON, NET, tried, gone).verdict == (
        "not measured on ssh:nano (nobody answers): "
        "INT8, FP16 and FP32 stay, a bench on the device decides"
    )


def test_a_drop_that_the_images_cannot_decide_is_said_of_the_chosen() -> None:
    note = "drop undecidable with 300 images: about 900 are needed"
    tried = [passed("fp32"), passed("int8", notes=("SQNR 12.0 dB", note))]
    chosen = choose(ORT, NET, tried, times(ORT.name, fp32=2.0, int8=1.0))
    lost = "0.20 points lost, 95 % interval -0.40 to 0.80"
    assert chosen.verdict.endswith(f"; its {note} ({lost})")
    assert by_precision(chosen)["int8"].drop_high_pt == 0.8
    other = choose(ORT, NET, tried, times(ORT.name, fp32=1.0, int8=2.0))
    assert "undecidable" not in other.verdict
    away = choose(ORT, NET, tried, Measurement({}, obstacle="it is away"))
    assert away.verdict.endswith(f"a bench on the device decides; INT8: {note} ({lost})")
    (kept,) = all_kept([ORT], {ORT.name: tried})
    assert kept.verdict == f"INT8: {note} ({lost})"
    assert [c.outcome for c in kept.candidates] == ["kept", "kept"]


def test_a_doubt_of_the_only_one_that_is_left_is_said_too() -> None:
    note = "drop undecidable with 300 images: about 900 are needed"
    refused = Tried("fp16", outcome="refused", reason="it is not finite")
    only = passed("int8", JETSON.name, notes=(note,))
    assert choose(JETSON, NET, [refused, only], Measurement({})).verdict == (
        "FP16 left out: it is not finite; INT8 chosen: no other precision is left; "
        f"its {note} (0.20 points lost, 95 % interval -0.40 to 0.80)"
    )


def test_a_choice_survives_the_manifest() -> None:
    tried = [passed("fp32"), passed("int8")]
    choice = choose(ORT, NET, tried, times(ORT.name, fp32=1.0, int8=2.0))
    assert decode(Choice, encode(choice), "manifest.json") == choice
