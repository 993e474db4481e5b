//! The connections: WebSocket, and `GET /healthz` on the same port.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rmpv::Value;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use tungstenite::handshake::server::{ErrorResponse, Request as Handshake, Response};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Message, WebSocket};

use crate::array::value_of;
use crate::keys::Keys;
use crate::request::Request;
use crate::thinker::{Job, Thought};

/// Most bytes of a message, and of a frame.
const MOST_BYTES: usize = 64 << 20;
/// Time limit of a handshake, and of sending an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of an HTTP request in bytes.
const MOST_HEAD: usize = 16 << 10;
const HEALTHZ: &[u8] = b"GET /healthz ";

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) keys: Keys,
    /// The key that clients must show.
    pub(crate) key: Option<String>,
    pub(crate) jobs: Sender<Job>,
    /// Clients that are connected, and how many may be.
    pub(crate) clients: AtomicUsize,
    pub(crate) most_clients: usize,
}

/// Accepts connections for ever, each on a thread of its own.
pub(crate) fn serve(listener: &TcpListener, shared: &Arc<Shared>) -> io::Error {
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => return error,
        };
        let shared = Arc::clone(shared);
        let client = move || {
            if let Err(error) = connection(stream, &shared) {
                tracing::info!(%from, error, "a connection ended");
            }
        };
        if let Err(error) = thread::Builder::new().name("client".to_owned()).spawn(client) {
            tracing::warn!(%from, %error, "a connection has no thread");
        }
    }
}

fn connection(mut stream: TcpStream, shared: &Shared) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    if asks_for_health(&stream).map_err(text)? {
        return say_healthy(&mut stream).map_err(text);
    }
    let number = shared.clients.fetch_add(1, Ordering::Relaxed);
    let client = Client::accept(stream, shared, number >= shared.most_clients);
    let done = client.and_then(|client| client.run(shared));
    shared.clients.fetch_sub(1, Ordering::Relaxed);
    done
}

