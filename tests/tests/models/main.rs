//! Models: checkpoints in, actions out, on the CPU twins and on the GPU, against PyTorch's numbers.

mod bad_input;
mod checkpoints;
mod compose;
mod depth_anything;
mod exactness;
mod families;
mod golden;
mod open_pi_zero;
mod pack;
mod plan;
mod policy;
mod precision;
mod reference;
mod tokenizer;
