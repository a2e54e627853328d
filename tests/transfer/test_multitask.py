"""Several tasks in one model: from the table of labels to what a bundle answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgexfer.bench.tasks import answers, by_task, codes, confidences, marks, right
from edgexfer.bench.verify import verify_bundle
from edgexfer.core.errors import GateError, InputError, ModelError, RecipeError, RunError
from edgexfer.core.model import read_card
from edgexfer.core.stats import SeededGain
from edgexfer.core.sweep import SCHEMA, Arm, Sweep, read_sweep
from edgexfer.core.tasks import Task, class_names, classes_of, spans
from edgexfer.data.task import find_task, of_task
from edgexfer.distill.stage import distill
from edgexfer.export.audit import audit
from edgexfer.export.evaluate import evaluate, to_text
from edgexfer.export.load import load_bundle
from edgexfer.export.stage import export
from edgexfer.models.head import Perceptron
from edgexfer.models.store import load_model
from edgexfer.recipe import (
    DataSection,
    ExportSection,
    ModelSection,
    StudentSection,
    TeacherSection,
)
from edgexfer.report.sweep import sweep_answer, sweep_table
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.multitask import (
    Balance,
    GradNorm,
    Uncertainty,
    label_objective,
    make_balance,
)
from edgexfer.training.objective import Views, mean_targets
from edgexfer.training.predictions import read_rights
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer.curve import learning_curve
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.guard import finetune_all, refuse_harm
from edgexfer.transfer.heads import Form, fit_head
from tests.transfer.tiny import TRAIN

pytestmark = pytest.mark.torch

TASKS = (Task("a", ("p", "q")), Task("b", ("x", "y", "z")))
VIEWS = Views(torch.arange(4), 0, 0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tabled: DataSection) -> Path:
    out = tmp_path_factory.mktemp("several") / "run"
    train = replace(TRAIN, epochs=6, balance="uncertainty")
    finetune(tabled, TeacherSection(ModelSection("resnet8", size=16), "scratch", train=train), out)
    return out


def test_labels_are_places_among_all_outputs(tabled: DataSection) -> None:
    dataset = open_data(tabled)
    assert dataset.classes == class_names(dataset.tasks)
    assert dataset.classes == (
        *("colour=blue", "colour=green", "colour=red"),
        *("warm=False", "warm=True"),
    )
    for split in dataset.splits.values():
        for key, (colour, warm) in zip(split.keys, split.labels.tolist(), strict=True):
            name = key.partition("/")[0]
            assert colour == -1 or dataset.classes[colour] == f"colour={name}"
            assert warm == -1 or dataset.classes[warm] == f"warm={name == 'red'}"
    every = np.concatenate([split.labels for split in dataset.splits.values()])
    assert every.shape == (72, 2) and (every < 0).sum(axis=0).tolist() == [18, 18]


def test_answers_marks_and_codes_by_hand() -> None:
    logits = np.array([[1, 0, 0, 2, 0], [0, 1, 3, 0, 0], [0, 1, 0, 0, 5]], np.float32)
    labels = np.array([[0, 3], [0, -1], [-1, 4]])
    assert spans(TASKS, 5) == ((0, 2), (2, 5))
    assert answers(logits, TASKS).tolist() == [[0, 3], [1, 2], [1, 4]]
    good, known = marks(logits, labels, TASKS)
    assert good.tolist() == [[True, True], [False, True], [True, True]]
    assert known.tolist() == [[True, True], [True, False], [False, True]]
    assert right(logits, labels, TASKS).tolist() == [True, False, True]
    said, wanted = (codes(p, labels, TASKS) for p in (answers(logits, TASKS), labels))
    assert said == (1, 3, 2) and wanted == (1, 0, 2)
    assert [(t.name, t.n, t.correct) for t in by_task(logits, labels, TASKS)] == [
        ("a", 2, 1),
        ("b", 2, 2),
    ]
    p, q, r = np.e / (np.e + 1), np.exp(2) / (np.exp(2) + 2), np.exp(5) / (np.exp(5) + 2)
    eces = [t.ece_pct for t in by_task(logits, labels, TASKS)]
    assert eces == pytest.approx([100 * (2 * p - 1) / 2, 100 * (2 - q - r) / 2], abs=0.01)
    assert [classes_of(code, TASKS) for code in said] == [(0, 1), (1, 0), (0, 2)]
    assert confidences(logits, labels, TASKS) == pytest.approx((p * q, p, r), abs=1e-4)


def test_each_task_has_its_own_cross_entropy_and_missing_labels_ask_nothing() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.zeros(4, 5)
    for row, column in ((0, 1), (1, 0), (1, 4), (3, 2)):
        targets[row, column] = 1
    balance = Balance((2.0, 0.5))
    loss, parts = label_objective(TASKS, balance, 0.0)(
        _Fixed(logits), torch.zeros(4, 3, 2, 2), targets, VIEWS
    )
    y = logits.detach().double().numpy()
    a = np.log(np.exp(y[:, :2]).sum(1)) - y[:, :2].T
    b = np.log(np.exp(y[:, 2:]).sum(1)) - y[:, 2:].T
    of_a, of_b = (a[1, 0] + a[0, 1]) / 2, (b[2, 1] + b[0, 3]) / 2
    assert loss.item() == pytest.approx(2 * of_a + 0.5 * of_b, rel=1e-5)
    assert {k: float(v) for k, v in parts.items()} == pytest.approx({"a": of_a, "b": of_b})
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[2].any() and not logits.grad[0, 2:].any()


@pytest.mark.parametrize("kind", [Balance, Uncertainty])
def test_parts_of_a_step_make_its_loss_however_its_labels_are_spread(kind: type[Balance]) -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(4, 5)
    for row, column in ((0, 1), (0, 3), (1, 0), (2, 1)):
        targets[row, column] = 1
    objective = label_objective(TASKS, kind((2.0, 0.5)), 0.1)
    pixels = torch.zeros(4, 3, 2, 2)
    whole, _ = objective(_Fixed(logits), pixels, targets, VIEWS)
    step = replace(VIEWS, targets_mean=mean_targets(targets))
    parts = [
        objective(_Fixed(logits[a:b]), pixels[a:b], targets[a:b], step.part(a, b))[0]
        for a, b in ((0, 2), (2, 4))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_uncertainty_is_kendalls_and_stands_still_without_labels() -> None:
    balance, logits = Uncertainty((1.0, 1.0)), torch.zeros(4, 5)
    with torch.no_grad():
        balance.log_variance.copy_(torch.tensor([0.5, -1.0]))
    losses = torch.tensor([2.0, 3.0])
    whole = balance(losses, torch.tensor([True, True]), logits)
    wanted = 2 * np.exp(-0.5) + 0.25 + 3 * np.exp(1) - 0.5
    assert whole.item() == pytest.approx(wanted, rel=1e-6)
    balance(torch.tensor([2.0, 0.0]), torch.tensor([True, False]), logits).backward()
    assert balance.log_variance.grad is not None
    found = balance.log_variance.grad.tolist()
    assert found == pytest.approx([0.5 - 2 * np.exp(-0.5), 0.0], rel=1e-6)


class _Headed(nn.Module):
    """What GradNorm looks at: a model with a backbone and a head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(6, 4), head
        self.outputs = next(head.parameters())

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.backbone(pixels.flatten(1))))
        return found


