//! Configurations by name: the small model of the demo, and DepthVLA's own sizes.

use crate::nets::config::{
    Attention, Depth, DepthHead, EmbedScale, Expert, Flow, FlowDirection, ModelConfig, NormalizationMode,
    PosInterpolation, Positions, PromptFormat, Resize, TimeConditioning, TimeEmbedding, Vit,
};

/// A DepthVLA small enough for a software driver: two views of 112 × 112 (64 tokens each), 4 layers, heads 64 wide.
pub fn small() -> ModelConfig {
    let vit = |width, mlp| Vit { image_size: 112, patch: 14, width, layers: 4, heads: width / 64, mlp, eps: 1e-6 };
    let views = vec!["base".to_owned(), "wrist".to_owned()];
    ModelConfig {
        depth: Some(Depth {
            views: vec!["base".to_owned()],
            encoder: vit(64, 128),
            pos_grid: 37,
            pos_interpolation: PosInterpolation::Size,
            expert: Expert { width: 64, mlp: 128 },
            in_proj: false,
            scale_input: 1.0,
            pos_base: 0,
            proprio_sees_depth: true,
            head: DepthHead::Log,
        }),
        views,
        resize: Resize::PillowBilinear,
        vocab: 512,
        max_tokens: 48,
        state_dim: 32,
        action_dim: 32,
        horizon: 16,
        layers: 4,
        attention: Attention { heads: 2, kv_heads: 1, head_dim: 64, rope_theta: 10_000.0, softcap: None },
        rms_eps: 1e-6,
        vision: vit(128, 256),
        vlm: Expert { width: 128, mlp: 512 },
        action: Expert { width: 64, mlp: 256 },
        state_token: true,
        embed: EmbedScale { text: 128_f32.sqrt(), image: 1.0, suffix: 1.0 },
        time_embedding: TimeEmbedding::Openpi { min_period: 4e-3, max_period: 4.0 },
        flow: Flow { steps: 10, direction: FlowDirection::NoiseAtOne, clip: None, sig_min: None },
        positions: Positions::Global { base: 0 },
        action_head_layers: 1,
        normalization: NormalizationMode::default(),
        relative_actions: Vec::new(),
        time_conditioning: TimeConditioning::Token,
        prompt: PromptFormat::Task,
    }
}

/// DepthVLA at the paper's sizes with one view: PaliGemma-3B, DINOv2-L, a depth expert of the action expert's sizes
/// (INFERRED), chunks of 16 actions. Weights of such a model are 3.85 B.
pub fn depthvla() -> ModelConfig {
    let views = vec!["base".to_owned()];
    let expert = Expert { width: 1024, mlp: 4096 };
    let vlm = Expert { width: 2048, mlp: 16384 };
    let dinov2 = Vit { image_size: 224, patch: 14, width: 1024, layers: 24, heads: 16, mlp: 4096, eps: 1e-6 };
    ModelConfig {
        depth: Some(Depth {
            views: views.clone(),
            encoder: dinov2,
            pos_grid: 37,
            pos_interpolation: PosInterpolation::Size,
            expert,
            in_proj: false,
            scale_input: 1.0,
            pos_base: 0,
            proprio_sees_depth: true,
            head: DepthHead::Log,
        }),
        views,
        vocab: 257_152,
        horizon: 16,
        layers: 18,
        attention: Attention { heads: 8, kv_heads: 1, head_dim: 256, rope_theta: 10_000.0, softcap: None },
        vision: Vit { image_size: 224, patch: 14, width: 1152, layers: 27, heads: 16, mlp: 4304, eps: 1e-6 },
        vlm,
        action: expert,
        embed: EmbedScale { text: (vlm.width as f32).sqrt(), image: 1.0, suffix: 1.0 },
        ..small()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::depthvla::Model;

    /// Parameters as openpi's and Depth Anything's own code have them.
    #[test]
    fn the_papers_sizes_have_the_papers_parameters() {
        let model = Model::new(depthvla()).expect("valid");
        let count = |prefix: &str| -> usize {
            let named =
                model.params.params.iter().filter(|p| p.name.starts_with(prefix) && !p.name.ends_with("mask_token"));
            named.map(|p| p.shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count("vision_tower"), 412_442_352, "SigLIP So400m/14");
        assert_eq!(count("multi_modal_projector"), 2_361_344, "projector");
        assert_eq!(count("embed_tokens"), 526_647_296, "text embedding");
        assert_eq!(count("joint_model.mixtures.vlm"), 1_981_884_416, "Gemma 2B");
        assert_eq!(count("joint_model.mixtures.action"), 311_464_960, "gemma_300m");
        assert_eq!(count("joint_model.mixtures.depth"), 311_464_960, "depth expert");
        assert_eq!(count("proprio_encoder"), 33_792, "state projection");
        assert_eq!(count("action_encoder"), 33_792 + 2_098_176 + 1_049_600, "action and time");
        assert_eq!(count("action_decoder"), 32_800, "action head");
        let encoder = count("depth_encoder");
        assert!((304_300_000..304_400_000).contains(&encoder), "DINOv2-L has 304.37 M, found {encoder}");
    }
}
