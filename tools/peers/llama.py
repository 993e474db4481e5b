"""llama.cpp's Vulkan kernels of the same purposes as Fathom's, by ggml's libraries in FOLDER.

`llama.py FOLDER isa`: a line with the name of each operation, and what the driver prints while ggml makes and runs it. ggml makes
the pipelines that a graph needs when it runs it: on NVK without a GPU (`tools/isa --llama`) they compile and nothing computes.
`llama.py FOLDER COUNT`: a JSON line for each of the shapes of `fathom-latency shapes`, as the other peers'.
"""

import ctypes as c
import os
import sys

FOLDER, MODE = sys.argv[1:]
base = c.CDLL(f"{FOLDER}/libggml-base.so", mode=c.RTLD_GLOBAL)
vulkan = c.CDLL(f"{FOLDER}/libggml-vulkan.so", mode=c.RTLD_GLOBAL)
F32, F16, Q4_0, Q8_0, I32 = 0, 1, 2, 8, 26


class Params(c.Structure):
    _fields_ = [("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool)]


def function(library, name, result, *arguments):
    f = getattr(library, name)
    f.restype, f.argtypes = result, arguments
    return f


p, i64 = c.c_void_p, c.c_int64
init = function(base, "ggml_init", p, Params)
tensor2 = function(base, "ggml_new_tensor_2d", p, p, c.c_int, i64, i64)
tensor4 = function(base, "ggml_new_tensor_4d", p, p, c.c_int, i64, i64, i64, i64)
mul_mat, add, mul, geglu = (function(base, f"ggml_{name}", p, p, p, p) for name in ("mul_mat", "add", "mul", "geglu_split"))
rms_norm = function(base, "ggml_rms_norm", p, p, p, c.c_float)
reshape3 = function(base, "ggml_reshape_3d", p, p, p, i64, i64, i64)
reshape2 = function(base, "ggml_reshape_2d", p, p, p, i64, i64)
permute = function(base, "ggml_permute", p, p, p, *[c.c_int] * 4)
to_type = function(base, "ggml_cast", p, p, p, c.c_int)
rope = function(base, "ggml_rope_ext", p, p, p, p, p, *[c.c_int] * 3, *[c.c_float] * 6)
flash = function(base, "ggml_flash_attn_ext", p, p, p, p, p, p, c.c_float, c.c_float, c.c_float)
new_graph = function(base, "ggml_new_graph", p, p)
expand = function(base, "ggml_build_forward_expand", None, p, p)
allocate = function(base, "ggml_backend_alloc_ctx_tensors", p, p, p)
compute = function(base, "ggml_backend_graph_compute", c.c_int, p, p)
backend = function(vulkan, "ggml_backend_vk_init", p, c.c_size_t)(0)


def linear(kind, m, k, n):
    return lambda context: mul_mat(context, tensor2(context, kind, k, n), tensor2(context, F32, k, m))


def attention(rows, keys):
    def write(context):
        q = tensor4(context, F32, 256, rows, 8, 1)
        k, v = (tensor4(context, F16, 256, keys, 1, 1) for _ in "kv")
        return flash(context, q, k, v, None, 1 / 16, 0.0, 0.0)

    return write


def layer(kind):
    """A layer of Gemma-2B on tokens that see each other, as llama.cpp's graph of Gemma has it."""
    from peers import DIM, HEADS, MLP, TOKENS, WIDTH

    def write(context):
        def project(x, k, n):
            return mul_mat(context, tensor2(context, kind, k, n), x)

        def norm(x):
            return mul(context, rms_norm(context, x, 1e-6), tensor2(context, F32, WIDTH, 1))

        def heads(x, n, turn):
            x = reshape3(context, x, DIM, n, TOKENS)
            if turn:  # neox's pairs: a head's halves
                x = rope(context, x, positions, None, DIM, 2, 8192, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)
            return permute(context, x, 0, 2, 1, 3)

        positions = tensor2(context, I32, TOKENS, 1)
        x = tensor2(context, F32, WIDTH, TOKENS)
        h = norm(x)
        q = heads(project(h, WIDTH, HEADS * DIM), HEADS, True)
        k, v = (to_type(context, heads(project(h, WIDTH, DIM), 1, turn), F16) for turn in (True, False))
        a = flash(context, q, k, v, None, 1 / 16, 0.0, 0.0)
        x = add(context, x, project(reshape2(context, a, HEADS * DIM, TOKENS), HEADS * DIM, WIDTH))
        h = norm(x)
        h = geglu(context, project(h, WIDTH, MLP), project(h, WIDTH, MLP))
        return add(context, x, project(h, MLP, WIDTH))

    return write


def prepared(write):
    context = init(Params(1 << 20, None, True))
    result = write(context)
    graph = new_graph(context)
    expand(graph, result)
    allocate(context, backend)
    return lambda: compute(backend, graph)


def isa():
    os.write(2, b"# driver: ggml, on NVK\n")
    operations = {f"attention {rows} rows": attention(rows, 544) for rows in (276, 17)}
    for label, kind in (("f16", F16), ("q8_0", Q8_0), ("q4_0", Q4_0)):
        operations |= {f"{label} {m} rows": linear(kind, m, 1024, 4096) for m in (276, 17, 1)}
    for name, write in operations.items():
        run = prepared(write)
        os.write(2, f"== kernel {name}\n".encode())
        run()


def bench(count):
    from peers import GEMM, SKINNY, TOKENS, report

    for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
        for ours, kind in (("f32", F32), ("w8", Q8_0), ("w4", Q4_0)):
            report("llama.cpp", f"{name} {ours}", count, prepared(linear(kind, m, k, n)))
    for rows in (276, 17):
        report("llama.cpp", f"attention {rows} × 549 keys", count, prepared(attention(rows, 549)))
    for ours, kind in (("f32", F32), ("w4", Q4_0)):
        report("llama.cpp", f"layer {TOKENS} {ours}", count, prepared(layer(kind)))


isa() if MODE == "isa" else bench(int(MODE))