def _asked(model: nn.Module, balance: GradNorm, *labels: tuple[int, int]) -> Tensor:
    """Return the loss of four images with these labels, its gradients computed."""
    targets = torch.zeros(4, 5)
    for row, column in labels:
        targets[row, column] = 1
    pixels = torch.randn(4, 3, 2, 1, generator=torch.Generator().manual_seed(1))
    loss, _ = label_objective(TASKS, balance, 0.0)(model, pixels, targets, VIEWS)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


LABELS = ((0, 0), (1, 1), (2, 0), (3, 1), (0, 2), (1, 4), (2, 3), (3, 3))


def test_gradnorm_moves_its_weights_as_the_paper_says_and_no_other_gradient() -> None:
    torch.manual_seed(0)
    model, balance = _Headed(nn.Linear(4, 5)), GradNorm((3.0, 1.0), (2, 3))
    balance.look_at(model)
    loss = _asked(model, balance, *LABELS)

    # The same by hand: gradients at the head's input image by image, the weights' by differences.
    pixels = torch.randn(4, 3, 2, 1, generator=torch.Generator().manual_seed(1))
    hidden = torch.relu(model.backbone(pixels.flatten(1))).detach().requires_grad_()
    logits = model.head(hidden)
    columns = torch.tensor([[0, 2], [1, 4], [0, 3], [1, 3]])
    of_a = nn.functional.cross_entropy(logits[:, :2], columns[:, 0])
    of_b = nn.functional.cross_entropy(logits[:, 2:], columns[:, 1] - 2)
    norms = [
        4 * torch.autograd.grad(part, hidden, retain_graph=True)[0].norm().item()
        for part in (of_a, of_b)
    ]
    rates = np.array([of_a.item() / np.log(2), of_b.item() / np.log(3)])
    wanted = np.mean(np.array([1.5, 0.5]) * norms) * (rates / rates.mean()) ** 1.5

    def miss(v: Any) -> float:
        weights = 2 * np.exp(v) / np.exp(v).sum()
        return float(np.abs(weights * norms - wanted).sum() / np.mean(norms))

    v, small = np.log([3.0, 1.0]), 1e-6 * np.eye(2)
    slopes = [(miss(v + step) - miss(v - step)) / 2e-6 for step in small]
    assert balance.log_weights.grad is not None and abs(slopes[0]) > 0.01
    assert balance.log_weights.grad.tolist() == pytest.approx(slopes, rel=1e-3)

    # The model learns from the weighed losses alone, and those are what is told.
    total = 1.5 * of_a + 0.5 * of_b
    assert loss.item() == pytest.approx(total.item(), rel=1e-6)
    (head,) = torch.autograd.grad(total, [model.outputs])
    torch.testing.assert_close(model.outputs.grad, head)


