use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fathom::bounds;
use fathom::camera::{Image, PixelFormat};
use fathom::config::RobotConfig;
use fathom::control::{Conditions, Episode, Simulator};
use fathom::picture::{self, Panel};
use fathom::scene::math::vec3;
use fathom::scene::{Renderer, Scene, World};
use fathom::within;
use fathom_models::io::output_file;
use fathom_models::outln;

/// Side of a panel in pixels.
const PANEL: usize = 256;
/// Simulated time between two frames, and the time for which each is shown, in milliseconds.
const FRAME_MS: u16 = 100;
/// The last frame is repeated this often.
const LAST_FRAMES: usize = 10;

/// Draw one episode as an animated PNG: the base camera with the tool's way, the wrist camera, the policy's depth map, true depth.
#[derive(Args)]
pub(crate) struct Animate {
    /// The robot's configuration (robot.toml), with cameras of kind "scene".
    #[arg(long)]
    config: PathBuf,
    /// Checkpoint directory; overrides the configuration.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The task; overrides the configuration's.
    #[arg(long)]
    prompt: Option<String>,
    /// Seed of the scene; overrides the configuration's.
    #[arg(long, value_parser = within!(bounds::SEED))]
    seed: Option<u64>,
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
    /// Output: the animated PNG.
    #[arg(long)]
    output: PathBuf,
}

impl Animate {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        output_file::check(&self.output)?;
        let mut config = RobotConfig::load(&self.config)?;
        if let Some(model) = self.model {
            config.model.path = model;
        }
        if self.prompt.is_some() {
            (config.model.prompt, config.model.tokens) = (self.prompt, None);
        }
        config.gpu.software |= self.software;
        config.model.depth_map = true;
        let seed = self.seed.unwrap_or(config.scene.seed);
        let scene = Arc::new(config.scene.load(seed)?);
        let task = scene.task(config.model.prompt.as_deref().unwrap_or_default())?.clone();
        let moments = Some(Duration::from_millis(FRAME_MS.into()));
        let conditions = Conditions { moments, seed, ..Conditions::default() };
        let episode = Simulator::open(config)?.episode(World::new(Arc::clone(&scene)), &task, &conditions)?;
        picture::write_animation(&self.output, &frames(&scene, &episode)?, FRAME_MS)?;
        let state = if episode.success { "done" } else { "not done" };
        outln!("the task \"{}\" is {state} after {:.1} s of simulated time", task.prompt, episode.seconds);
        outln!("picture: {}", self.output.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// The panels of every frame.
fn frames(scene: &Arc<Scene>, episode: &Episode) -> Result<Vec<Vec<Panel>>, Box<dyn Error>> {
    let count = scene.cameras().len();
    let mut renderers =
        (0..count).map(|camera| Renderer::new(Arc::clone(scene), camera)).collect::<Result<Vec<_>, _>>()?;
    let (mut frames, mut range) = (Vec::new(), None);
    let moments = episode.moments.iter().chain(episode.moments.last().into_iter().cycle().take(LAST_FRAMES));
    for (number, moment) in moments.enumerate() {
        let (mut panels, mut truth) = (Vec::new(), None);
        for (camera, renderer) in renderers.iter_mut().enumerate() {
            let (width, height) = renderer.size();
            let mut image = Image::default();
            image.reshape(PixelFormat::Rgb24, width, height);
            let mut depth = vec![0.0; width as usize * height as usize];
            renderer.render_with(&moment.joints, &moment.objects, &mut image.data, &mut depth)?;
            let mut panel = Panel::of_image(PANEL, &image);
            if camera == 0 {
                let view = scene.view(camera, &moment.joints)?;
                let passed = episode.path.len() * (number + 1) / episode.moments.len().max(1);
                let points = episode.path.iter().take(passed).map(|[x, y, z]| view.project(vec3(*x, *y, *z)));
                panel.draw_path(points.map(|point| point.map(|at| (at.x, at.y))));
                truth = Some((depth, width as usize, height as usize));
            }
            panels.push(panel);
        }
        if let Some((depth, width, height)) = truth {
            // One scale for the map and the truth, and for all frames.
            let range = *range.get_or_insert_with(|| picture::depth_range(&depth));
            let found = moment.depth.first().map_or((&[][..], 0), |map| (&map.values[..], map.side));
            panels.push(Panel::of_depth(PANEL, found.0, found.1, found.1, range));
            panels.push(Panel::of_depth(PANEL, &depth, width, height, range));
        }
        frames.push(panels);
    }
    Ok(frames)
}
