"""What computes the teacher: it agrees, it is recorded, and it can be made again by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgexfer.core.errors import BackendError, RecipeError
from edgexfer.core.preprocess import Preprocess
from edgexfer.distill import engine as module
from edgexfer.distill.engine import Engine, choose_engine, make_engine
from edgexfer.distill.foreign import Program, SessionModel, load_program
from edgexfer.distill.teacher import Ensemble, Teacher
from edgexfer.models.normalise import PixelModel
from edgexfer.training.precision import candidate

pytestmark = [pytest.mark.torch, pytest.mark.ov, pytest.mark.ort]

CPU = torch.device("cpu")
OWN = Preprocess((16, 16), 16)


def pixels(n: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 20, 20), generator=generator, dtype=torch.uint8)


def small(seed: int = 0) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = nn.Sequential(*layers, nn.Linear(8, 3))
    return Teacher(PixelModel(model, OWN), [2, 0, 1], f"seed {seed}")


def inner(teacher: Teacher) -> list[nn.Module]:
    return [member.model for member in teacher.members()]


@pytest.fixture
def any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models lose more to bfloat16 than trained ones."""
    monkeypatch.setattr(module, "MOST_ERROR", 1.0)
    monkeypatch.setattr(module, "MOST_FLIPS", 1.0)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let a race say what the test says; the engines are made and compared all the same."""
    times: dict[str, float] = {}

    def race(engines: dict[str, Teacher], pixels: Tensor) -> dict[str, float]:
        return {name: times[name] for name in engines}

    monkeypatch.setattr(module, "_race", race)
    return times


@pytest.mark.parametrize("name", ["openvino-fp32", "onnxruntime-fp32"])
def test_a_runtime_answers_as_torch_does_for_any_batch(name: str) -> None:
    teacher = small()
    engine = make_engine(teacher, name, CPU)
    assert all(isinstance(model, SessionModel) for model in inner(engine.teacher))
    assert engine.teacher.identity == teacher.identity and engine.name == name
    for n in (8, 3, 1):
        torch.testing.assert_close(engine(pixels(n)), teacher(pixels(n)), rtol=2e-3, atol=2e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(engine(pixels()), teacher(pixels()), rtol=2e-3, atol=2e-3)


def test_several_teachers_are_all_computed_by_it() -> None:
    both = Teacher(Ensemble([small(0), small(1)], [1.0, 3.0]), range(3), "both")
    engine = make_engine(both, "openvino-fp32", CPU)
    assert [type(model) for model in inner(engine.teacher)] == [SessionModel, SessionModel]
    torch.testing.assert_close(engine(pixels()), both(pixels()), rtol=2e-3, atol=2e-3)


def test_an_onnx_teacher_can_change_its_runtime(tmp_path: Path) -> None:
    from edgexfer.models.onnx import export_onnx

    torch_one = small()
    place = export_onnx(inner(torch_one)[0], (16, 16), tmp_path / "model.onnx")
    foreign = PixelModel(load_program(Program(place, "onnxruntime")), OWN)
    teacher = Teacher(foreign, [2, 0, 1], "file")
    assert choose_engine(teacher, pixels(), device=CPU, calls=3).name == "onnxruntime-fp32"
    engine = choose_engine(teacher, pixels(), asked="openvino", device=CPU, calls=3)
    assert engine.name == "openvino-fp32" and engine.error is not None and engine.error < 1e-3
    torch.testing.assert_close(engine(pixels()), torch_one(pixels()), rtol=2e-3, atol=2e-3)
    with pytest.raises(RecipeError, match="cannot compute this teacher: it is for onnxruntime"):
        choose_engine(teacher, pixels(), asked="torch", device=CPU)


def test_the_lower_precision_of_torch_is_the_teachers_alone() -> None:
    if candidate(CPU) is None:
        pytest.skip("this CPU has no format below fp32")
    teacher = small()
    engine = make_engine(teacher, "torch-bf16", CPU)
    assert inner(engine.teacher)[0] is inner(teacher)[0], "hooks on its layers must stay"
    assert not engine(pixels()).equal(teacher(pixels())) and engine(pixels()).dtype == torch.float32
    torch.testing.assert_close(engine(pixels()), teacher(pixels()), rtol=0.2, atol=0.2)


def test_the_fastest_that_agrees_is_taken_and_recorded(
    any_error: None, timed: dict[str, float]
) -> None:
    timed.update({"torch-fp32": 10.0, "torch-bf16": 8.0, "openvino-fp32": 4.0})
    timed.update({"openvino-bf16": 5.0, "onnxruntime-fp32": 6.0})
    engine = choose_engine(small(), pixels(), device=CPU)
    assert (engine.name, engine.why) == ("openvino-fp32", "2.50 times as fast as torch-fp32")
    assert engine.times_ms.items() <= timed.items() and len(engine.times_ms) >= 3
    record = json.loads(json.dumps(engine.encode(), allow_nan=False))
    assert record["error"] < 1e-3 and record["agreement_pct"] == 100.0 and "teacher" not in record
    again = make_engine(small(), record["name"], CPU)
    assert again(pixels()).equal(engine(pixels()))


def test_a_small_gain_is_not_worth_another_runtime(
    any_error: None, timed: dict[str, float]
) -> None:
    timed.update(dict.fromkeys(("torch-bf16", "openvino-bf16", "onnxruntime-fp32"), 12.0))
    timed.update({"torch-fp32": 10.0, "openvino-fp32": 9.5})
    engine = choose_engine(small(), pixels(), device=CPU)
    assert engine.name == "torch-fp32" and "1.1 times as fast" in engine.why
    assert engine.error == 0.0


def test_a_race_is_run_for_real_and_draws_no_random_number(any_error: None) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    engine = choose_engine(small(), pixels(), asked="torch", device=CPU)
    names = {"torch-fp32", f"torch-{candidate(CPU)}"} if candidate(CPU) else set()
    assert set(engine.times_ms) == names and all(ms > 0 for ms in engine.times_ms.values())
    assert torch.get_rng_state().equal(state)


def test_a_short_training_is_not_raced() -> None:
    engine = choose_engine(small(), pixels(), device=CPU, calls=5)
    assert engine.name == "torch-fp32" and "too little for a race" in engine.why
    assert engine.times_ms == {} and engine.error is None
    forced = choose_engine(small(), pixels(), asked="onnxruntime", device=CPU, calls=5)
    assert (forced.name, forced.why) == ("onnxruntime-fp32", "onnxruntime was asked for")
    assert forced.error is not None and forced.error < 1e-3


class Precise(nn.Module):
    """Its logits are what is left of two large products, which bfloat16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.same = nn.Linear(3, 3), nn.Linear(3, 3)
        for layer in (self.large, self.same):
            nn.init.constant_(layer.bias, 1000.0)
            nn.init.constant_(layer.weight, 1.0)
        with torch.no_grad():
            self.large.weight += 0.5 * torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        colour = x.mean((2, 3))
        difference: Tensor = self.large(colour) - self.same(colour)
        return difference