def test_gradnorm_evens_out_gradients_of_tasks_that_are_equally_far() -> None:
    torch.manual_seed(0)
    model, balance = _Headed(nn.Linear(4, 5)), GradNorm((1.0, 1.0), (2, 3))
    balance.look_at(model)
    logits = model(torch.randn(4, 3, 2, 1))
    # Both lose what one without an idea does; the second pulls ten times as hard.
    pulls = torch.stack([logits[:, 0].mean(), 10 * logits[:, 2].mean()])
    losses = torch.tensor([2.0, 3.0]).log() + pulls - pulls.detach()
    learned = torch.optim.Adam(balance.parameters(), lr=0.02)
    for _ in range(150):
        learned.zero_grad()
        balance(losses, torch.tensor([True, True]), logits).backward(retain_graph=True)
        learned.step()
    rows = model.outputs[[0, 2]].norm(dim=1)
    wanted = (rows[1] * 10 / rows[0]).item()
    first, second = torch.softmax(balance.log_weights, 0).tolist()
    assert first / second == pytest.approx(wanted, rel=0.1)


def test_gradnorm_stands_still_where_a_task_has_no_labels() -> None:
    torch.manual_seed(0)
    model, balance = _Headed(nn.Linear(4, 5)), GradNorm((1.0, 1.0), (2, 3))
    balance.look_at(model)
    _asked(model, balance, (0, 1), (2, 0))
    assert balance.log_weights.grad is not None and not balance.log_weights.grad.any()
    assert model.outputs.grad is not None
    assert model.outputs.grad[:2].any() and not model.outputs.grad[2:].any()


