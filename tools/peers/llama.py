"""llama.cpp's Vulkan shaders of the same purposes as Fathom's kernels: `llama.py FOLDER` with ggml's libraries in FOLDER.

`tools/isa --llama` runs it where pipelines compile and nothing computes. ggml makes the pipelines that a graph needs when it
runs it, so that what NVK prints after a name is what ggml would run for it.
"""

import ctypes as c
import os
import sys

folder = sys.argv[1]
base = c.CDLL(f"{folder}/libggml-base.so", mode=c.RTLD_GLOBAL)
vulkan = c.CDLL(f"{folder}/libggml-vulkan.so", mode=c.RTLD_GLOBAL)
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


def run(name, write):
    context = init(Params(1 << 20, None, True))
    result = write(context)
    graph = new_graph(context)
    expand(graph, result)
    allocate(context, backend)
    os.write(2, f"== kernel {name}\n".encode())
    compute(backend, graph)


def linear(kind, k, n, m):
    return lambda context: mul_mat(context, tensor2(context, kind, k, n), tensor2(context, F32, k, m))


os.write(2, b"# driver: ggml, on NVK\n")
for label, kind in (("f16", F16), ("q8_0", Q8_0), ("q4_0", Q4_0)):
    run(f"{label} 276 rows", linear(kind, 2048, 16384, 276))
    run(f"{label} 17 rows", linear(kind, 1024, 4096, 17))
    run(f"{label} 1 row", linear(kind, 1024, 4096, 1))
for rows in (276, 17):
    run(
        f"attention {rows} rows",
        lambda context, rows=rows: flash(
            context, tensor4(context, F32, 256, rows, 8, 1), tensor4(context, F16, 256, 544, 1, 1),
            tensor4(context, F16, 256, 544, 1, 1), None, 1 / 16, 0.0, 0.0,
        ),
    )