/// Answers `GET /healthz`.
fn say_healthy(stream: &mut TcpStream) -> io::Result<()> {
    // A request that is not read to its end would reset the connection, and the answer with it.
    let (mut head, mut part) = (Vec::new(), [0; 512]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MOST_HEAD {
        match stream.read(&mut part)? {
            0 => break,
            count => head.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOK\n";
    stream.write_all(answer.as_bytes())
}

/// Whether the request is one for `/healthz`; nothing is taken from the stream.
fn asks_for_health(stream: &TcpStream) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut head = [0; HEALTHZ.len()];
    loop {
        let count = stream.peek(&mut head)?;
        let begins = head.get(..count).is_some_and(|found| HEALTHZ.starts_with(found));
        if count == HEALTHZ.len() || !begins || count == 0 {
            return Ok(begins && count == HEALTHZ.len());
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The header that shows a key.
fn shown_key(request: &Handshake) -> Option<&str> {
    request.headers().get("Authorization")?.to_str().ok()?.strip_prefix("Api-Key ")
}

/// Whether two texts are equal, in a time that does not depend on where they differ.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// A client in its session: one request, one answer.
struct Client {
    socket: WebSocket<TcpStream>,
    ready: Arc<OwnedFd>,
    gone: Arc<AtomicBool>,
}

impl Client {
    fn accept(stream: TcpStream, shared: &Shared, is_full: bool) -> Result<Client, String> {
        let refuse = |status: StatusCode, why: &str| {
            let mut response = ErrorResponse::new(Some(why.to_owned()));
            *response.status_mut() = status;
            response
        };
        // The size of the error is tungstenite's.
        #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let check = |request: &Handshake, response: Response| match &shared.key {
            _ if is_full => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "too many clients")),
            Some(key) if !shown_key(request).is_some_and(|shown| is_same(shown, key)) => {
                Err(refuse(StatusCode::UNAUTHORIZED, "expected the header Authorization: Api-Key KEY"))
            }
            _ => Ok(response),
        };
        let config = WebSocketConfig::default().max_message_size(Some(MOST_BYTES)).max_frame_size(Some(MOST_BYTES));
        let socket =
            tungstenite::accept_hdr_with_config(stream, check, Some(config)).map_err(|error| error.to_string())?;
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| error.to_string())?;
        Ok(Client { socket, ready: Arc::new(ready), gone: Arc::new(AtomicBool::new(false)) })
    }

    fn run(mut self, shared: &Shared) -> Result<(), String> {
        let done = self.session(shared);
        self.gone.store(true, Ordering::Relaxed);
        if let Err(error) = &done {
            // As openpi's server: the reason as text, then the close. A client that is gone hears neither.
            let _ = self.send(Message::text(error.clone()));
            let reason = "Internal server error. Traceback included in previous frame.";
            let _ = self.socket.close(Some(CloseFrame { code: CloseCode::Error, reason: reason.into() }));
            let _ = self.socket.flush();
        }
        done
    }

    fn session(&mut self, shared: &Shared) -> Result<(), String> {
        self.send(binary(&Value::Map(Vec::new()))?)?;
        let mut before_ms: Option<f64> = None;
        while let Some(bytes) = self.receive()? {
            let began = Instant::now();
            let observed = match Request::read(&bytes, &shared.keys).map_err(|error| error.to_string())? {
                Request::Infer(observed) => *observed,
                Request::Reset => {
                    self.send(Message::text("reset successful"))?;
                    continue;
                }
            };
            let (answer, answered) = channel();
            let (gone, ready) = (Arc::clone(&self.gone), Arc::clone(&self.ready));
            shared.jobs.send(Job { observed, gone, answer, ready }).map_err(|_| "the policy has ended".to_owned())?;
            let thought = loop {
                match answered.try_recv() {
                    Ok(thought) => break thought?,
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                    Err(error) => return Err(error.to_string()),
                }
                if !self.wait()? {
                    return Ok(());
                }
            };
            self.send(binary(&answer_of(&thought, began.elapsed(), before_ms))?)?;
            before_ms = Some(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }

    /// The next request, or `None` after a close. Pings are answered meanwhile.
    fn receive(&mut self) -> Result<Option<Bytes>, String> {
        self.socket.get_ref().set_nonblocking(true).map_err(|error| error.to_string())?;
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => return Ok(Some(bytes)),
                Ok(Message::Text(_)) => return Err("expected a binary message, found text".to_owned()),
                Ok(Message::Close(_)) => return Ok(None),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let socket = self.socket.get_ref();
                    let mut polled = [PollFd::new(socket, PollFlags::IN)];
                    until(&mut polled)?;
                }
                Err(tungstenite::Error::ConnectionClosed) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Waits for the policy, and answers pings meanwhile; false after a close.
    fn wait(&mut self) -> Result<bool, String> {
        self.socket.get_ref().set_nonblocking(true).map_err(|error| error.to_string())?;
        let mut polled = [
            PollFd::new(self.socket.get_ref(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.ready.as_fd(), PollFlags::IN),
        ];
        until(&mut polled)?;
        let [from_client, from_policy] = polled.map(|entry| !entry.revents().is_empty());
        if from_policy {
            // It is drained for the next wait.
            let _ = rustix::io::read(&*self.ready, &mut [0; 8]);
        }
        if !from_client {
            return Ok(true);
        }
        match self.socket.read() {
            Ok(Message::Binary(_) | Message::Text(_)) => {
                Err("expected no request before the answer to the last".to_owned())
            }
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => Ok(false),
            Ok(_) => Ok(true),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }

    fn send(&mut self, message: Message) -> Result<(), String> {
        self.socket.get_ref().set_nonblocking(false).map_err(|error| error.to_string())?;
        self.socket.send(message).map_err(|error| error.to_string())
    }
}

fn until(polled: &mut [PollFd<'_>]) -> Result<(), String> {
    loop {
        match poll(polled, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn binary(value: &Value) -> Result<Message, String> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|error| error.to_string())?;
    Ok(Message::binary(bytes))
}

/// `actions` (horizon, dim) in f64, and the times. No other array: openpi's `ActionChunkBroker` slices each.
fn answer_of(thought: &Thought, took: Duration, before_ms: Option<f64>) -> Value {
    let output = &thought.output;
    let steps = output.actions.len() / output.action_dim.max(1);
    let actions = value_of(output.actions.iter().map(|value| f64::from(*value)), &[steps, output.action_dim]);
    let times = |entries: Vec<(&str, f64)>| {
        Value::Map(entries.into_iter().map(|(key, value)| (Value::from(key), Value::from(value))).collect())
    };
    let mut server = vec![("infer_ms", took.as_secs_f64() * 1e3)];
    server.extend(before_ms.map(|ms| ("prev_total_ms", ms)));
    Value::Map(vec![
        (Value::from("actions"), actions),
        (Value::from("policy_timing"), times(vec![("infer_ms", thought.milliseconds)])),
        (Value::from("server_timing"), times(server)),
    ])
}
