"""The finished model of a run: ``RUN/model/weights.safetensors`` and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgexfer.core.files import make_dir, sha256_bytes, write_atomic
from edgexfer.core.model import FOLDER, SCHEMA, WEIGHTS, ModelCard, write_card
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.tasks import Task
from edgexfer.models.create import create_model
from edgexfer.models.weights import fit_weights, read_trained


def save_model(
    run: Path,
    model: nn.Module,
    *,
    name: str,
    classes: Sequence[str],
    preprocess: Preprocess,
    origin: str,
    options: Mapping[str, Any],
    tasks: Sequence[Task] = (),
) -> ModelCard:
    """Write a model into its run, the card last: where the card stands, the weights are whole.

    Args:
        run: the run's folder.
        model: its weights and buffers are stored.
        name: architecture, as ``create_model`` takes it.
        classes: names, in the order of the outputs.
        preprocess: how the model is fed.
        origin: where training began, as ``create_model`` says.
        options: of the architecture.
        tasks: what the outputs are about, where that is more than one question.

    Raises:
        DiskError: the disk is full or the run cannot be written.
    """
    from safetensors.torch import save

    data = save({n: stored(t) for n, t in model.state_dict().items()})
    write_atomic(make_dir(run / FOLDER) / WEIGHTS, data)
    card = ModelCard(
        schema=SCHEMA,
        name=name,
        classes=tuple(classes),
        preprocess=preprocess,
        parameters=sum(p.numel() for p in model.parameters()),
        weights_sha256=sha256_bytes(data),
        origin=origin,
        options=dict(options),
        tasks=tuple(tasks),
    )
    write_card(run, card)
    return card


def load_model(run: Path) -> tuple[nn.Module, ModelCard]:
    """Load a finished run's model in eval mode, on the CPU.

    Raises:
        RunError: the run holds no finished model.
        ModelError: the weights are missing, differ from the card, or do not fit the architecture.
    """
    tensors, card = read_trained(run)
    model, _ = create_model(card.name, len(card.classes), options=card.options)
    fit_weights(model, tensors, str(run))
    return model.eval(), card


def stored(tensor: Tensor) -> Tensor:
    """Return a tensor as safetensors takes it: on the CPU, contiguous, sharing no memory."""
    return tensor.detach().cpu().contiguous().clone()
