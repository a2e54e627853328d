"""Measuring what a machine reaches at most, for a profile of it.

The small ONNX files that keep it busy multiplying are written here, on the host; they are timed by
``bench/peaks.py``, which needs no ONNX library. Making a profile of it is in ``profile.py``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgexfer.bench.peaks import Kernel
from edgexfer.core.codec import decode
from edgexfer.core.files import write_json
from edgexfer.core.profile import Fact
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import Transport, checked, understood

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

ONNX_BACKENDS = ("onnxruntime", "openvino")
# That of the files that an export makes for these runtimes.
KERNEL_OPSET = 20
_LIMIT_S = 600.0
# Layers in a row, so that what runs once (entering, leaving, quantizing the input) weighs little.
_LAYERS = 4
# Convolutions 3 x 3 of 128 channels over 14 x 14, and products of 256 x 512 x 512: large enough for
# blocking, with weights that fit a cache; and a chain of them is over in a millisecond or a few, so
# that some runs of many fall between the turns of whatever else the machine does.
_CHANNELS, _SIDE = 128, 14
_ROWS, _WIDTH = 256, 512


def probe_machine(
    reach: Callable[[Path], Transport], backend: str
) -> tuple[dict[str, Any], dict[str, Fact]]:
    """Return the facts of a machine that is reached with a transport, and its peaks.

    Args:
        reach: makes the way to it, given a folder for scratch files.
        backend: of ``ONNX_BACKENDS`` for the peaks; there are none of any other.

    Raises:
        MachineError: it cannot be reached.
        BackendError: the runtime is missing there, or an emulator runs its programs.
    """
    if backend not in ONNX_BACKENDS:
        return ask_facts(reach), {}
    with _device_side(reach) as (way, program, scratch):
        facts = _facts(way, program)
        folder = scratch / "kernels"
        folder.mkdir()
        kernels = [{**vars(k), "path": k.path.name} for k in write_kernels(folder)]
        write_json(folder / "kernels.json", kernels)
        argv = [*program, "peaks", way.push(folder), "--backend", backend]
        found = understood(checked(way.run(argv, timeout_s=_LIMIT_S), way), way)
    return facts, {name: decode(Fact, value, name) for name, value in found.items()}


def ask_facts(reach: Callable[[Path], Transport]) -> dict[str, Any]:
    """Return what a machine says of itself, see ``bench.device.facts``.

    Args:
        reach: makes the way to it, given a folder for scratch files.

    Raises:
        InputError: its name or its host key is unknown.
        MachineError: it cannot be reached, or the device side does not run there.
    """
    with _device_side(reach) as (way, program, _):
        return _facts(way, program)


@contextlib.contextmanager
def _device_side(
    reach: Callable[[Path], Transport],
) -> Iterator[tuple[Transport, list[str], Path]]:
    """Hand out the way to a machine, the device side as it is started there, and a folder here."""
    with (
        tempfile.TemporaryDirectory(prefix="edgexfer-probe-") as name,
        contextlib.closing(reach(Path(name))) as way,
    ):
        scratch = Path(name)
        program = [*way.python, way.push(pack_device_side(scratch / "edgexfer.pyz"))]
        yield way, program, scratch


def _facts(way: Transport, program: Sequence[str]) -> dict[str, Any]:
    done = way.run([*program, "facts"], timeout_s=_LIMIT_S)
    found: dict[str, Any] = understood(checked(done, way), way)
    return found


def write_kernels(folder: Path) -> tuple[Kernel, ...]:
    """Write a chain of convolutions and one of matrix products, each in float and in INT8.

    Args:
        folder: exists.
    """
    convolution = (1, _CHANNELS, _SIDE, _SIDE), (_CHANNELS, _CHANNELS, 3, 3)
    product = (_ROWS, _WIDTH), (_WIDTH, _WIDTH)
    work = {"Conv": _CHANNELS**2 * 9 * _SIDE**2, "MatMul": _ROWS * _WIDTH**2}
    shapes = {"Conv": convolution, "MatMul": product}
    return tuple(
        Kernel(
            path=_write(folder / f"{op}-{kind}.onnx", op, *shapes[op], quantized=kind == "int8"),
            quantized=kind == "int8",
            operations=2 * _LAYERS * work[op],
            shape=shapes[op][0],
        )
        for op in shapes
        for kind in ("float", "int8")
    )


def _write(
    path: Path, op: str, shape: tuple[int, ...], weight: tuple[int, ...], *, quantized: bool
) -> Path:
    """Write one chain; INT8 with Q/DQ around each layer, as quantizers write it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[NodeProto] = []
    constants = {"scale": np.float32(0.05), "zero": np.uint8(128), "signed": np.int8(0)}
    tensors: list[TensorProto] = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1]} if op == "Conv" else {}
    chance = np.random.default_rng(0)

    def requantize(name: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"])
        )
        return f"{name}_d"

    current = requantize("x") if quantized else "x"
    for layer in range(_LAYERS):
        kernel = f"w{layer}"
        values = chance.standard_normal(weight, dtype=np.float32)
        if quantized:
            integers = np.clip(np.rint(values * 30), -127, 127).astype(np.int8)
            tensors.append(numpy_helper.from_array(integers, f"{kernel}_i"))
            inputs = [f"{kernel}_i", "scale", "signed"]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [kernel]))
        else:
            # Variance stays what it was, so that no layer meets denormal or infinite numbers.
            values /= np.sqrt(np.prod(weight) / (weight[0] if op == "Conv" else weight[1]))
            tensors.append(numpy_helper.from_array(values, kernel))
        nodes.append(helper.make_node(op, [current, kernel], [f"y{layer}"], **attributes))
        current = requantize(f"y{layer}") if quantized else f"y{layer}"
    graph = helper.make_graph(
        nodes,
        "kernel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, shape)],
        tensors,
    )
    opset = helper.make_opsetid("", KERNEL_OPSET)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path
