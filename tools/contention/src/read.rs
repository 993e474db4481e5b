//! Reads the kernel's counters in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Denial, Failure, History, Totals, Verdict, judge};

/// Time between two readings.
const PERIOD: Duration = Duration::from_millis(100);
/// The unit of times in `/proc/stat`: hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The measured processes.
#[derive(Debug, Clone)]
pub enum Processes {
    /// These processes.
    Only(Vec<u32>),
    /// This process and its descendants, whenever they start.
    Tree(u32),
}

impl Processes {
    /// This process without its children.
    pub fn this() -> Self {
        Self::Only(vec![std::process::id()])
    }

    fn ids(&self) -> Vec<u32> {
        match self {
            Self::Only(ids) => ids.clone(),
            Self::Tree(root) => {
                let mut ids = vec![*root];
                let mut next = 0;
                while let Some(id) = ids.get(next).copied() {
                    ids.extend(children(id));
                    next += 1;
                }
                ids
            }
        }
    }
}

/// The children of a process, by its threads; none if the kernel does not list them.
fn children(id: u32) -> Vec<u32> {
    let lists = threads(id).into_iter().map(|thread| format!("/proc/{id}/task/{thread}/children"));
    let texts = lists.filter_map(|list| fs::read_to_string(list).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

fn threads(id: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The kernel's counters as they are read, with the state needed between readings.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Each thread's run and waiting times at its last reading.
    seen: BTreeMap<u32, [Duration; 2]>,
    /// Whether threads were read before; a thread that is new after that has waited since its start.
    begun: bool,
    /// Idle and stolen time of all processors at the first reading.
    idle: Option<Duration>,
    totals: Totals,
}

impl Readings {
    /// Adds the times of all existing threads: number and the text of `/proc/PID/task/NUMBER/schedstat`. The times of a
    /// thread that has ended are kept.
    pub fn threads(&mut self, all: impl IntoIterator<Item = (u32, String)>) {
        let mut there = BTreeSet::new();
        for (thread, text) in all {
            let Some(now) = ran_and_waited(&text) else { continue };
            there.insert(thread);
            let before = self.seen.insert(thread, now);
            // A number whose times have decreased belongs to a new thread.
            let [ran, waited] = before.filter(|[ran, _]| *ran <= now[0]).unwrap_or_default();
            if self.begun {
                self.totals.own += now[0] - ran;
                self.totals.waited += now[1].saturating_sub(waited);
            }
        }
        self.seen.retain(|thread, _| there.contains(thread));
        self.begun = true;
    }

    /// Adds `/proc/stat`, `since` the first reading. All time that is not idle counts as busy: the kernel counts idle
    /// time, and samples the rest.
    pub fn processors(&mut self, machine: &str, since: Duration) {
        let processors = machine.lines().filter(|line| is_processor(line)).count();
        if let Some([idle, stolen]) = machine.lines().next().and_then(idle_and_stolen) {
            let there = since * u32::try_from(processors).unwrap_or(u32::MAX);
            let first = *self.idle.get_or_insert(idle + stolen);
            self.totals.busy = (there + first).saturating_sub(idle + stolen).max(self.totals.busy);
            self.totals.stolen = stolen;
        }
    }

    /// Adds `cpu.stat` of the control group, if there is one.
    pub fn quota(&mut self, group: &str) {
        let us = group.lines().find_map(|line| line.strip_prefix("throttled_usec ")?.trim().parse().ok());
        self.totals.throttled = us.map_or(self.totals.throttled, Duration::from_micros);
    }

    /// The sums up to now.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

/// Parses `schedstat`: nanoseconds run, nanoseconds waited for a processor, number of slices.
fn ran_and_waited(schedstat: &str) -> Option<[Duration; 2]> {
    let mut numbers = schedstat.split_whitespace().map(|word| word.parse().ok().map(Duration::from_nanos));
    Some([numbers.next()??, numbers.next()??])
}

/// Whether a line of `/proc/stat` belongs to one processor.
fn is_processor(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Parses the first line of `/proc/stat`: user, nice, system, idle, I/O wait, interrupts (two), stolen.
fn idle_and_stolen(line: &str) -> Option<[Duration; 2]> {
    let fields: Vec<u32> = line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    let idle = fields.get(3)?.checked_add(*fields.get(4)?)?;
    Some([TICK * idle, TICK * fields.get(7).copied().unwrap_or(0)])
}

/// Reads in the background until it is dropped.
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    processes: Processes,
    group: Option<String>,
    exit: AtomicBool,
    begun: Instant,
    state: Mutex<(Readings, History)>,
}

impl Shared {
    fn read(&self) {
        let ids = self.processes.ids();
        let schedstats = ids.iter().flat_map(|id| {
            let of =
                |thread: u32| Some((thread, fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat")).ok()?));
            threads(*id).into_iter().filter_map(of).collect::<Vec<_>>()
        });
        let schedstats: Vec<(u32, String)> = schedstats.collect();
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let now = Instant::now();
        let group = self.group.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let (readings, history) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        readings.threads(schedstats);
        readings.processors(&machine, now - self.begun);
        readings.quota(&group.unwrap_or_default());
        history.push(now, readings.totals());
    }
}

impl Meter {
    /// Starts to measure these processes. Without the kernel's counters, nothing counts as denied.
    pub fn start(processes: Processes) -> Meter {
        let (exit, begun, state) = (AtomicBool::new(false), Instant::now(), Mutex::default());
        let shared = Arc::new(Shared { processes, group: group(), exit, begun, state });
        shared.read();
        let reads = Arc::clone(&shared);
        let reader = move || {
            while !reads.exit.load(Ordering::Relaxed) {
                thread::sleep(PERIOD);
                reads.read();
            }
        };
        // Without a thread, the two readings at the ends remain.
        let thread = thread::Builder::new().name("contention".into()).spawn(reader).ok();
        Meter { shared, thread }
    }

    /// The time denied between two times.
    pub fn between(&self, from: Instant, to: Instant) -> Denial {
        self.shared.read();
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).1.between(from, to)
    }

    /// Judges failures up to now.
    pub fn judge(&self, failures: &[Failure]) -> Verdict {
        self.shared.read();
        judge(failures, &self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

/// The file with the counters of this process's control group.
fn group() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // In a container the path is often the host's, and the group is mounted as the root.
    let files =
        [format!("/sys/fs/cgroup{}/cpu.stat", path.trim_end_matches('/')), "/sys/fs/cgroup/cpu.stat".to_owned()];
    files.into_iter().find(|file| fs::metadata(file).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn times_count_from_the_first_reading_on_and_outlive_their_thread() {
        let mut readings = Readings::default();
        let stat = |thread: u32, ran_ms: u64, waited_ms: u64| {
            (thread, format!("{} {} 7\n", ran_ms * 1_000_000, waited_ms * 1_000_000))
        };
        let sums = |readings: &Readings| (readings.totals().own, readings.totals().waited);
        readings.threads([stat(1, 10, 500), stat(2, 10, 10)]);
        assert_eq!(sums(&readings), (Duration::ZERO, Duration::ZERO), "before the measure");
        readings.threads([stat(1, 11, 530), stat(2, 10, 10)]);
        assert_eq!(sums(&readings), (MS, MS * 30));
        readings.threads([stat(1, 11, 530), stat(3, 2, 4)]);
        assert_eq!(sums(&readings), (MS * 3, MS * 34), "a new thread, and one that is gone");
        readings.threads([stat(1, 11, 530), stat(2, 1, 9)]);
        assert_eq!(sums(&readings), (MS * 4, MS * 43), "a number that is used again");
        readings.threads([stat(1, 0, 2), (4, "no numbers".into())]);
        assert_eq!(sums(&readings), (MS * 4, MS * 45));
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let machine = |idle: u32| {
            format!(
                "cpu  10 0 10 {idle} 10 0 0 20 3 0\ncpu0 5 0 5 75 5 0 0 10 1 0\ncpu1 5 0 5 75 5 0 0 10 2 0\nintr 5\n"
            )
        };
        let mut readings = Readings::default();
        readings.processors(&machine(100), Duration::ZERO);
        readings.processors(&machine(260), Duration::from_secs(1));
        readings.quota("usage_usec 5\nnr_throttled 1\nthrottled_usec 2500\n");
        let totals = readings.totals();
        assert_eq!((totals.busy, totals.stolen), (MS * 400, MS * 200), "two processors for a second, idle for 1.6 s");
        assert_eq!(totals.throttled, Duration::from_micros(2500));
        readings.processors("", Duration::from_secs(2));
        readings.quota("");
        assert_eq!(readings.totals(), totals, "nothing to read changes nothing");
    }

    /// More shells that never rest than there are processors: each waits while the others run. That the machine is busy with other
    /// things, too, only adds to it.
    #[test]
    fn a_process_beside_others_that_never_rest_is_denied() {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let spin = || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
        let mut shells: Vec<_> = (0..4 * processors).map(|_| spin()).collect();
        let one = Meter::start(Processes::Only(vec![shells[0].id()]));
        let tree = Meter::start(Processes::Tree(std::process::id()));
        let from = Instant::now();
        // Until the kernel has counted enough, whatever else it does.
        let deadline = from + Duration::from_secs(60);
        let mut denial = one.between(from, Instant::now());
        while !(denial.is_busy() && denial.denied > Duration::from_secs(1)) && Instant::now() < deadline {
            thread::sleep(MS * 100);
            denial = one.between(from, Instant::now());
        }
        let all = tree.shared.state.lock().unwrap().0.totals();
        for shell in &mut shells {
            shell.kill().and_then(|()| shell.wait()).expect("it ran");
        }
        assert!(denial.is_busy() && denial.denied > Duration::from_secs(1), "{denial}");
        assert!(denial.denied <= denial.span, "one thread waits no longer than it takes: {denial}");
        let ids = Processes::Tree(std::process::id()).ids();
        assert_eq!(ids.first(), Some(&std::process::id()));
        assert!(all.own > Duration::ZERO && all.waited > denial.denied, "all of them wait more than one: {all:?}");
    }
}