def test_gradnorm_wants_one_linear_layer_at_the_end() -> None:
    balance = make_balance(TASKS, replace(TRAIN, balance="gradnorm"))
    assert isinstance(balance, GradNorm)
    balance.look_at(_Headed(Perceptron(4, 3, 5)))
    with pytest.raises(RecipeError, match="does not end in one linear layer") as error:
        balance.look_at(_Headed(nn.Conv1d(4, 5, 1)))
    assert "fixed or uncertainty" in error.value.fix


def test_weights_must_be_as_many_as_tasks_and_need_tasks() -> None:
    with pytest.raises(RecipeError, match="3 weights for 2 tasks") as error:
        make_balance(TASKS, replace(TRAIN, task_weights=(1.0, 2.0, 3.0)))
    assert "a, b" in error.value.fix
    for train in (replace(TRAIN, task_weights=(1.0,)), replace(TRAIN, balance="uncertainty")):
        with pytest.raises(RecipeError, match="for several tasks") as error:
            make_balance((), train)
        assert "data.labels" in error.value.fix
    assert make_balance((), TRAIN) is None


def test_a_strategy_of_one_label_is_refused(tmp_path: Path, tabled: DataSection) -> None:
    section = TeacherSection(ModelSection("resnet8", size=16), "replay", train=TRAIN)
    with pytest.raises(RecipeError, match="knows one label of each image") as error:
        finetune(tabled, replace(section, strategy_options={"old": "nowhere"}), tmp_path / "run")
    assert "full" in error.value.fix and not (tmp_path / "run").exists()


def test_a_run_knows_its_tasks_and_is_measured_in_each(run: Path, tabled: DataSection) -> None:
    assert [task.name for task in read_card(run).tasks] == ["colour", "warm"]
    (found,) = evaluate(run, None)
    assert [task.name for task in found.tasks] == ["colour", "warm"]
    test = open_data(tabled).splits["test"].labels
    assert [task.n for task in found.tasks] == (test >= 0).sum(axis=0).tolist()
    assert all(task.top1_pct is not None and task.top1_pct > 60 for task in found.tasks)
    assert f"calibration error {found.tasks[1].ece_pct:.1f} %" in to_text([found])
    assert "task warm:" in to_text([found]) and "right in all tasks" in to_text([found])


def test_each_task_is_audited(run: Path, tabled: DataSection) -> None:
    found = audit([run, run], None, ["folder:1"])
    given = open_data(tabled).splits["test"].labels
    n = (given >= 0).sum(axis=0).tolist()
    assert [(s.task, s.n) for s in found.subjects] == [
        *[("colour", n[0])] * 2,
        *[("warm", n[1])] * 2,
    ]
    scores = {t.name: t.top1_pct for t in evaluate(run, None)[0].tasks}
    assert {s.task: s.top1_pct for s in found.subjects} == pytest.approx(scores)
    for subject in found.subjects:
        by_class, by_folder = (
            {s.group: s.n for s in subject.groups if s.by == by} for by in ("class", "folder:1")
        )
        assert sum(by_class.values()) == sum(by_folder.values()) == subject.n
        assert set(by_folder) == {"blue", "green", "red"}
        assert subject.lost == subject.won == ()


def test_predictions_are_kept_by_task(run: Path, tabled: DataSection) -> None:
    """What is kept with the run is what ``evaluate`` finds, in each task and in all."""
    (found,) = evaluate(run, None)
    for task in found.tasks:
        (right,) = read_rights([run], task.name)
        assert (len(right), sum(right)) == (task.n, task.correct)
    (right,) = read_rights([run])
    assert (len(right), sum(right)) == (found.n, found.correct)
    with pytest.raises(RunError, match="was not tested in task cold"):
        read_rights([run], "cold")


