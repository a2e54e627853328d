"""The runner's side of the fake TensorRT: its engines run ONNX files with ONNX Runtime.

Inputs are read from the fake device's memory and outputs are written there when the stream's turn
comes, so that a test sees numbers only if every byte went the right way. A method stands here under
the name it has in the bindings; which version has it is no matter of this file.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np

from tests.backends.fake_builder import DTYPES, MAGIC, shape_of
from tests.backends.fake_cudart import DEVICE

NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT64": "int64"}


class Runtime:
    def __init__(self: Any, logger: Any) -> None:
        self._log = logger

    def deserialize_cuda_engine(self: Any, serialized_engine: Any) -> Any:
        world, content = self._world, bytes(serialized_engine)
        if not content.startswith(MAGIC):
            world.complain(self._log, "Serialization assertion magicTagRead failed.")
            world.complain(self._log, "Engine deserialization failed.")
            return None
        head, _, model = content[len(MAGIC) :].partition(b"\n")
        header = json.loads(head)
        if header["version"] != world.trt.__version__:
            world.complain(self._log, "Version tag does not match. Current Version: 213")
            return None
        if header["capability"] != list(world.cudart.capability):
            world.complain(self._log, "generated for another compute capability, please rebuild")
            return None
        if header["dla"] and self.DLA_core is None:
            world.complain(self._log, "the engine needs a DLA core")
            return None
        return world.make("ICudaEngine", header=header, content=model, log=self._log)


class ICudaEngine:
    def num_io_tensors(self: Any) -> int:
        return len(_ends(self))

    def get_tensor_name(self: Any, index: int) -> str:
        return str(_ends(self)[index][0])

    def get_tensor_mode(self: Any, name: str) -> Any:
        return getattr(self._world.trt.TensorIOMode, _end(self, name)[1])

    def get_tensor_dtype(self: Any, name: str) -> Any:
        return getattr(self._world.trt.DataType, _end(self, name)[2])

    def get_tensor_shape(self: Any, name: str) -> Any:
        return _end(self, name)[3]

    def get_tensor_profile_shape(self: Any, name: str, profile_index: int) -> Any:
        assert profile_index == 0
        return [tuple(shape) for shape in self._header["shapes"][name]]

    def device_memory_size(self: Any) -> int:
        return 123_456

    device_memory_size_v2 = device_memory_size

    def create_execution_context(self: Any) -> Any:
        import onnxruntime as ort

        if self._world.no_room:
            self._world.complain(self._log, "Error Code 2: OutOfMemory (requested 123456 bytes)")
            return None
        session = ort.InferenceSession(self._content, providers=["CPUExecutionProvider"])
        return self._world.make(
            "IExecutionContext", engine=self, run=session, shapes={}, places={}, settled=False
        )

    def create_engine_inspector(self: Any) -> Any:
        return self._world.make("EngineInspector", engine=self)


def _ends(engine: Any) -> list[tuple[str, str, str, tuple[int, ...]]]:
    import onnx

    graph = onnx.load_from_string(engine._content).graph
    found = []
    for mode, values in (("INPUT", graph.input), ("OUTPUT", graph.output)):
        for value in values:
            kind = value.type.tensor_type
            found.append((value.name, mode, DTYPES[kind.elem_type], shape_of(kind)))
    return found


def _end(engine: Any, name: str) -> Any:
    return next(end for end in _ends(engine) if end[0] == name)


class EngineInspector:
    def get_engine_information(self: Any, format: Any) -> str:
        assert format.name == "JSON"
        import onnx

        engine, graph = self._engine, onnx.load_from_string(self._engine._content).graph
        known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
        ends = [end[0] for end in _ends(engine)]
        old = hasattr(self._world.trt.BuilderFlag, "FP16")
        tensors = {"Bindings": ends} if old else {"I/O Tensors": [{"Name": n} for n in ends]}
        words = {"FLOAT": "FP32", "HALF": "FP16"} if old else {"FLOAT": "Float", "HALF": "Half"}
        layers: list[Any] = []
        for node in graph.node:
            kind = DTYPES[known.get(node.output[0], 1)]
            text = words.get(kind, kind.capitalize())
            told = {"Format/Datatype": f"Row major linear {text} format"} if old else {}
            outputs = [{"Name": node.output[0], **(told or {"DataType": text})}]
            layers.append({"Name": node.output[0], "Outputs": outputs})
        if not engine._header["detailed"]:
            layers = [layer["Name"] for layer in layers]
        return json.dumps({"Layers": layers, **tensors})


class IExecutionContext:
    def set_input_shape(self: Any, name: str, shape: Any) -> bool:
        least, _, most = self._engine._header["shapes"][name]
        fits = len(shape) == len(most)
        fits = fits and all(a <= s <= b for a, s, b in zip(least, shape, most, strict=True))
        if fits and self._shapes.get(name) != tuple(shape):
            self._shapes[name] = tuple(shape)
            object.__setattr__(self, "_settled", False)
        return fits

    def get_tensor_shape(self: Any, name: str) -> Any:
        if name in self._shapes:
            return self._shapes[name]
        shape = _end(self._engine, name)[3]
        batch = next((s[0] for s in self._shapes.values()), -1)
        return tuple(batch if side == -1 else side for side in shape)

    def set_tensor_address(self: Any, name: str, memory: int) -> bool:
        self._places[name] = memory
        return True

    def execute_async_v3(self: Any, stream_handle: int) -> bool:
        world, cudart = self._world, self._world.cudart
        stream, log = cudart.stream(stream_handle), self._engine._log
        if stream.recording is not None and not (cudart.captures and self._settled):
            stream.broken = True
            world.complain(log, "IExecutionContext::enqueueV3: stream is capturing")
            return False
        if world.run_error:
            world.complain(log, world.run_error)
            return False
        ends = [(n, mode, NUMPY[kind]) for n, mode, kind, _ in _ends(self._engine)]
        shapes = {name: self.get_tensor_shape(name) for name, _, _ in ends}
        assert set(self._places) == set(shapes), "an address is missing"
        assert all(-1 not in shape for shape in shapes.values()), "a shape is missing"
        for name, _, dtype in ends:
            size = int(np.prod(shapes[name])) * np.dtype(dtype).itemsize
            cudart.allocation(self._places[name], size, DEVICE)

        def work() -> None:
            arrays = {
                name: _memory(self._places[name], dtype, shapes[name]) for name, _, dtype in ends
            }
            feed = {name: arrays[name].copy() for name, mode, _ in ends if mode == "INPUT"}
            outputs = [name for name, mode, _ in ends if mode == "OUTPUT"]
            for name, value in zip(outputs, self._run.run(outputs, feed), strict=True):
                arrays[name][...] = value

        stream.put(work)
        object.__setattr__(self, "_settled", True)
        return True


def _memory(address: int, dtype: str, shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block: Any = (ctypes.c_byte * size).from_address(address)
    return np.frombuffer(block, dtype).reshape(shape)