def test_an_engine_that_disagrees_is_refused(timed: dict[str, float]) -> None:
    if candidate(CPU) != "bf16":
        pytest.skip("this CPU has no bfloat16")
    timed.update({"torch-fp32": 9.0, "openvino-fp32": 8.9, "onnxruntime-fp32": 8.9})
    timed.update({"torch-bf16": 1.0, "openvino-bf16": 1.0})
    precise = Teacher(PixelModel(Precise(), OWN), range(3), "precise")
    engine = choose_engine(precise, pixels(), device=CPU)
    assert engine.name == "torch-fp32"
    assert "% off and changes the class of" in engine.refused["torch-bf16"]


def test_a_runtime_that_was_asked_for_and_disagrees_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_ERROR", -1.0)
    with pytest.raises(BackendError, match=r"openvino: openvino-fp32 is 0\.0 % off") as caught:
        choose_engine(small(), pixels(), asked="openvino", device=CPU, calls=2)
    assert caught.value.fix == "use --teacher-engine auto"


def test_a_feature_loss_needs_torch() -> None:
    with pytest.raises(RecipeError, match="a feature loss looks at its layers") as caught:
        choose_engine(small(), pixels(), asked="openvino", device=CPU, features=True)
    assert "--teacher-engine auto" in caught.value.fix


def test_an_engine_is_asked_like_a_teacher() -> None:
    teacher = small()
    engine = Engine(teacher, "torch-fp32", "for this test")
    assert engine(pixels()).equal(teacher(pixels()))
    assert replace(engine, error=0.5).encode()["error"] == 0.5
