//! `fathom-serve`: a policy behind openpi's WebSocket protocol.
#![doc = ""]
#![doc = include_str!("../README.md")]

use std::error::Error;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::thread;

use clap::Parser;
use fathom::bounds::{self, Bounds};
use fathom::camera::{Image, PixelFormat};
use fathom::engine::{Kernels, Wanted};
use fathom::gpu::{GpuOptions, cache_folder};
use fathom::policy::{Policy, PolicyOptions};
use fathom::within;
use fathom_models::families::Family;
use fathom_models::io::console;
use fathom_models::{errln, messages, outln};

mod array;
mod keys;
mod request;
mod server;
mod thinker;

use keys::{Keys, Preset};
use request::Observed;
use server::{Shared, serve};

const CLIENTS: Bounds<usize> = Bounds::new(1, 1024, "clients");

/// Serve a policy by openpi's WebSocket protocol: one msgpack observation, one chunk of actions.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Checkpoint directory.
    #[arg(long)]
    model: PathBuf,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// Address to listen on. Others than loopback need --key-file.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// File whose first line clients must send as "Authorization: Api-Key KEY".
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Names of a request's entries: lerobot, libero or droid.
    #[arg(long, default_value_t = Preset::Lerobot)]
    keys: Preset,
    /// The key of a view's image, VIEW=KEY; overrides --keys. Repeatable.
    #[arg(long, value_name = "VIEW=KEY", value_parser = view)]
    view: Vec<(String, String)>,
    /// View of the checkpoint that requests do not have. Repeatable.
    #[arg(long)]
    skip_view: Vec<String>,
    /// Key of the state; overrides --keys. Repeatable: the parts are joined.
    #[arg(long, value_name = "KEY")]
    state: Vec<String>,
    /// Key of the task; overrides --keys.
    #[arg(long, value_name = "KEY")]
    prompt: Option<String>,
    /// Most clients at once.
    #[arg(long, default_value = "4", value_parser = within!(CLIENTS))]
    clients: usize,
    /// Seed of the first inference's noise; each inference takes the next.
    #[arg(long, default_value = "0", value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
    /// Part of the adapter's name. Default: any hardware adapter.
    #[arg(long)]
    adapter: Option<String>,
    /// Kernel family; overrides the automatic choice.
    #[arg(long)]
    kernels: Option<Kernels>,
    /// How much is logged to standard error: error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log: tracing::Level,
}

fn view(text: &str) -> Result<(String, String), String> {
    let (view, key) = text.split_once('=').ok_or("expected VIEW=KEY")?;
    Ok((view.to_owned(), key.to_owned()))
}

fn main() -> ExitCode {
    let _console = console::start();
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt().with_max_level(arguments.log).with_target(false).log_internal_errors(false);
    log.with_writer(|| console::LogWriter).init();
    let Err(error) = run(arguments) else { return ExitCode::SUCCESS };
    errln!("error: {}", messages(&*error).join(": "));
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let key = match &arguments.key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let key = text.lines().next().unwrap_or_default().trim().to_owned();
            if key.is_empty() {
                return Err(format!("{}: expected a key in the first line, found none", path.display()).into());
            }
            Some(key)
        }
        None if !arguments.host.is_loopback() => {
            return Err(
                format!("--host {}: expected a loopback address, or --key-file beside it", arguments.host).into()
            );
        }
        None => None,
    };
    let options = PolicyOptions {
        family: arguments.family,
        skip_views: arguments.skip_view,
        gpu: GpuOptions {
            adapter: arguments.adapter,
            allow_software: arguments.software,
            cache: cache_folder(),
            ..GpuOptions::default()
        },
        wanted: Wanted { kernels: arguments.kernels, ..Wanted::default() },
        ..PolicyOptions::default()
    };
    let mut policy = Policy::open_with(&arguments.model, options)?;
    let keys = Keys::new(arguments.keys, policy.views(), &arguments.view, &arguments.state, arguments.prompt)?;
    warm(&mut policy, &keys)?;
    // Only now: openpi's client waits while nothing listens, and for nothing else.
    let listener = TcpListener::bind((arguments.host, arguments.port))
        .map_err(|error| format!("{}:{}: {error}", arguments.host, arguments.port))?;
    let (jobs, waiting) = channel();
    let most_clients = arguments.clients;
    let shared = Arc::new(Shared { keys, key, jobs, clients: AtomicUsize::new(0), most_clients });
    let seed = arguments.seed;
    thread::Builder::new().name("policy".to_owned()).spawn(move || thinker::think(policy, &waiting, seed))?;
    outln!("listening on {}", listener.local_addr()?);
    for (view, key) in &shared.keys.views {
        tracing::info!(view, key, "image");
    }
    tracing::info!(keys = shared.keys.state.join(", "), prompt = shared.keys.prompt, "state and task");
    Err(serve(&listener, &shared).into())
}

/// Infers once from black images of the model's own size, so that everything is prepared.
fn warm(policy: &mut Policy, keys: &Keys) -> Result<(), Box<dyn Error>> {
    let side = policy.loaded().model.config.vision.image_size as u32;
    let mut image = Image::default();
    image.reshape(PixelFormat::Rgb24, side, side);
    let images = keys.views.iter().map(|(view, _)| (view.clone(), image.clone())).collect();
    let state = vec![0.0; *policy.loaded().state_dims.start()];
    thinker::infer(policy, &Observed { images, state, prompt: "warm up".to_owned() }, 0)?;
    Ok(())
}
