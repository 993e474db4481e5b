//! Standard output and standard error of every program.
//!
//! **Invariant:** a line that cannot be written is left out. It ends no program, and no thread that logs waits for
//! whoever reads the log: [`start`] gives the log a thread of its own. Lines beyond what that thread can hold are dropped
//! and counted, and the count is logged as soon as the log can be written again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Bytes of the log that may wait for the log's thread.
const WAITING_BYTES: usize = 256 << 10;
/// Bytes of one write: a pipe takes them whole or not at all.
const WRITE_BYTES: usize = 4096;
/// A program that ends waits this long for a log that does not get any further.
const STALLED: Duration = Duration::from_secs(1);
/// A thread that panics waits this long for its message to be written: the process may be about to abort.
const PANICKED: Duration = Duration::from_millis(100);

/// Prints a line on the standard output. It is left out if it cannot be written.
#[macro_export]
macro_rules! outln {
    () => { $crate::io::console::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::io::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Writes a line into the log, which is the standard error. It is left out if it cannot be written.
#[macro_export]
macro_rules! errln {
    ($($arg:tt)*) => { $crate::io::console::log_line(format_args!($($arg)*)) };
}

/// Prints on the standard output. Output that cannot be written is dropped.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = io::stdout().lock().write_fmt(text);
}

/// Prints a program's result on the standard output. A reader that has gone is no error.
///
/// # Errors
/// Why it cannot be written, for example because the disk is full.
pub fn print_result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Writes a line into the log. It is left out if it cannot be written.
pub fn log_line(text: fmt::Arguments<'_>) {
    LOG.push(format!("{text}\n").as_bytes());
}

/// Writes a line to the standard error at once, for a program whose result that is.
///
/// # Errors
/// Why it cannot be written.
pub fn log_now(text: fmt::Arguments<'_>) -> io::Result<()> {
    io::stderr().lock().write_all(format!("{text}\n").as_bytes())
}

/// Writes whole lines into the log, whatever writes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the log's thread. Dropping it flushes the log first.
#[must_use = "the log is written out when it is dropped"]
#[derive(Debug)]
pub struct Console(());

impl Drop for Console {
    fn drop(&mut self) {
        flush();
    }
}

/// Waits until the log is written out, as long as it gets any further.
pub fn flush() {
    LOG.flush(STALLED);
}

/// Gives the log a thread of its own, for which nobody waits, and sends messages of panics there, too. To be called first
/// in `main`, and kept to its end. Before it, and if the thread cannot be started, lines are written at once.
pub fn start() -> Console {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        LOG.begin();
        let thread = thread::Builder::new().name("log".to_owned()).spawn(|| LOG.serve(write_some));
        if thread.is_err() {
            LOG.end();
        }
        panic::set_hook(Box::new(|info| {
            let thread = thread::current();
            let trace = Backtrace::capture();
            let trace = match trace.status() {
                BacktraceStatus::Captured => format!("\n{trace}"),
                _ => String::new(),
            };
            log_line(format_args!("thread {:?} {info}{trace}", thread.name().unwrap_or("unnamed")));
            LOG.flush(PANICKED);
        }));
    });
    Console(())
}

/// Writes some bytes to whatever is the standard error now, and waits for it if it has no room.
fn write_some(bytes: &[u8]) -> io::Result<usize> {
    let error = rustix::stdio::stderr();
    loop {
        match rustix::io::write(error, bytes) {
            Err(Errno::INTR) => {}
            // It is non-blocking: programs that share a terminal share that flag.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&error, PollFlags::OUT)], None);
            }
            done => return done.map_err(io::Error::from),
        }
    }
}

static LOG: Log = Log::new();

/// Lines on their way to the log's thread.
struct Log {
    waiting: Mutex<Waiting>,
    /// Something waits.
    more: Condvar,
    /// Some of it was written, or given up.
    done: Condvar,
}

struct Waiting {
    /// There is a thread that writes.
    served: bool,
    text: Vec<u8>,
    /// Lines that found no room.
    dropped: u64,
    /// The thread is writing.
    busy: bool,
    /// Writes so far.
    writes: u64,
}

impl Log {
    const fn new() -> Log {
        let waiting = Waiting { served: false, text: Vec::new(), dropped: 0, busy: false, writes: 0 };
        Log { waiting: Mutex::new(waiting), more: Condvar::new(), done: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        let mut waiting = self.lock();
        waiting.served = true;
        waiting.text.reserve_exact(WAITING_BYTES);
    }

    fn end(&self) {
        self.lock().served = false;
    }

    /// Takes whole lines, or drops and counts them. Waits for nobody but a thread that copies as much.
    fn push(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        if !waiting.served {
            drop(waiting);
            write_lines(lines, &mut write_some, || {});
            return;
        }
        if waiting.text.len() + lines.len() > WAITING_BYTES {
            waiting.dropped += count(lines);
        } else {
            waiting.text.extend_from_slice(lines);
        }
        self.more.notify_one();
    }

    /// Waits until all lines are written or given up, as long as there is a write in each `patience`.
    fn flush(&self, patience: Duration) {
        let mut waiting = self.lock();
        while waiting.served && (waiting.busy || waiting.dropped > 0 || !waiting.text.is_empty()) {
            let writes = waiting.writes;
            let (now, timeout) = self.done.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner);
            waiting = now;
            if timeout.timed_out() && waiting.writes == writes {
                return;
            }
        }
    }

