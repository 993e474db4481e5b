//! The guest: a QEMU process, its faults through QMP, a shell in it, and its journal.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fathom_contention::Readings;
use serde_json::{Value, json};

/// Time limit for QEMU to open its sockets, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Errors of the guest itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    /// A file or socket of the guest.
    #[error("{what}: {source}")]
    Io {
        /// The file, socket or program.
        what: String,
        /// The error.
        source: io::Error,
    },
    /// QEMU ended.
    #[error("the guest ended: {0}; see console.log and qemu.log")]
    Ended(String),
    /// QEMU refused a command.
    #[error("QEMU on {command}: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// Its answer.
        answer: String,
    },
    /// A command in the guest failed.
    #[error("in the guest, {command:?}: {what}")]
    Shell {
        /// The command line.
        command: String,
        /// Its output.
        what: String,
    },
    /// A command in the guest did not end in time.
    #[error("in the guest, {command:?}: no end within {} s; so far: {printed}", within.as_secs())]
    Hung {
        /// The command line.
        command: String,
        /// The time limit.
        within: Duration,
        /// Its output.
        printed: String,
    },
    /// An expected event did not happen in time.
    #[error("{what}: not within {} s", within.as_secs())]
    Late {
        /// The event.
        what: String,
        /// The time limit.
        within: Duration,
    },
}

impl GuestError {
    /// Whether it is a missed time limit.
    pub(crate) fn is_late(&self) -> bool {
        match self {
            Self::Late { .. } | Self::Hung { .. } => true,
            Self::Io { source, .. } => timed_out(source),
            Self::Ended(_) | Self::Refused { .. } | Self::Shell { .. } => false,
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn at<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T, GuestError> {
    result.map_err(|source| GuestError::Io { what: what.into(), source })
}

/// A line of the guest's journal.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The guest's clock since it was started, in seconds.
    pub(crate) at_s: f64,
    /// Program and message.
    pub(crate) text: String,
}

impl Line {
    /// Whether it is an event of this kind, with these fields, of a log in JSON.
    fn is_event(&self, kind: &str, fields: &[(&str, &str)]) -> bool {
        let Some((_, message)) = self.text.split_once(": ") else { return false };
        let Ok(event) = serde_json::from_str::<serde_json::Value>(message) else { return false };
        let field = |name: &str| event.get("fields").and_then(|fields| fields.get(name));
        event.get("target").is_some_and(|target| target == kind)
            && fields.iter().all(|(name, value)| field(name).is_some_and(|found| found == value))
    }
}

/// A running guest. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Guest {
    qemu: Child,
    folder: PathBuf,
    qmp: Option<BufReader<UnixStream>>,
    shell: Option<BufReader<UnixStream>>,
    journal: File,
    rest: Vec<u8>,
    /// The journal's lines.
    pub(crate) lines: Vec<Line>,
    commands: u32,
}

impl Guest {
    /// Starts a guest of the computer in `image` (see `tools/lib/guest.sh`) with `layer` over its root. Sockets and
    /// logs are in `folder`.
    ///
    /// # Errors
    /// If QEMU does not start.
    pub(crate) fn start(image: &Path, layer: &Path, folder: &Path) -> Result<Guest, GuestError> {
        // It ends with this program, however this program ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]);
        let drive = |file: &Path, id: &str| format!("file={},if=none,id={id},format=raw,readonly=on", file.display());
        // Always without KVM: the hosts that run tests have no working KVM, and a guest must be the same on all.
        command.args(["-M", "virt", "-accel", "tcg,thread=multi", "-cpu", "cortex-a72", "-smp", "2", "-m", "1536"]);
        command.args(["-display", "none", "-monitor", "none", "-no-reboot", "-net", "none"]);
        command.arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
        command.args(["-append", KERNEL, "-serial", "file:console.log"]);
        command.args(["-drive", &drive(&image.join("root.squashfs"), "root"), "-device", "virtio-blk-pci,drive=root"]);
        command.args(["-drive", &drive(layer, "layer"), "-device", "virtio-blk-pci,drive=layer"]);
        command.args(["-device", "qemu-xhci,id=xhci", "-chardev", "socket,id=line,path=line.sock,server=on,wait=off"]);
        command.args(["-device", SERIAL, "-device", "virtio-serial-pci"]);
        command.args(["-chardev", "socket,id=shell,path=shell.sock,server=on,wait=off"]);
        command.args(["-device", "virtserialport,chardev=shell,name=fathom.shell"]);
        command.args(["-chardev", "file,id=journal,path=journal.log"]);
        command.args(["-device", "virtserialport,chardev=journal,name=fathom.journal"]);
        command.args(["-qmp", "unix:qmp.sock,server=on,wait=off"]);
        let log = at("qemu.log", File::create(folder.join("qemu.log")))?;
        let errors = at("qemu.log", log.try_clone())?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        // QEMU appends to it; this program continues reading at its last position.
        let journal =
            File::options().read(true).write(true).create(true).truncate(true).open(folder.join("journal.log"));
        let journal = at("journal.log", journal)?;
        let qemu = at(QEMU, command.spawn())?;
        let mut guest = Guest {
            qemu,
            folder: folder.to_owned(),
            qmp: None,
            shell: None,
            journal,
            rest: Vec::new(),
            lines: Vec::new(),
            commands: 0,
        };
        guest.qmp = Some(BufReader::new(guest.socket("qmp.sock")?));
        guest.shell = Some(BufReader::new(guest.socket("shell.sock")?));
        guest.answer("greeting")?;
        guest.qmp("qmp_capabilities", &json!({}))?;
        Ok(guest)
    }

