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
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8


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
mul_mat = function(base, "ggml_mul_mat", p, p, p, p)
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
    from peers import GEMM, SKINNY, report

    for name, (m, k, n) in (("GEMM 276×2048×16384", GEMM), ("skinny 17×1024×4096", SKINNY)):
        for ours, kind in (("f32", F32), ("w8", Q8_0), ("w4", Q4_0)):
            report("llama.cpp", f"{name} {ours}", count, prepared(linear(kind, m, k, n)))
    for rows in (276, 17):
        report("llama.cpp", f"attention {rows} × 549 keys", count, prepared(attention(rows, 549)))


isa() if MODE == "isa" else bench(int(MODE))