def test_the_guard_compares_each_task(tmp_path: Path, run: Path, tabled: DataSection) -> None:
    model = ModelSection("resnet8", 16, weights=str(run / "model" / "weights.safetensors"))
    train = replace(TRAIN, epochs=1, lr=1e-5)
    section = TeacherSection(model, "full", guard=True, train=train)
    info, sweep = finetune_all(tabled, section, tmp_path / "run")
    assert sweep is not None and sweep == read_sweep(tmp_path / "run-guard")
    arms = [(arm.task, arm.name) for arm in sweep.arms]
    names = ("full", "probe", "scratch")
    assert arms == [(task, name) for task in (None, "colour", "warm") for name in names]
    tested = {task["name"]: task for task in info.result["test"]["tasks"]}
    for arm in (arm for arm in sweep.arms if arm.task is not None and arm.name == "full"):
        assert arm.mean_pct == pytest.approx(tested[arm.task]["top1_pct"])
        assert arm.gain is not None and arm.gain.n == tested[arm.task]["n"]
    assert "full, in warm" in sweep_table(sweep) and "full, in warm" in (sweep_answer(sweep) or "")


def test_harm_in_one_task_is_harm(tmp_path: Path) -> None:
    def arm(task: str | None, low: float, high: float) -> Arm:
        gain = SeededGain((low + high) / 2, low, high, 2, 100)
        return Arm("full", (), (0, 1), (), 0.0, (), gain, task)

    arms = (arm(None, -1.0, 3.0), arm("colour", 1.0, 5.0), arm("warm", -5.0, -1.0))
    with pytest.raises(GateError, match="below the same model from scratch in task warm"):
        refuse_harm(Sweep(SCHEMA, "resnet8", None, 100, "scratch", arms), tmp_path / "run")


def test_a_curve_is_drawn_for_each_task_from_the_same_trainings(
    tmp_path: Path, tabled: DataSection
) -> None:
    train = replace(TRAIN, epochs=1)
    teacher = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=train)
    seen = {
        task: learning_curve(
            tabled, teacher, tmp_path, fractions=(0.25, 0.5, 1), seeds=1, task=task
        )
        for task in (None, "colour", "warm")
    }
    assert len(list(tmp_path.glob("*/seed-0"))) == 3
    labels = open_data(tabled).splits["test"].labels
    n = (labels >= 0).sum(axis=0).tolist()
    assert [curve.n for curve in seen.values()] == [len(labels), *n]
    for task, curve in seen.items():
        last = tmp_path / str(curve.points[-1].images) / "seed-0"
        (right,) = read_rights([last], task)
        assert curve.points[-1].top1_pct == pytest.approx(100 * sum(right) / len(right))


@pytest.mark.parametrize("head", ["logistic", "svm", "mlp"])
def test_a_probe_is_fitted_for_each_task(
    tmp_path: Path, run: Path, tabled: DataSection, head: str
) -> None:
    """It is the classifier of one task alone, on the images that have its label."""
    model = ModelSection("resnet8", 16, weights=str(run / "model" / "weights.safetensors"))
    options = {"head": head, "c": 1.0, **({"hidden": 8} if head == "mlp" else {})}
    section = TeacherSection(model, "probe", strategy_options=options, train=TRAIN)
    info = finetune(tabled, section, tmp_path / "run")
    assert info.result["probe"] == {"tasks": [{"name": n, "c": 1.0} for n in ("colour", "warm")]}
    assert all(task["top1_pct"] > 60 for task in info.result["test"]["tasks"])
    net, card = load_model(tmp_path / "run")
    assert card.options == ({"head_hidden": 16} if head == "mlp" else {})
    dataset = open_data(tabled)
    images = {s: images_of(tabled, dataset, s, card.preprocess) for s in ("train", "test")}
    logits = predict_logits(net, card.preprocess, images["test"])
    bare, _ = load_model(run)
    bare.fc = torch.nn.Identity()
    features = {s: predict_logits(bare, card.preprocess, i) for s, i in images.items()}
    form = Form(head, hidden=8)  # type: ignore[arg-type]
    for number, (begin, end) in enumerate(spans(dataset.tasks, 5)):
        labels = images["train"].labels[:, number].numpy()
        known = labels >= 0
        seen = features["train"][known].astype(np.float64), labels[known] - begin
        wanted = fit_head(*seen, form, 1.0)(features["test"].astype(np.float64))
        np.testing.assert_allclose(logits[:, begin:end], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "what", "fix"),
    [
        (True, "--task hot: data.labels has no such task", "known: colour, warm"),
        (False, "--task hot: the images have one label each", "--labels"),
    ],
)
def test_a_task_that_is_not_there_is_refused(
    tabled: DataSection, *, labels: bool, what: str, fix: str
) -> None:
    data = tabled if labels else replace(tabled, labels=None)
    with pytest.raises(InputError) as error:
        find_task(open_data(data).tasks, "hot")
    assert error.value.what == what and fix in error.value.fix


