"""Feature losses: what a student's feature maps have to do with those of its teacher.

===========  =============================================  ======  ================================
name         paper                                          weight  layers by default
===========  =============================================  ======  ================================
hint         FitNets, Romero et al., ICLR 2015              100     the middle stage
attention    AT, Zagoruyko & Komodakis, ICLR 2017           1000    all stages
relational   RKD, Park et al., CVPR 2019                    1       the last stage, pooled
similarity   SP, Tung & Mori, ICCV 2019                     3000    the last stage
review       ReviewKD, Chen et al., CVPR 2021               1       all stages, and the last pooled
===========  =============================================  ======  ================================

Where one of the two models has more stages, all stages are as many of the last as both have. The
weights stand in ``terms.py``, with where they come from. ``relational`` and ``similarity`` compare
the images of a batch with each other, micro-batch by micro-batch.

Each loss takes the student's and the teacher's maps (B, C, H, W) in float32, layer by layer from
first to last, and returns a scalar, the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.distill.terms import Term
from edgexfer.models.layers import find_layer, stage_modules
from edgexfer.models.taps import Taps, probe

Maps = Sequence[Tensor]
Shape = tuple[int, int, int]


class Hint(nn.Module):
    """Loss of Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.

    mean (W(s) - t)², W a 1x1 convolution from the student's channels to the teacher's, with batch
    norm; the larger map is pooled to the size of the smaller. As in the comparison by Tian et al.
    2020, whose weight is the default, it acts through the whole training, not in a stage of its own
    before it; without the norm that weight makes trainings diverge.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        """Build a projector for each layer.

        Args:
            student: channels, height and width of the student's maps.
            teacher: of the teacher's.
        """
        super().__init__()
        pairs = zip(student, teacher, strict=True)
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(s[0], t[0], 1, bias=False), _Norm(t[0])) for s, t in pairs
        )

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the loss of maps (B, C, H, W)."""
        total = student[0].new_zeros(())
        for project, s, t in zip(self.projectors, student, teacher, strict=True):
            ours, theirs = _same_size(s, t)
            total = total + F.mse_loss(project(ours), theirs)
        return total


def attention(student: Maps, teacher: Maps) -> Tensor:
    """Loss of Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2.

    mean (q(s) - q(t))², q(a) = the mean over the channels of a², flattened and scaled to norm 1:
    where in the image the activity is. The larger map is pooled to the size of the smaller. Several
    layers: the sum. The mean over the positions, for which the paper has the norm, is that of the
    comparison by Tian et al. 2020, whose weight is the default.

    Args:
        student: maps (B, C, H, W).
        teacher: maps (B, C', H', W').
    """
    total = student[0].new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = (_unit(m.square().mean(1).flatten(1)) for m in _same_size(s, t))
        total = total + F.mse_loss(ours, theirs)
    return total


def relational(student: Maps, teacher: Maps) -> Tensor:
    """Loss of Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 6 and 9.

    25 · distance + 50 · angle of the maps' averages over their positions: Huber losses between the
    distances of all pairs of images, in units of their mean, and between the cosines of the angles
    of all triples. Memory grows with B²·C and B³. Several layers: the sum.

    Args:
        student: maps (B, C, H, W).
        teacher: maps (B, C', H', W').
    """
    total = student[0].new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        (our_distances, our_cosines), (distances, cosines) = (
            _relations(m.mean((2, 3))) for m in (s, t)
        )
        total = total + 25 * F.smooth_l1_loss(our_distances, distances)
        total = total + 50 * F.smooth_l1_loss(our_cosines, cosines)
    return total


def similarity(student: Maps, teacher: Maps) -> Tensor:
    """Loss of Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equation 4.

    ‖G(s) - G(t)‖² / B², G(a) the products of all pairs of flattened maps, (B, B), each row scaled
    to norm 1. Several layers: the sum.

    Args:
        student: maps (B, C, H, W).
        teacher: maps (B, C', H', W').
    """
    total = student[0].new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = (_unit(m.flatten(1) @ m.flatten(1).T) for m in (s, t))
        total = total + F.mse_loss(ours, theirs)
    return total


class Review(nn.Module):
    """Loss of Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, equation 8.

    From the last layer to the first, the student's map is fused with what came before it and
    compared with the teacher's map by ``hierarchical_context``; the sum over the layers. The last
    map, pooled to one position, is a layer of its own at the end, as in the paper. The teacher's
    maps are those that its stages put out, not those before the activation.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        """Build the fusions.

        Args:
            student: channels, height and width of the student's maps, first layer to last.
            teacher: of the teacher's.
        """
        super().__init__()
        inside = [*(s[0] for s in student), student[-1][0]]
        outside = [*(t[0] for t in teacher), teacher[-1][0]]
        middle = min(512, inside[-1])
        self.fusions = nn.ModuleList(
            Fusion(i, middle, o, last=place == len(student))
            for place, (i, o) in enumerate(zip(inside, outside, strict=True))
        )

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Return the loss of maps (B, C, H, W)."""
        ours = [*student, student[-1].mean((2, 3), keepdim=True)]
        theirs = [*teacher, teacher[-1].mean((2, 3), keepdim=True)]
        total = student[0].new_zeros(())
        behind: Tensor | None = None
        for fusion, s, t in zip(reversed(self.fusions), ours[::-1], theirs[::-1], strict=True):
            reviewed, behind = fusion(s, behind, t.shape[-2:])
            total = total + hierarchical_context(reviewed, t)
        return total


class Fusion(nn.Module):
    """Attention-based fusion of a map with the deeper ones (section 3.3 of ``Review``'s paper)."""

    def __init__(self, inside: int, middle: int, outside: int, *, last: bool) -> None:
        """Build the convolutions.

        Args:
            inside: channels of the student's map.
            middle: channels in which maps are fused.
            outside: channels of the teacher's map.
            last: whether there is nothing deeper to fuse with.
        """
        super().__init__()
        narrow = nn.Conv2d(inside, middle, 1, bias=False)
        widen = nn.Conv2d(middle, outside, 3, padding=1, bias=False)
        for convolution in (narrow, widen):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.enter = nn.Sequential(narrow, _Norm(middle))
        self.leave = nn.Sequential(widen, _Norm(outside))
        self.attend = None if last else nn.Conv2d(2 * middle, 2, 1)

    def forward(
        self, x: Tensor, behind: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return what to compare with the teacher's map, and what to fuse the next map with.

        Args:
            x: the student's map (B, inside, H, W).
            behind: what the deeper layer returned, (B, middle, h, w).
            size: height and width of the teacher's map.
        """
        x = self.enter(x)
        if self.attend is not None and behind is not None:
            behind = F.interpolate(behind, x.shape[-2:], mode="nearest")
            share = self.attend(torch.cat([x, behind], 1)).sigmoid()
            x = x * share[:, :1] + behind * share[:, 1:]
        x = F.interpolate(x, tuple(size), mode="nearest")
        return self.leave(x), x


class _Norm(nn.BatchNorm2d):
    """Batch norm of a projector: it has no statistics to keep, as it is never used but to train."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        # Of a single value per channel torch refuses to take a variance; less its mean it is 0.
        if x.numel() == x.shape[1]:
            return self.bias[:, None, None].expand_as(x)
        return super().forward(x)


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of two maps (B, C, H, W) at several scales.

    At full size with weight 1, and pooled to 4, 2 and 1 positions a side where that is smaller,
    with weights 1/2, 1/4 and 1/8 in this order; divided by the sum of the weights (section 3.4 of
    ``Review``'s paper).
    """
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side < min(student.shape[-2:]):
            weight /= 2
            ours, theirs = (F.adaptive_avg_pool2d(m, side) for m in (student, teacher))
            total = total + weight * F.mse_loss(ours, theirs)
            weights += weight
    return total / weights


class Features(nn.Module):
    """All feature losses of one objective; its parameters are the projectors.

    It looks into both models by hooks, from its making until ``close``; it is a context manager
    that closes itself.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        student: nn.Module,
        teacher: nn.Module,
        student_example: Tensor,
        teacher_example: Tensor,
        seed: int = 0,
    ) -> None:
        """Choose the layers, build the projectors on the CPU and open the taps.

        Args:
            terms: of a sum, with one feature loss at least; logit losses are left to others.
            student: bare, takes normalised images; its weights and modes are left as they are.
            teacher: likewise.
            student_example: normalised images (B, 3, H, W) at the student's size, on its device.
            teacher_example: at the teacher's size, on its device.
            seed: of the projectors; torch's global generators are left as they were.

        Raises:
            ModelError: a layer does not exist, or puts out no feature map.
        """
        super().__init__()
        self.terms = tuple(term for term in terms if term.facts.features)
        self._layers = [_choose(term, student, teacher) for term in self.terms]
        ours = probe(student, [n for names, _ in self._layers for n in names], student_example)
        theirs = probe(teacher, [n for _, names in self._layers for n in names], teacher_example)
        self._losses: list[Callable[[Maps, Maps], Tensor]] = []
        with _seeded(seed):
            for term, (mine, others) in zip(self.terms, self._layers, strict=True):
                shapes = [ours[n].shape for n in mine], [theirs[n].shape for n in others]
                projected = _PROJECTED.get(term.name)
                self._losses.append(projected(*shapes) if projected else _PLAIN[term.name])
        self.projectors = nn.ModuleList(m for m in self._losses if isinstance(m, nn.Module))
        self._student = Taps(student, ours, training=True)
        self._teacher = Taps(teacher, theirs, training=False)

    def forward(self) -> dict[str, Tensor]:
        """Return each term's loss, unweighted, by its label; both models have run since the last.

        Student and teacher saw the same images; the student ran with gradients, the teacher
        without. Everything is computed in float32, under autocast too.
        """
        ours = {name: m.float() for name, m in self._student.take().items()}
        theirs = {name: m.float() for name, m in self._teacher.take().items()}
        device = next(iter(ours.values())).device
        with torch.autocast(device.type, enabled=False):
            return {
                term.label: loss([ours[n] for n in mine], [theirs[n] for n in others])
                for term, loss, (mine, others) in zip(
                    self.terms, self._losses, self._layers, strict=True
                )
            }

    def close(self) -> None:
        """Remove every hook from both models."""
        self._student.close()
        self._teacher.close()

    def __enter__(self) -> Features:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


_PROJECTED: dict[str, Callable[[list[Shape], list[Shape]], nn.Module]] = {
    "hint": Hint,
    "review": Review,
}
_PLAIN: dict[str, Callable[[Maps, Maps], Tensor]] = {
    "attention": attention,
    "relational": relational,
    "similarity": similarity,
}


def _choose(
    term: Term, student: nn.Module, teacher: nn.Module
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a term's layers in both models."""
    if term.student is not None and term.teacher is not None:
        return (
            (find_layer(student, term.student, f"loss {term.label}: the student"),),
            (find_layer(teacher, term.teacher, f"loss {term.label}: the teacher"),),
        )
    stages = []
    for who, model in (("student", student), ("teacher", teacher)):
        stages.append(stage_modules(model))
        if not stages[-1]:
            raise ModelError(
                f"loss {term.name}: the {who} {type(model).__name__} does not say its stages",
                f"name the layers, as in {term.name}@STUDENT_MODULE:TEACHER_MODULE",
            )
    ours, theirs = stages
    if term.name == "hint":
        return (ours[(len(ours) - 1) // 2],), (theirs[(len(theirs) - 1) // 2],)
    if term.name in ("relational", "similarity"):
        return ours[-1:], theirs[-1:]
    common = min(len(ours), len(theirs))
    return ours[-common:], theirs[-common:]


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Pool two maps to the smaller height and the smaller width of both."""
    height, width = map(min, student.shape[-2:], teacher.shape[-2:])
    ours, theirs = (
        m if m.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(m, (height, width))
        for m in (student, teacher)
    )
    return ours, theirs


def _relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances (B, B) in units of their mean, and cosines (B, B, B), of points (B, C)."""
    between = x[None, :] - x[:, None]
    distances = _norm(between).squeeze(2)
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    directions = _unit(between)
    return distances / mean.where(mean > 0, 1), directions @ directions.transpose(1, 2)


def _norm(x: Tensor) -> Tensor:
    """Return the norm along the last dimension, which is kept; its gradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def _unit(x: Tensor) -> Tensor:
    """Scale to norm 1 along the last dimension; what is 0 stays 0, and its gradient bounded."""
    norm = _norm(x)
    return x / norm.where(norm > 0, 1)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed on the CPU, and leave the generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
