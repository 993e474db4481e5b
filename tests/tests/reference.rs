//! The forward definition on the CPU twins gives what PyTorch gives, stage by stage.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom_models::observation::finish_actions;
use fathom_models::reference::Reference;
use fathom_tests::Golden;

fn run(name: &'static str) {
    let golden = Golden::load(name);
    let Golden { loaded, observation, .. } = &golden;
    let model = &loaded.model;
    let graph = model.forward(&loaded.weights, &golden.options()).expect("the graph is built");
    let mut reference = Reference::new(&graph, &loaded.weights);
    let mut write = |name: &str, bytes: &[u8]| reference.write(graph.input(name).expect("an input").id, bytes);
    for (view, (_, bytes)) in model.config.views.iter().zip(&observation.images) {
        write(&format!("image.{view}"), bytes);
    }
    let text = loaded.weights.rows(model.embed_tokens, model.config.vlm.width, &observation.tokens).expect("tokens");
    write("text", bytemuck::cast_slice(&text));
    write("state", bytemuck::cast_slice(&observation.model_state(loaded)));
    write("noise", bytemuck::cast_slice(&observation.noise));
    reference.run().expect("it runs");
    let outputs = reference.outputs();
    let (normalized, actions) = finish_actions(loaded, outputs["actions"].clone()).expect("finite actions");
    golden.compare(|name| match name {
        "actions" => Some(actions.clone()),
        "actions.normalized" => Some(normalized.clone()),
        _ => outputs.get(name).cloned(),
    });
}

#[test]
fn depthvla_with_openpi_conventions() {
    run("depthvla_openpi");
}

#[test]
fn depthvla_with_open_pi_zero_conventions() {
    run("depthvla_opz");
}

#[test]
fn pi0_as_lerobot_saved_it() {
    run("pi0_lerobot");
}