def test_one_task_is_a_data_set_of_its_own(tabled: DataSection) -> None:
    whole = open_data(tabled)
    warm = of_task(whole, "warm")
    assert warm.classes == ("False", "True") and not warm.tasks
    assert warm.fingerprint != of_task(whole, "colour").fingerprint
    for name, split in warm.splits.items():
        assert len(split) == int((whole.splits[name].labels[:, 1] >= 0).sum())
        assert len(warm.contents[name]) == len(split)
        for key, label in zip(split.keys, split.labels.tolist(), strict=True):
            assert warm.classes[label] == str(key.startswith("red/"))


def test_labels_of_fewer_tasks_are_refused(tmp_path: Path, run: Path, tabled: DataSection) -> None:
    rows = Path(str(tabled.labels)).read_text(encoding="utf-8").splitlines()
    one = tmp_path / "one.csv"
    one.write_text("\n".join(row.rpartition(",")[0] for row in rows), encoding="utf-8")
    with pytest.raises(ModelError, match="answers the tasks colour, warm") as error:
        evaluate(run, replace(tabled, labels=str(one)))
    assert "--labels" in error.value.fix


def test_a_student_is_taught_each_task(tmp_path: Path, run: Path, tabled: DataSection) -> None:
    student = StudentSection(ModelSection("resnet8", size=16), loss="dkd", train=TRAIN)
    info = distill(tabled, [run], student, tmp_path / "student")
    log = (tmp_path / "student" / "metrics.jsonl").read_text()
    assert '"colour_dkd"' in log and '"warm_cross_entropy"' in log
    assert [task["name"] for task in info.result["test"]["tasks"]] == ["colour", "warm"]
    with pytest.raises(RecipeError, match="cache_top_k"):
        distill(tabled, [run], replace(student, cache_top_k=2), tmp_path / "other")


@pytest.mark.ort
def test_a_bundle_has_an_output_for_each_task(tmp_path: Path, run: Path) -> None:
    section = ExportSection(("x86-onnxruntime", "x86-torch"), "fp32")
    manifest = export(run, section, tmp_path / "bundle")
    first, second = manifest.artefacts
    assert [(o.name, o.shape[-1]) for o in first.outputs] == [
        ("logits_colour", 3),
        ("logits_warm", 2),
    ]
    assert [o.shape[-1] for o in second.outputs] == [3, 2]
    assert {f.status for f in verify_bundle(tmp_path / "bundle", "x86_64")} == {"ok"}
    with load_bundle(tmp_path / "bundle") as loaded:
        said = loaded.predict(np.full((16, 16, 3), (200, 50, 40), np.uint8))
    assert set(said.labels) == {"colour", "warm"}
    assert said.label == ", ".join(f"{task}={name}" for task, name in said.labels.items())
    shares = [sum(said.probabilities[n] for n in manifest.labels[a:b]) for a, b in ((0, 3), (3, 5))]
    assert shares == pytest.approx([1.0, 1.0])


class _Fixed(torch.nn.Module):
    """Answers with what it was given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        del pixels
        return self._logits
