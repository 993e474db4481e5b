"""What peers need for the shapes of `fathom-latency shapes`: `peers.py onnxruntime|torch COUNT`, a JSON line a shape."""

import json
import resource
import statistics
import sys
import time

import numpy as np

GEMM, SKINNY = (276, 2048, 16384), (17, 1024, 4096)
random = np.random.default_rng(0)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(peer: str, shape: str, count: int, run) -> None:
    for _ in range(2):
        run()
    times, before = [], cpu()
    for _ in range(count):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e3)
    cpu_ms = (cpu() - before) * 1e3 / count
    print(json.dumps({"peer": peer, "shape": shape, "ms": statistics.median(times), "cpu_ms": cpu_ms}), flush=True)


def values(*shape: int) -> np.ndarray:
    return random.standard_normal(shape, dtype=np.float32)


def onnxruntime(count: int) -> None:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    def session(node, constants: dict, m: int, k: int, n: int):
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node], "g", [info("x", TensorProto.FLOAT, [m, k])], [info("y", TensorProto.FLOAT, [m, n])],
            [numpy_helper.from_array(v, name) for name, v in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        return ort.InferenceSession(model.SerializeToString(), options, providers=["WebGpuExecutionProvider"])

    def bench(shape: str, node, constants: dict, m: int, k: int, n: int) -> None:
        ready, feed = session(node, constants, m, k, n), {"x": values(m, k)}
        report("onnxruntime", shape, count, lambda: ready.run(None, feed))

    for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
        bench(f"{name} f32", helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": values(k, n)}, m, k, n)
        for bits, ours in ((8, "w8"), (4, "w4")):
            block = 64
            q = random.integers(0, 256, (n, k // block, block * bits // 8), dtype=np.uint8)
            node = helper.make_node(
                "MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=block
            )
            try:
                bench(f"{name} {ours}", node, {"q": q, "s": values(n * k // block) * 0.01}, m, k, n)
            except Exception as error:  # a width of bits that this build has no kernel for
                print(f"onnxruntime, {name} {ours}: {str(error)[:120]}", file=sys.stderr)


def torch(count: int) -> None:
    import torch as t

    t.manual_seed(0)
    with t.no_grad():
        for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
            x, w = t.randn(m, k), t.randn(n, k)
            report("torch (CPU)", f"{name} f32", count, lambda x=x, w=w: x @ w.T)
        k, v = t.randn(1, 549, 256), t.randn(1, 549, 256)
        for rows in (276, 17):
            q = t.randn(8, rows, 256)
            attend = lambda q=q: (q @ k.transpose(1, 2) / 16).softmax(-1) @ v  # noqa: E731
            report("torch (CPU)", f"attention {rows} × 549 keys", count, attend)


if __name__ == "__main__":
    {"onnxruntime": onnxruntime, "torch": torch}[sys.argv[1]](int(sys.argv[2]))
