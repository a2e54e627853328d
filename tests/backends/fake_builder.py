"""The builder's side of the fake TensorRT: networks read from ONNX, engines that carry the file.

A method stands here under the name it has in the bindings; which version has it is no matter of
this file. Running engines is in ``fake_engine``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.backends.fake_cudart import FakeCudart

MAGIC = b"fake-engine\n"
LAYERS = {
    "Conv": "CONVOLUTION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Relu": "ACTIVATION",
    "GlobalAveragePool": "REDUCE",
    "Gemm": "MATRIX_MULTIPLY",
    "Flatten": "SHUFFLE",
}
# ONNX's numbers of element types.
DTYPES = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 11: "DOUBLE"}


@dataclass
class World:
    """The device and what a test wants of it.

    Attributes:
        trt: the module.
        cudart: its CUDA runtime.
        dla_cores: how many there are.
        unsupported: ONNX operators that the parser does not know.
        no_room: whether an execution context finds no memory.
        build_error: what a build fails with; ``None`` where it works.
        run_error: likewise of a run.
        calls: names of the methods that were called.
        configs: of the builds, in their order.
    """

    trt: Any
    cudart: FakeCudart
    dla_cores: int = 0
    unsupported: tuple[str, ...] = ()
    no_room: bool = False
    build_error: str | None = None
    run_error: str | None = None
    calls: list[str] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)

    def make(self, class_name: str, /, **state: Any) -> Any:
        """Make an object that the bindings have no constructor for."""
        kind = getattr(self.trt, class_name)
        made = kind.__new__(kind)
        for key, value in state.items():
            object.__setattr__(made, f"_{key}", value)
        return made

    def complain(self, log: Any, text: str) -> None:
        log.log(self.trt.ILogger.ERROR, text)

    @property
    def implicit_batch(self) -> bool:
        """Whether networks have an implicit batch unless told otherwise, as up to TensorRT 8."""
        return hasattr(self.trt.Builder, "max_batch_size")


class ILogger:
    def __init__(self: Any) -> None:
        pass


class IInt8EntropyCalibrator2:
    def __init__(self: Any) -> None:
        pass


class Builder:
    def __init__(self: Any, logger: Any) -> None:
        self._log = logger

    def num_DLA_cores(self: Any) -> int:  # noqa: N802 - its name in the bindings
        return int(self._world.dla_cores)

    def create_network(self: Any, flags: int = 0) -> Any:
        return self._world.make("INetworkDefinition", flags=flags, model=None)

    def create_builder_config(self: Any) -> Any:
        return self._world.make("IBuilderConfig", flags_set=[], pools={}, profiles=[], cache=None)

    def create_optimization_profile(self: Any) -> Any:
        return self._world.make("IOptimizationProfile", shapes={})

    def build_serialized_network(self: Any, network: Any, config: Any) -> Any:
        world = self._world
        world.configs.append(config)
        wrong = world.build_error or _objection(world, network, config)
        if wrong:
            world.complain(self._log, wrong)
            return None
        header = {
            "version": world.trt.__version__,
            "capability": list(world.cudart.capability),
            "dla": _on_dla(config),
            "detailed": getattr(config.profiling_verbosity, "name", "") == "DETAILED",
            "shapes": config._profiles[0]._shapes if config._profiles else {},
        }
        if config._cache is not None:
            object.__setattr__(config._cache, "_content", _cache_header(world) + b" timed")
        content = MAGIC + json.dumps(header).encode() + b"\n" + network._model.SerializeToString()
        return world.trt.IHostMemory(content)


def _objection(world: World, network: Any, config: Any) -> str | None:
    """Say what TensorRT would refuse in a network and a configuration."""
    trt, names = world.trt, {flag.name for flag in config._flags_set}
    weak = hasattr(trt.BuilderFlag, "FP16")
    strong = not weak or _has_flag(trt, network, "STRONGLY_TYPED")
    kinds = {layer.type.name for layer in network._layers}
    calibrated = getattr(config, "int8_calibrator", None)
    if strong and names & {"FP16", "INT8"}:
        return "Strongly typed network: precision flags are not supported"
    if weak and _on_dla(config) and not names & {"FP16", "INT8"}:
        return "DLA: FP32 mode is not permitted"
    if "INT8" in names and calibrated is None and "DEQUANTIZE" not in kinds:
        return "Calibration failure occurred with no scaling factors detected"
    if calibrated is not None and not calibrated.read_calibration_cache():
        return "Calibration failure: no images"
    if config._pools.get("WORKSPACE", 0) > world.cudart.free:
        return "Requested amount of GPU memory could not be allocated"
    if any(-1 in tensor.shape for tensor in network._inputs) and not config._profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    return None


def _on_dla(config: Any) -> bool:
    return getattr(config.default_device_type, "name", "GPU") == "DLA"


def _has_flag(trt: Any, network: Any, name: str) -> bool:
    flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
    return flag is not None and bool(network._flags >> int(flag) & 1)


def _cache_header(world: World) -> bytes:
    return f"timing {world.trt.__version__} {world.cudart.capability}".encode()


class IBuilderConfig:
    def set_flag(self: Any, flag: Any) -> None:
        self._flags_set.append(flag)

    def clear_flag(self: Any, flag: Any) -> None:
        object.__setattr__(self, "_cleared", [*getattr(self, "_cleared", []), flag])

    def set_memory_pool_limit(self: Any, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self: Any, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self: Any, serialized_timing_cache: bytes) -> Any:
        return self._world.make("ITimingCache", content=serialized_timing_cache)

    def set_timing_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        content = cache._content
        if content and not content.startswith(_cache_header(self._world)) and not ignore_mismatch:
            return False
        object.__setattr__(self, "_cache", cache)
        return True

    def get_timing_cache(self: Any) -> Any:
        return self._cache


class ITimingCache:
    def serialize(self: Any) -> Any:
        return self._world.trt.IHostMemory(self._content)


class IOptimizationProfile:
    def set_shape(self: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self._shapes[input] = [list(min), list(opt), list(max)]


class INetworkDefinition:
    def num_layers(self: Any) -> int:
        return len(self._layers)

    def num_inputs(self: Any) -> int:
        return len(self._inputs)

    def get_layer(self: Any, index: int) -> Any:
        return self._layers[index]

    def get_input(self: Any, index: int) -> Any:
        return self._inputs[index]


class ILayer:
    def num_outputs(self: Any) -> int:
        return len(self._outputs)

    def get_output(self: Any, index: int) -> Any:
        return self._outputs[index]


class OnnxParser:
    def __init__(self: Any, network: Any, logger: Any) -> None:
        self._network, self._log = network, logger
        self._errors: list[Any] = []

    def num_errors(self: Any) -> int:
        return len(self._errors)

    def get_error(self: Any, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self: Any, model: str) -> bool:
        import onnx

        world, network = self._world, self._network
        if world.implicit_batch and not _has_flag(world.trt, network, "EXPLICIT_BATCH"):
            world.complain(self._log, "only network definitions with an explicit batch dimension")
            return False
        try:
            content = onnx.shape_inference.infer_shapes(onnx.load(model))
        except Exception as error:  # protobuf raises what it likes
            world.complain(self._log, f"ModelImporter: failed to parse {Path(model).name}\n{error}")
            return False
        for place, node in enumerate(content.graph.node):
            if node.op_type in world.unsupported:
                text = f"No importer registered for op: {node.op_type}.\n  Attempting plugin"
                self._errors.append(world.make("ParserError", place=place, node_=node, text=text))
                return False
        object.__setattr__(network, "_model", content)
        _read_network(world, network, content)
        return True


def _read_network(world: World, network: Any, model: Any) -> None:
    known = {
        v.name: v.type.tensor_type
        for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }

    def tensor(name: str) -> Any:
        found = known.get(name)
        shape = () if found is None else shape_of(found)
        kind = DTYPES[found.elem_type] if found is not None else "FLOAT"
        dtype = getattr(world.trt.DataType, kind, world.trt.DataType.FLOAT)
        return world.make("ITensor", name=name, shape=shape, dtype=dtype)

    kinds = world.trt.LayerType
    layers = [
        world.make(
            "ILayer",
            name=node.name,
            type=getattr(kinds, LAYERS.get(node.op_type, "ELEMENTWISE")),
            outputs=[tensor(name) for name in node.output],
        )
        for node in model.graph.node
    ]
    object.__setattr__(network, "_layers", layers)
    object.__setattr__(network, "_inputs", [tensor(v.name) for v in model.graph.input])


def shape_of(tensor: Any) -> tuple[int, ...]:
    return tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)


class ParserError:
    def node(self: Any) -> int:
        return int(self._place)

    def desc(self: Any) -> str:
        return str(self._text)

    def node_name(self: Any) -> str:
        return str(self._node_.name)

    def node_operator(self: Any) -> str:
        return str(self._node_.op_type)