    /// QEMU's process.
    pub(crate) fn id(&self) -> u32 {
        self.qemu.id()
    }

    /// Reads the kernel's counters of the service's threads in the guest. Returns the guest's clock at that time, since
    /// its start.
    ///
    /// # Errors
    /// If the shell does not answer.
    pub(crate) fn read_contention(&mut self, into: &mut Readings) -> Result<Duration, GuestError> {
        let text = self.sh(CONTENTION, PATIENCE)?;
        let mut parts = text.split("--- ").map(|part| part.split_once('\n').unwrap_or_default());
        let mut part = |name: &str| parts.find(|(found, _)| *found == name).map_or("", |(_, text)| text);
        let (uptime, machine, threads) = (part("uptime"), part("machine"), part("threads"));
        let uptime = uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let uptime = Duration::try_from_secs_f64(uptime).unwrap_or_default();
        // Lines of /proc/PID/task/THREAD/schedstat: and its text.
        let threads = threads.lines().filter_map(|line| {
            let (path, text) = line.split_once(':')?;
            Some((path.split('/').nth(4)?.parse().ok()?, text.to_owned()))
        });
        into.threads(threads);
        into.processors(machine, uptime);
        Ok(uptime)
    }

    /// The socket that is the guest's end of the serial cable.
    pub(crate) fn line(&self) -> PathBuf {
        self.folder.join("line.sock")
    }

    fn socket(&mut self, name: &str) -> Result<UnixStream, GuestError> {
        let since = Instant::now();
        loop {
            match UnixStream::connect(self.folder.join(name)) {
                Ok(socket) => {
                    at(name, socket.set_read_timeout(Some(PATIENCE)))?;
                    return Ok(socket);
                }
                Err(_) if since.elapsed() < PATIENCE => self.alive()?,
                Err(source) => return Err(GuestError::Io { what: name.to_owned(), source }),
            }
            thread::sleep(POLL);
        }
    }

    fn alive(&mut self) -> Result<(), GuestError> {
        match at("QEMU", self.qemu.try_wait())? {
            Some(status) => Err(GuestError::Ended(status.to_string())),
            None => Ok(()),
        }
    }

    /// Pulls the USB serial adapter out, or plugs it in.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub(crate) fn plug_serial(&mut self, plugged: bool) -> Result<(), GuestError> {
        if !plugged {
            return self.qmp("device_del", &json!({ "id": "line0" }));
        }
        let adapter = json!({
            "driver": "usb-serial", "bus": "xhci.0", "port": "1", "chardev": "line", "id": "line0", "always-plugged": true
        });
        self.qmp("device_add", &adapter)
    }

    fn qmp(&mut self, command: &str, arguments: &Value) -> Result<(), GuestError> {
        let request = json!({ "execute": command, "arguments": arguments });
        if let Some(qmp) = &mut self.qmp {
            at("qmp.sock", writeln!(qmp.get_mut(), "{request}"))?;
        }
        self.answer(command)
    }

