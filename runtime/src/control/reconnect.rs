//! The line to the controller: opens it, and reopens it on a separate thread while the loop keeps ticking.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::events::{Events, LoopEvent};
use crate::fault::Faults;
use crate::link::{Link, LinkError};
use crate::waker::Waker;

/// Time limit of a controller's hello.
pub(super) const HELLO: Duration = Duration::from_secs(5);
/// Time for which a device may be missing at the start.
const PLUG: Duration = Duration::from_secs(10);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Both ends of a line.
type Ends = (Box<dyn Read + Send>, Box<dyn Write + Send>);

/// The source of the line's two ends.
#[derive(Clone)]
pub(crate) enum Port {
    /// A serial device.
    Serial {
        /// Bits per second.
        baud: u32,
    },
    /// A line of the user's.
    Own(Arc<dyn Fn() -> io::Result<Ends> + Send + Sync>),
}

impl Port {
    pub(super) fn own<R, W>(open: impl Fn() -> io::Result<(R, W)> + Send + Sync + 'static) -> Port
    where
        R: Read + Send + 'static,
        W: Write + Send + 'static,
    {
        Port::Own(Arc::new(move || {
            let (reader, writer) = open()?;
            Ok((Box::new(reader), Box::new(writer)))
        }))
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Port::Serial { .. } => "Serial",
            Port::Own(_) => "Own",
        })
    }
}

/// How the line is opened.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(super) device: String,
    pub(super) port: Port,
    /// The controller's joints in its order.
    pub(super) joints: Vec<String>,
    /// Accept only the controller with this identity; default: any.
    pub(super) identity: Option<String>,
    /// Time without a good frame after which the controller counts as silent; default: the link's.
    pub(super) silence: Option<Duration>,
    pub(super) faults: Faults,
    pub(super) events: Events,
    /// Wakes the control thread when something arrives.
    pub(super) waker: Waker,
}

impl Connector {
    /// Opens the line and checks the controller.
    pub(crate) fn open(&self) -> Result<Link, LinkError> {
        let mut link = match &self.port {
            Port::Serial { baud } => Link::open_with_faults(&self.device, *baud, &self.faults)?,
            Port::Own(open) => {
                let failed = |source| LinkError::Open { device: self.device.clone(), source };
                let (reader, writer) = open().map_err(failed)?;
                Link::over(&self.device, reader, writer)?
            }
        };
        link.wakes(self.waker.clone());
        if let Some(silence) = self.silence {
            link.set_silence(silence);
        }
        link.set_identity(self.identity.clone());
        link.hello(&self.joints, HELLO)?;
        Ok(link)
    }

    /// As [`open`](Self::open), but waits some time for a missing device: at power-on the service may start before a
    /// USB adapter and its udev rules are ready.
    pub(super) fn open_when_plugged_in(&self) -> Result<Link, LinkError> {
        let deadline = Instant::now() + PLUG;
        let mut warned = false;
        loop {
            match self.open() {
                Err(error @ (LinkError::Absent { .. } | LinkError::Permission { .. })) if Instant::now() < deadline => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(%error, "the line does not open yet");
                    }
                    thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Closes `lost` and opens the line again, with as many attempts as it takes.
    pub(super) fn reconnect(&self, lost: Link) -> std::io::Result<Reconnecting> {
        let (sender, opened) = sync_channel(1);
        let exit = Arc::new(AtomicBool::new(false));
        let (connector, stop) = (self.clone(), Arc::clone(&exit));
        let thread = thread::Builder::new().name("link-open".into()).spawn(move || {
            // A device that returns while its old node is open gets another name.
            drop(lost);
            let mut last = String::new();
            while !stop.load(Ordering::Relaxed) {
                match connector.open() {
                    Ok(link) => {
                        // If the receiver has been dropped, the link closes.
                        let _ = sender.send(link);
                        return;
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if error != last {
                            last.clone_from(&error);
                            connector.events.emit(LoopEvent::LineNotOpen { why: error });
                        }
                    }
                }
                thread::sleep(PAUSE);
            }
        })?;
        Ok(Reconnecting { opened, exit, thread: Some(thread) })
    }
}

/// A line that is being opened.
#[derive(Debug)]
pub(super) struct Reconnecting {
    opened: Receiver<Link>,
    exit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reconnecting {
    /// The line, once it is open. `Err` if the thread ended without one.
    pub(super) fn poll(&self) -> Result<Option<Link>, ()> {
        match self.opened.try_recv() {
            Ok(link) => Ok(Some(link)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }
}

impl Drop for Reconnecting {
    fn drop(&mut self) {
        self.exit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread ends with its hello at the latest; a panic has already been printed.
            let _ = thread.join();
        }
    }
}
