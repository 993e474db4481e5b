//! Seeded random numbers and checkpoints: a model of any configuration without a download.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::config::{
    Attention, Depth, DepthHead, EmbedScale, Expert, Flow, FlowDirection, ModelConfig, NormalizationMode,
    PosInterpolation, Positions, PromptFormat, Resize, TimeConditioning, TimeEmbedding, Vit,
};
use crate::depthvla::Model;
use crate::error::ModelError;
use crate::params::{Param, Role};

/// `n` values of N(0, 1): SplitMix64 and Box–Muller, the same for a seed on every machine.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..n)
        .map(|_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect()
}

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
        time_conditioning: TimeConditioning::Token,
        prompt: PromptFormat::Task,
    }
}

/// Writes a directory with `config.json` and seeded random bf16 weights for `config`.
///
/// Matrices have standard deviation `1/√K`, so that activations stay of order one; everything else 0.1, around 1
/// where a LayerNorm or a layer scale multiplies.
///
/// # Errors
/// [`ModelError::Config`], or [`ModelError::Io`] when the directory cannot be written.
pub fn write_checkpoint(dir: &Path, config: &ModelConfig, seed: u64) -> Result<(), ModelError> {
    let model = Model::new(config.clone())?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let used = model.params.params.iter().filter(|p| p.role != Role::Unused);
    let data: BTreeMap<&str, (Vec<usize>, Vec<u8>)> =
        used.map(|p| (p.name.as_str(), (p.shape.clone(), values(p, seed)))).collect();
    let path = dir.join("model.safetensors");
    let invalid = |source| ModelError::Safetensors { path: path.clone(), source };
    let views = data
        .iter()
        .map(|(name, (shape, bytes))| Ok((*name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(invalid)?;
    safetensors::serialize_to_file(views, None, &path).map_err(invalid)?;
    let path = dir.join("config.json");
    let json = |source| ModelError::Json { path: path.clone(), source };
    let mut config = serde_json::to_value(config).map_err(json)?;
    if let Some(object) = config.as_object_mut() {
        object.insert("model_type".to_owned(), "depthvla".into());
    }
    let text = serde_json::to_string_pretty(&config).map_err(json)?;
    std::fs::write(&path, text).map_err(io(&path))
}

fn values(p: &Param, seed: u64) -> Vec<u8> {
    // FNV-1a of the name, so that a tensor's values do not depend on the others.
    let hash = p.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let count: usize = p.shape.iter().product();
    let inputs: usize = p.shape.iter().skip(1).product();
    let multiplies = p.name.contains("lambda1")
        || (p.name.contains("norm") && p.name.ends_with("weight") && !p.name.contains("joint_model"));
    let (mean, std) = match p.role {
        Role::Matrix => (0.0, 1.0 / (inputs.max(1) as f32).sqrt()),
        _ if multiplies => (1.0, 0.1),
        _ => (0.0, 0.1),
    };
    normal(seed ^ hash, count).into_iter().flat_map(|v| half::bf16::from_f32(mean + std * v).to_le_bytes()).collect()
}