    /// Reads until QEMU's answer, past its events.
    fn answer(&mut self, command: &str) -> Result<(), GuestError> {
        let Some(qmp) = &mut self.qmp else { return Ok(()) };
        loop {
            let mut line = String::new();
            at("qmp.sock", qmp.read_line(&mut line))?;
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if answer.get("return").is_some() || answer.get("QMP").is_some() {
                return Ok(());
            }
            if line.is_empty() || answer.get("error").is_some() {
                return Err(GuestError::Refused { command: command.to_owned(), answer: line });
            }
        }
    }

    /// Runs a command line in the guest, as root; returns its output.
    ///
    /// # Errors
    /// If it does not end within `within`, or fails.
    pub(crate) fn sh(&mut self, command: &str, within: Duration) -> Result<String, GuestError> {
        self.commands += 1;
        let mark = format!("=== {}", self.commands);
        let Some(shell) = &mut self.shell else { return Ok(String::new()) };
        let failed = |what: String| GuestError::Shell { command: command.to_owned(), what };
        at("shell.sock", shell.get_mut().set_read_timeout(Some(within)))?;
        at("shell.sock", writeln!(shell.get_mut(), "{{ {command} ; }} </dev/null 2>&1; echo \"{mark} $?\""))?;
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            match shell.read_line(&mut line) {
                Ok(0) => return Err(failed("the shell has ended".to_owned())),
                Ok(_) => {}
                Err(error) if timed_out(&error) => {
                    return Err(GuestError::Hung { command: command.to_owned(), within, printed });
                }
                Err(error) => return Err(failed(format!("{error}; so far: {printed}"))),
            }
            match line.trim_end().split_once(&mark) {
                Some((before, status)) if status.trim() == "0" => return Ok(printed + before),
                Some((before, status)) => return Err(failed(format!("ended with{status}: {printed}{before}"))),
                None => printed.push_str(&line),
            }
        }
    }

    /// The guest's clock, in seconds since its start.
    ///
    /// # Errors
    /// If the shell does not answer.
    pub(crate) fn clock_s(&mut self) -> Result<f64, GuestError> {
        let text = self.sh("cat /proc/uptime", PATIENCE)?;
        let first = text.split(' ').next().and_then(|word| word.parse().ok());
        first.ok_or_else(|| GuestError::Shell { command: "cat /proc/uptime".to_owned(), what: text })
    }

    /// Reads the new lines of the journal.
    fn read_journal(&mut self) -> Result<(), GuestError> {
        at("journal.log", self.journal.read_to_end(&mut self.rest))?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some((stamp, text)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else { continue };
            let Ok(at_s) = stamp.trim().parse() else { continue };
            self.lines.push(Line { at_s, text: text.trim_end().to_owned() });
        }
        Ok(())
    }

    /// Waits for an event of the service's log (`--log-format json`), in or after line number `from` of the journal, of
    /// this kind and with these fields; returns its line's number.
    ///
    /// # Errors
    /// If it does not appear within `within`, or the guest ends.
    pub(crate) fn event(
        &mut self,
        from: usize,
        kind: &str,
        fields: &[(&str, &str)],
        within: Duration,
    ) -> Result<usize, GuestError> {
        let since = Instant::now();
        loop {
            let last = since.elapsed() >= within;
            self.read_journal()?;
            let found = self.lines.iter().skip(from).position(|line| line.is_event(kind, fields));
            if let Some(found) = found {
                return Ok(from + found);
            }
            if last {
                return Err(GuestError::Late { what: format!("event {kind} with {fields:?}"), within });
            }
            self.alive()?;
            thread::sleep(POLL);
        }
    }

    /// The journal's present number of lines.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(crate) fn now(&mut self) -> Result<usize, GuestError> {
        self.read_journal()?;
        Ok(self.lines.len())
    }
}

/// The command of [`Guest::read_contention`]. It has no errors if the service has just ended.
const CONTENTION: &str = "id=$(systemctl show --value --property MainPID fathom); echo '--- uptime'; cat /proc/uptime; \
                          echo '--- machine'; grep ^cpu /proc/stat; echo '--- threads'; \
                          grep -s . /proc/$id/task/*/schedstat || true";
const QEMU: &str = "qemu-system-aarch64";
const KERNEL: &str = "console=ttyAMA0 quiet panic=-1 systemd.getty_auto=no systemd.show_status=no";
/// QEMU's FTDI adapter, on the first port: the guest's `1-1`.
const SERIAL: &str = "usb-serial,bus=xhci.0,port=1,chardev=line,id=line0,always-plugged=on";

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
