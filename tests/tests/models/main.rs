//! Models: checkpoints in, actions out, on the CPU twins and on the GPU, against PyTorch's numbers.

mod bad_input;
mod checkpoints;
mod compose;
mod depth_anything;
mod exactness;
mod families;
mod golden;
mod open_pi_zero;
mod openpi;
mod pack;
mod paligemma;
mod plan;
mod policy;
mod precision;
mod reference;
mod sessions;
mod tokenizer;
