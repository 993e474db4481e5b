//! `fathom-serve` as its clients see it, with the small untrained model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fathom::camera::{Image, PixelFormat};
use fathom::gpu::GpuOptions;
use fathom::policy::{Observation, Policy, PolicyOptions};
use fathom::scene::Scene;
use rmpv::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

/// A server, and the model that it serves.
struct Server {
    child: Child,
    address: String,
    model: tempfile::TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Server {
        let model = tempfile::tempdir().unwrap();
        let scene = Scene::built_in(0).unwrap();
        fathom::untrained::write(model.path(), &fathom_models::nets::presets::small(), &scene, 0).unwrap();
        let mut command = program();
        command.args(["--software", "--port", "0", "--seed", "5", "--model"]).arg(model.path()).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Server { child, address, model }
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// A connected client that has read the metadata.
    fn client(&self) -> WebSocket<TcpStream> {
        let (mut client, _) = tungstenite::client(format!("ws://{}", self.address), self.stream()).unwrap();
        assert_eq!(client.read().unwrap(), Message::binary(vec![0x80]), "the metadata is an empty map");
        client
    }

    /// The status of a handshake that is refused.
    fn refused(&self, key: Option<&str>) -> u16 {
        let mut request = format!("ws://{}", self.address).into_client_request().unwrap();
        if let Some(key) = key {
            request.headers_mut().insert("Authorization", format!("Api-Key {key}").parse().unwrap());
        }
        match tungstenite::client(request, self.stream()) {
            Ok(_) => 101,
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    let program = env!("CARGO_BIN_EXE_fathom-serve");
    match std::env::var("FATHOM_RUN") {
        Ok(wrapper) if !wrapper.is_empty() => {
            let mut command = Command::new(wrapper);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    }
}

fn array(dtype: &str, shape: &[u64], data: Vec<u8>) -> Value {
    let key = |name: &str| Value::Binary(name.as_bytes().to_vec());
    let shape = shape.iter().map(|size| Value::from(*size)).collect();
    Value::Map(vec![
        (key("__ndarray__"), Value::from(true)),
        (key("data"), Value::Binary(data)),
        (key("dtype"), Value::from(dtype)),
        (key("shape"), Value::Array(shape)),
    ])
}

const STATE: [f64; 6] = [0.1, -0.2, 0.3, 0.5, -0.5, 0.25];
const SIZE: (usize, usize) = (40, 24);

fn pixels(seed: usize) -> Vec<u8> {
    (0..SIZE.0 * SIZE.1 * 3).map(|i| ((i * 7 + seed * 31) % 251) as u8).collect()
}

/// An observation: images as (height, width, 3), or as (3, height, width).
fn observation(channels_first: bool) -> Value {
    let (width, height) = SIZE;
    let image = |seed: usize| {
        let bytes = pixels(seed);
        let shape = [height as u64, width as u64];
        match channels_first {
            false => array("|u1", &[shape[0], shape[1], 3], bytes),
            true => {
                let planes = (0..3).flat_map(|c| bytes.iter().skip(c).step_by(3)).copied().collect();
                array("|u1", &[3, shape[0], shape[1]], planes)
            }
        }
    };
    let state = array("<f8", &[6], STATE.iter().flat_map(|value| value.to_le_bytes()).collect());
    Value::Map(vec![
        (Value::from("observation.images.base"), image(1)),
        (Value::from("observation.images.wrist"), image(2)),
        (Value::from("observation.state"), state),
        (Value::from("task"), Value::from("reach for the red block")),
    ])
}

fn send(client: &mut WebSocket<TcpStream>, value: &Value) {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    client.send(Message::binary(bytes)).unwrap();
}

fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    let is = |found: &Value| found.as_str() == Some(key) || found.as_slice() == Some(key.as_bytes());
    let map = value.as_map().unwrap();
    &map.iter().find(|(found, _)| is(found)).unwrap_or_else(|| panic!("no {key} in {value}")).1
}

/// The actions of the next answer.
fn actions(client: &mut WebSocket<TcpStream>) -> Vec<f64> {
    loop {
        match client.read().unwrap() {
            Message::Binary(bytes) => {
                let answer = rmpv::decode::read_value(&mut bytes.as_ref()).unwrap();
                let actions = field(&answer, "actions");
                assert_eq!(field(actions, "shape").as_array().unwrap().len(), 2, "(horizon, actions)");
                assert!(field(field(&answer, "policy_timing"), "infer_ms").as_f64().unwrap() > 0.0);
                let data = field(actions, "data").as_slice().unwrap();
                let (eights, _) = data.as_chunks::<8>();
                return eights.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What the library gives for the same observation.
fn expected(model: &Path, seed: u64) -> Vec<f64> {
    let gpu = GpuOptions { allow_software: true, ..GpuOptions::default() };
    let mut policy = Policy::open_with(model, PolicyOptions { gpu, ..PolicyOptions::default() }).unwrap();
    let image = |seed: usize| {
        let mut image = Image::default();
        image.reshape(PixelFormat::Rgb24, SIZE.0 as u32, SIZE.1 as u32);
        image.data.copy_from_slice(&pixels(seed));
        image
    };
    let (base, wrist, state) = (image(1), image(2), STATE.map(|value| value as f32));
    let observation = Observation::new("reach for the red block").image("base", &base).image("wrist", &wrist);
    policy.infer(&observation.state(&state).seed(seed)).unwrap().actions.into_iter().map(f64::from).collect()
}

/// The text before the close, and its code.
fn error_of(client: &mut WebSocket<TcpStream>) -> (String, u16) {
    let Message::Text(text) = client.read().unwrap() else { panic!("expected text") };
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("expected a close") };
    (text.to_string(), frame.code.into())
}

#[test]
fn answers_have_the_librarys_bits() {
    let server = Server::start(&[]);
    let mut client = server.client();
    send(&mut client, &observation(false));
    // A ping right behind the request is answered too.
    client.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    assert_eq!(actions(&mut client), expected(server.model.path(), 5));
    let mut other = server.client();
    send(&mut other, &observation(true));
    assert_eq!(actions(&mut other), expected(server.model.path(), 6), "channels first, and the next seed");
    send(&mut client, &Value::Map(vec![(Value::from("endpoint"), Value::from("reset"))]));
    loop {
        match client.read().unwrap() {
            Message::Pong(bytes) => assert_eq!(bytes.as_ref(), [1, 2, 3]),
            Message::Text(text) => break assert_eq!(text.as_str(), "reset successful"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bad_client_costs_the_others_nothing() {
    let server = Server::start(&[]);
    let mut good = server.client();
    let cases: [(Value, &str); 6] = [
        (Value::from(3), "expected a map"),
        (Value::Map(vec![]), "expected \"observation.images.base\", found nothing"),
        (
            Value::Map(vec![(Value::from("observation.images.base"), array("|u1", &[2, 2, 3], vec![0; 11]))]),
            "observation.images.base: expected 12 bytes for |u1 [2, 2, 3], found 11",
        ),
        (
            Value::Map(vec![(Value::from("observation.images.base"), array("|O8", &[1], vec![0; 8]))]),
            "expected a dtype of little-endian integers or floats, found \"|O8\"",
        ),
        (
            Value::Map(vec![(Value::from("observation.images.base"), array("|u1", &[1 << 40, 1 << 40, 3], vec![]))]),
            "too large",
        ),
        (Value::Map(vec![(Value::from("endpoint"), Value::from("dance"))]), "expected infer or reset, found \"dance\""),
    ];
    for (request, why) in cases {
        let mut bad = server.client();
        send(&mut bad, &request);
        let (text, code) = error_of(&mut bad);
        assert!(text.contains(why) && code == 1011, "{text} ({code}), expected {why}");
    }
    let mut garbage = server.client();
    garbage.send(Message::binary(vec![0xc1, 0xff, 0x00])).unwrap();
    assert!(error_of(&mut garbage).0.contains("expected msgpack"));
    // Half a message, and silence.
    server.client().get_mut().write_all(&[0x82, 0xff]).unwrap();
    send(&mut good, &observation(false));
    assert_eq!(actions(&mut good).len() % 6, 0);
}

#[test]
fn a_key_clients_and_health() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "secret\n").unwrap();
    let server = Server::start(&["--key-file", key.to_str().unwrap(), "--clients", "1"]);
    assert_eq!([server.refused(None), server.refused(Some("secreT"))], [401, 401]);
    let mut request = format!("ws://{}", server.address).into_client_request().unwrap();
    request.headers_mut().insert("Authorization", "Api-Key secret".parse().unwrap());
    let (mut first, _) = tungstenite::client(request, server.stream()).unwrap();
    assert!(first.read().unwrap().is_binary());
    assert_eq!(server.refused(Some("secret")), 503, "one client at once");
    let mut health = server.stream();
    health.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK\n"), "{answer}");

    let output = program().args(["--model", "nowhere", "--host", "0.0.0.0"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("expected a loopback address, or --key-file"), "{error}");
}
