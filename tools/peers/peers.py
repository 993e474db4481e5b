"""What peers need for the shapes of `fathom-latency shapes`: `peers.py onnxruntime|torch COUNT`, a JSON line a shape."""

import json
import resource
import statistics
import sys
import time

import numpy as np

GEMM, SKINNY = (276, 2048, 16384), (17, 1024, 4096)
# A layer of Gemma-2B: tokens, width, MLP's width, heads, a head's width.
TOKENS, WIDTH, MLP, HEADS, DIM = 276, 2048, 16384, 8, 256
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

    class Graph:
        """A graph written node by node."""

        def __init__(self):
            self.nodes, self.constants = [], []

        def constant(self, value: np.ndarray) -> str:
            self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
            return self.constants[-1].name

        def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
            names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
            return names if outputs > 1 else names[0]

        def linear(self, x: str, k: int, n: int, bits: int | None) -> str:
            if bits is None:
                return self.node("MatMul", x, self.constant(values(k, n)))
            # The block and the accuracy level (the node's default) at which its kernels for f32 are the fastest, by far.
            block = 32
            q = random.integers(0, 256, (n, k // block, block * bits // 8), dtype=np.uint8)
            scales = self.constant(values(n * k // block) * 0.01)
            given = {"domain": "com.microsoft", "K": k, "N": n, "bits": bits, "block_size": block}
            return self.node("MatMulNBits", x, self.constant(q), scales, **given)

        def bench(self, shape: str, output: str, inputs: dict) -> None:
            info = helper.make_tensor_value_info
            described = [info(name, TensorProto.FLOAT, value.shape) for name, value in inputs.items()]
            graph = helper.make_graph(self.nodes, "g", described, [info(output, TensorProto.FLOAT, None)], self.constants)
            opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
            model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
            options = ort.SessionOptions()
            options.log_severity_level = 3
            ready = ort.InferenceSession(model.SerializeToString(), options, providers=["WebGpuExecutionProvider"])
            report("onnxruntime", shape, count, lambda: ready.run(None, inputs))

    def attend(g: Graph, q: str, k: str, v: str) -> str:
        scores = g.node("MatMul", g.node("Mul", q, g.constant(np.float32(1 / 16))), g.node("Transpose", k, perm=[0, 2, 1]))
        return g.node("MatMul", g.node("Softmax", scores, axis=-1), v)

    def layer(bits: int | None) -> tuple[Graph, str]:
        g = Graph()

        def norm(x: str) -> str:
            return g.node("SimplifiedLayerNormalization", x, g.constant(values(WIDTH)), epsilon=1e-6, axis=-1)

        def heads(x: str, n: int) -> str:
            return g.node("Transpose", g.node("Reshape", x, g.constant(np.array([TOKENS, n, DIM]))), perm=[1, 0, 2])

        tables = [g.constant(values(1, TOKENS, DIM // 2)) for _ in range(2)]

        def rope(x: str) -> str:
            a, b = g.node("Split", x, outputs=2, axis=2, num_outputs=2)
            cos, sin = tables
            first = g.node("Sub", g.node("Mul", a, cos), g.node("Mul", b, sin))
            second = g.node("Add", g.node("Mul", b, cos), g.node("Mul", a, sin))
            return g.node("Concat", first, second, axis=2)

        h = norm("x")
        q = rope(heads(g.linear(h, WIDTH, HEADS * DIM, bits), HEADS))
        k = rope(heads(g.linear(h, WIDTH, DIM, bits), 1))
        v = heads(g.linear(h, WIDTH, DIM, bits), 1)
        a = g.node("Transpose", attend(g, q, k, v), perm=[1, 0, 2])
        a = g.node("Reshape", a, g.constant(np.array([TOKENS, HEADS * DIM])))
        x = g.node("Add", "x", g.linear(a, HEADS * DIM, WIDTH, bits))
        h = norm(x)
        gate = g.node("Gelu", g.linear(h, WIDTH, MLP, bits), approximate="tanh")
        h = g.node("Mul", gate, g.linear(h, WIDTH, MLP, bits))
        return g, g.node("Add", x, g.linear(h, MLP, WIDTH, bits))

    for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
        for ours, bits in (("f32", None), ("w8", 8), ("w4", 4)):
            g = Graph()
            g.bench(f"{name} {ours}", g.linear("x", k, n, bits), {"x": values(m, k)})
    for rows in (276, 17):
        g = Graph()
        inputs = {"q": values(HEADS, rows, DIM), "k": values(1, 549, DIM), "v": values(1, 549, DIM)}
        g.bench(f"attention {rows} × 549 keys", attend(g, "q", "k", "v"), inputs)
    for ours, bits in (("f32", None), ("w4", 4)):
        g, output = layer(bits)
        g.bench(f"layer {TOKENS} {ours}", output, {"x": values(TOKENS, WIDTH)})


def torch(count: int) -> None:
    import torch as t
    from torch.nn.functional import gelu, linear, rms_norm

    t.manual_seed(0)

    def attend(q, k, v):
        return (q @ k.transpose(1, 2) / 16).softmax(-1) @ v

    def layer(x, matrices, norms, tables):
        def rope(x):
            (a, b), (cos, sin) = x.chunk(2, -1), tables
            return t.cat((a * cos - b * sin, b * cos + a * sin), -1)

        q, k, v, o, gate, up, down = matrices
        h = rms_norm(x, (WIDTH,), norms[0], 1e-6)
        queries, keys, seen = (linear(h, w).unflatten(1, (-1, DIM)).transpose(0, 1) for w in (q, k, v))
        x = x + linear(attend(rope(queries), rope(keys), seen).transpose(0, 1).flatten(1), o)
        h = rms_norm(x, (WIDTH,), norms[1], 1e-6)
        return x + linear(gelu(linear(h, gate), approximate="tanh") * linear(h, up), down)

    with t.no_grad():
        for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
            x, w = t.randn(m, k), t.randn(n, k)
            report("torch (CPU)", f"{name} f32", count, lambda x=x, w=w: linear(x, w))
        k, v = t.randn(1, 549, 256), t.randn(1, 549, 256)
        for rows in (276, 17):
            q = t.randn(8, rows, 256)
            report("torch (CPU)", f"attention {rows} × 549 keys", count, lambda q=q: attend(q, k, v))
        all_heads = HEADS * DIM
        sizes = [(all_heads, WIDTH), (DIM, WIDTH), (DIM, WIDTH), (WIDTH, all_heads), (MLP, WIDTH), (MLP, WIDTH), (WIDTH, MLP)]
        given = [t.randn(n, k) * 0.02 for n, k in sizes], t.randn(2, WIDTH), t.randn(2, TOKENS, DIM // 2)
        x = t.randn(TOKENS, WIDTH)
        report("torch (CPU)", f"layer {TOKENS} f32", count, lambda: layer(x, *given))


if __name__ == "__main__":
    {"onnxruntime": onnxruntime, "torch": torch}[sys.argv[1]](int(sys.argv[2]))
