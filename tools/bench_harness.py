"""Whether the harness tells the truth: against benchmark_app, a bare loop, and its own cost.

Three CNNs are timed with the same threads, precision and input size by ``edgexfer bench`` and,
alternated with it, by a bare loop over onnxruntime and by OpenVINO's benchmark_app; the figure is
the median over the pairs of p50(edgexfer) / p50(other). All of them rotate over 64 inputs.

benchmark_app tells the time that OpenVINO's own C++ counts within a request. A caller from Python
waits some microseconds longer, which is what ``edgexfer bench`` counts; so benchmark_app's calls
are timed from outside too, and both ratios are printed.

Usage: python tools/bench_harness.py [--pairs 5] [--seconds 1] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgexfer.core.stats import median

# Widths and blocks of models of about 0.3, 2 and 10 ms on one core of a desktop CPU.
MODELS = {"small": (16, 3), "middle": (32, 6), "large": (64, 9)}
SIDE = 64
BARE = """
import json, sys, time
import numpy as np, onnxruntime as ort
path, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
spec = session.get_inputs()[0]
draw = np.random.default_rng(0)
feeds = [draw.standard_normal(spec.shape, dtype=np.float32) for _ in range(64)]
times, warm, end = [], time.perf_counter() + seconds / 2, 0.0
while not end or time.perf_counter() < end:
    feed = feeds[len(times) % 64]
    start = time.perf_counter_ns()
    session.run(None, {spec.name: feed})
    spent = time.perf_counter_ns() - start
    if start / 1e9 >= warm:
        end = end or time.perf_counter() + seconds
        times.append(spent)
print(sorted(times)[len(times) // 2])
"""
# benchmark_app as it is, but that its median is told unrounded (it prints 0.01 ms, 3 % of the small
# model's), beside that of the same calls as their caller sees them.
APP = """
import json, statistics, sys, time
from openvino.tools.benchmark import main
from openvino.tools.benchmark.benchmark import Benchmark
spent, now, loop = [], time.perf_counter_ns, Benchmark.sync_inference
class Timed:
    def __init__(self, request):
        self._request = request
    def set_input_tensors(self, tensors):
        self._start = now()
        self._request.set_input_tensors(tensors)
    def infer(self):
        self._request.infer()
        spent.append(now() - self._start)
    @property
    def latency(self):
        return self._request.latency
def sync_inference(self, request, queue):
    found = loop(self, Timed(request), queue)
    told = {"own_ns": 1e6 * statistics.median(found[0]), "caller_ns": statistics.median(spent)}
    open(out, "w").write(json.dumps(told))
    return found
Benchmark.sync_inference = sync_inference
out = sys.argv.pop(1)
main.main()
"""


def main() -> None:
    """Time pairs of processes and print the ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--seconds", type=float, default=1.0)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path)
    given = options.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (width, blocks) in MODELS.items():
            path = write_model(Path(scratch) / f"{name}.onnx", width, blocks)
            for runtime in ("onnxruntime", "openvino"):
                for row in compare(path, runtime, given):
                    rows.append(row)
                    print(_line(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(path: Path, runtime: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one model in pairs of processes, in an order that alternates.

    Returns:
        A row for each clock of the other side.
    """
    other = bare_loop if runtime == "onnxruntime" else benchmark_app
    pairs, overheads = [], []
    for pair in range(given.pairs):
        if pair % 2:
            reference = other(path, given)
            record = edgexfer_bench(path, runtime, given)
        else:
            record = edgexfer_bench(path, runtime, given)
            reference = other(path, given)
        run = record["processes"][0]
        pairs.append((median(run["infer_ns"]), reference))
        overheads += run["overhead_ns"]
    own_cost = {"p50": median(overheads), "p99": sorted(overheads)[-len(overheads) // 100]}
    rows = []
    for against in pairs[0][1]:
        ratios = [ours / theirs[against] for ours, theirs in pairs]
        rows.append(
            {
                "model": path.stem,
                "against": against,
                "edgexfer_ms": statistics.median(ours for ours, _ in pairs) / 1e6,
                "other_ms": statistics.median(theirs[against] for _, theirs in pairs) / 1e6,
                "median_ratio": statistics.median(ratios),
                "ratios": ratios,
                "overhead_ns": own_cost,
            }
        )
    return rows


def edgexfer_bench(path: Path, runtime: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one process of ``edgexfer bench``."""
    out = path.with_name("records")
    argv = [sys.executable, "-m", "edgexfer", "bench", str(path), "--runtime", runtime]
    argv += ["--precision", "fp32", "--processes", "1", "--seconds", str(given.seconds)]
    argv += ["--threads", str(given.threads), "--out", str(out)]
    subprocess.run(argv, check=True, capture_output=True)
    record: dict[str, Any] = json.loads((out / f"{path.stem}-{runtime}-fp32.json").read_text())
    return record


def bare_loop(path: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return the median latency of a plain loop over onnxruntime, in nanoseconds."""
    argv = [sys.executable, "-c", BARE, str(path), str(given.threads), str(given.seconds)]
    told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return {"bare onnxruntime loop": float(told)}


def benchmark_app(path: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return the median latencies of benchmark_app, in nanoseconds: one request, f32."""
    out = path.with_name("benchmark_app.json")
    argv = [sys.executable, "-c", APP, str(out)]
    argv += ["-m", str(path), "-d", "CPU", "-api", "sync", "-hint", "none"]
    # It takes no number of threads beside a hint; one stream is what the hint for latency means.
    argv += ["-nstreams", "1", "-nthreads", str(given.threads)]
    argv += ["-t", str(max(1, round(given.seconds)))]
    # Left alone, it gives a model of images another input, of uint8.
    argv += ["-infer_precision", "f32", "-ip", "f32"]
    argv += ["-i", str(write_inputs(path)), "-inference_only", "False"]
    subprocess.run(argv, check=True, capture_output=True)
    told = json.loads(out.read_text())
    return {"benchmark_app": told["own_ns"], "its calls from Python": told["caller_ns"]}


def write_inputs(path: Path) -> Path:
    """Write 64 inputs for benchmark_app to rotate over, unless they are there already."""
    folder = path.with_name("inputs")
    if not folder.exists():
        folder.mkdir()
        draw = np.random.default_rng(0)
        for number in range(64):
            image = draw.standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)
            np.save(folder / f"{number:02}.npy", image)
    return folder


def write_model(path: Path, width: int, blocks: int) -> Path:
    """Write a plain CNN with seeded weights: convolutions with ReLU, pooling, a linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, weights, source, depth = [], [], "images", 3
    for block in range(blocks):
        scale = np.sqrt(2 / (9 * depth))
        weight = (draw.standard_normal((width, depth, 3, 3)) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{block}"))
        nodes.append(
            helper.make_node("Conv", [source, f"w{block}"], [f"c{block}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{block}"], [f"r{block}"]))
        source, depth = f"r{block}", width
    head = draw.standard_normal((width, 10)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])]
    graph = helper.make_graph(nodes, "plain", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _line(row: dict[str, Any]) -> str:
    spread = f"{min(row['ratios']):.3f}..{max(row['ratios']):.3f}"
    return (
        f"{row['model']:7} {row['against']:22} {row['edgexfer_ms']:8.4f} ms {row['other_ms']:8.4f} "
        f"ms  ratio {row['median_ratio']:.4f} ({spread})  own cost {row['overhead_ns']['p50']:.0f} "
        f"ns, p99 {row['overhead_ns']['p99']:.0f} ns"
    )


if __name__ == "__main__":
    main()
