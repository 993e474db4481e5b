"""The two that a DepthVLA is composed of, as transformers writes them: a PaliGemma in bf16 and in shards, a DINOv2 in f16.
What they compute of one view and a prompt is what the composed model has to."""

import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PreTrainedModel

import resize
import seeded

VIEW = "base"


def saved(model: PreTrainedModel, dtype: torch.dtype, folder: Path, **options) -> PreTrainedModel:
    """Written in that format, and what transformers reads there, in f32."""
    model.to(dtype).save_pretrained(folder, **options)
    return type(model).from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def write(case: dict, folder: Path) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    seed, text, vision, encoder = (case[key] for key in ("seed", "text", "vision", "encoder"))
    # The vocabulary's last token stands for a patch.
    both = PaliGemmaConfig(
        text_config={**text, "model_type": "gemma"},
        vision_config={**vision, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=text["vocab_size"] - 1,
        projection_dim=text["hidden_size"],
    )
    paligemma = PaliGemmaForConditionalGeneration(both)
    seeded.fill(paligemma, seed, case["qk_gain"], "paligemma_with_expert.")
    paligemma = saved(paligemma, torch.bfloat16, folder / "paligemma", max_shard_size="80KB")
    dinov2 = Dinov2Model(Dinov2Config(**encoder))
    seeded.fill(dinov2, seed, case["qk_gain"], "depth_encoder.")
    dinov2 = saved(dinov2, torch.float16, folder / "dinov2")

    image = seeded.image(seed, f"image.{VIEW}", *case["image"])
    tokens = torch.from_numpy(seeded.generator(seed, "tokens").integers(0, text["vocab_size"] - 1, case["prompt"]))
    observation = {
        f"image.{VIEW}": torch.from_numpy(image),
        "state": torch.from_numpy(seeded.normal(seed, "state", (7,))),
        "tokens": tokens.to(torch.int32),
    }
    save_file(observation, folder / "observation.safetensors")

    side = vision["image_size"] // vision["patch_size"]
    pixels = resize.for_vision(image, vision["image_size"], "pillow_bilinear")
    ids = torch.cat((torch.full((side * side,), text["vocab_size"] - 1), tokens))[None]
    # openpi counts positions from 0; all tokens belong to one prefix.
    positions, kinds = torch.arange(ids.shape[1])[None], torch.zeros_like(ids)
    model = paligemma.model
    output = model(input_ids=ids, pixel_values=pixels, position_ids=positions, token_type_ids=kinds, use_cache=True)
    features = model.get_image_features(pixels)
    golden = {f"vision.{VIEW}": features.last_hidden_state[0], f"projector.{VIEW}": features.pooler_output[0]}
    for i, layer in enumerate(output.past_key_values.layers):
        for part, tensor in (("k", layer.keys), ("v", layer.values)):
            golden[f"vlm.layers.{i}.{part}"] = tensor[0].transpose(0, 1).flatten(1)
    pixels = resize.for_depth(image, side * encoder["patch_size"], "pillow_bilinear")
    golden[f"depth_encoder.{VIEW}"] = dinov2(pixels).last_hidden_state[0, 1:]
    save_file({name: tensor.contiguous().clone() for name, tensor in golden.items()}, folder / "golden.safetensors")