    /// Writes waiting lines by `write`, for ever.
    fn serve(&self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        let mut text = Vec::with_capacity(WAITING_BYTES);
        let mut lost = 0;
        loop {
            lost += self.take(&mut text);
            let wrote = || {
                self.lock().writes += 1;
                self.done.notify_all();
            };
            lost += write_lines(&text, &mut write, wrote);
            if lost > 0 {
                let note = format!("{lost} line(s) of the log are left out: they could not be written\n");
                if write_lines(note.as_bytes(), &mut write, wrote) == 0 {
                    lost = 0;
                }
            }
        }
    }

    /// Waits for something, and swaps it for what `text` holds; the number of lines that were dropped since.
    fn take(&self, text: &mut Vec<u8>) -> u64 {
        text.clear();
        let mut waiting = self.lock();
        waiting.busy = false;
        self.done.notify_all();
        while waiting.text.is_empty() && waiting.dropped == 0 {
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.busy = true;
        std::mem::swap(text, &mut waiting.text);
        std::mem::take(&mut waiting.dropped)
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count().max(1) as u64
}

/// Writes lines in pieces and calls `wrote` after each; the number of lines that were not written whole.
fn write_lines(mut lines: &[u8], write: &mut impl FnMut(&[u8]) -> io::Result<usize>, wrote: impl Fn()) -> u64 {
    while !lines.is_empty() {
        let piece = lines.get(..WRITE_BYTES).unwrap_or(lines);
        match write(piece) {
            Ok(0) | Err(_) => return count(lines),
            Ok(bytes) => lines = lines.get(bytes..).unwrap_or_default(),
        }
        wrote();
    }
    0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::sync::{Arc, OnceLock};

    use super::*;

    /// A log with a thread that writes by `write`.
    fn log(write: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> &'static Log {
        let log: &'static Log = Box::leak(Box::new(Log::new()));
        log.begin();
        thread::spawn(move || log.serve(write));
        log
    }

    fn kept(into: &Arc<Mutex<Vec<u8>>>) -> String {
        String::from_utf8(into.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_are_written_in_their_order_and_whole() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        // Some takers take a byte at a time.
        let log = log(move |bytes: &[u8]| {
            into.lock().unwrap().push(bytes[0]);
            Ok(1)
        });
        let lines: Vec<String> = (0..200).map(|i| format!("line {i}\n")).collect();
        lines.iter().for_each(|line| log.push(line.as_bytes()));
        log.flush(Duration::from_secs(60));
        assert_eq!(kept(&written), lines.concat());
    }

    /// The reader of a pipe that is full and stays so: whoever logs goes on, and what has no room is counted.
    #[test]
    fn nobody_waits_for_a_log_that_takes_nothing() {
        let (release, held) = mpsc::channel::<()>();
        let (begun, waits) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        let log = log(move |bytes: &[u8]| {
            let _ = begun.send(());
            let _ = held.recv();
            into.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        });
        let line = format!("{}\n", "x".repeat(999));
        log.push(line.as_bytes());
        waits.recv().unwrap();
        // All of these return, though nothing is written: what fits waits, the rest is dropped.
        let fit = WAITING_BYTES / line.len();
        (0..fit + 7).for_each(|_| log.push(line.as_bytes()));
        assert_eq!(log.lock().dropped, 7);
        log.flush(Duration::from_millis(1));
        assert!(written.lock().unwrap().is_empty(), "an end that waits no longer than it says");
        drop(release);
        log.flush(Duration::from_secs(60));
        let text = kept(&written);
        assert_eq!(text.lines().filter(|l| l.len() == 999).count(), fit + 1);
        assert!(
            text.ends_with("7 line(s) of the log are left out: they could not be written\n"),
            "the end: {}",
            text.len()
        );
    }

    #[test]
    fn a_log_that_fails_for_a_while_says_how_much_is_missing() {
        static FAILS: OnceLock<Mutex<bool>> = OnceLock::new();
        let fails = FAILS.get_or_init(|| Mutex::new(true));
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        let log = log(move |bytes: &[u8]| {
            if *fails.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            into.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        });
        log.push(b"one\ntwo\n");
        log.push(b"three\n");
        log.flush(Duration::from_secs(60));
        *fails.lock().unwrap() = false;
        log.push(b"four\n");
        log.flush(Duration::from_secs(60));
        assert_eq!(kept(&written), "four\n3 line(s) of the log are left out: they could not be written\n");
    }
}
