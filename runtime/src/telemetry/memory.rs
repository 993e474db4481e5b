use std::fmt;

/// Main memory of this process, in bytes; zeros if the kernel does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The peak, of all kinds.
    pub peak: u64,
    /// Private memory. A software driver's buffers are in it, or in the shared memory.
    pub anonymous: u64,
    /// Pages of mapped files.
    pub file: u64,
    /// Shared with other processes.
    pub shared: u64,
}

impl Memory {
    /// The process's memory now.
    pub fn now() -> Memory {
        Memory::of(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn of(status: &str) -> Memory {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default() * 1024
        };
        Memory { peak: bytes("VmHWM"), anonymous: bytes("RssAnon"), file: bytes("RssFile"), shared: bytes("RssShmem") }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let Memory { peak, anonymous, file, shared } = *self;
        let (own, file, shared) = (mib(anonymous), mib(file), mib(shared));
        write!(f, "{own} MiB of its own, {file} MiB of files, {shared} MiB shared; peak {} MiB", mib(peak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    4096 kB\nRssAnon:\t 1024 kB\nRssFile:\t 2048 kB\nRssShmem:\t 0 kB\n";
        let found = Memory::of(status);
        assert_eq!(found, Memory { peak: 4 << 20, anonymous: 1 << 20, file: 2 << 20, shared: 0 });
        assert_eq!(found.to_string(), "1 MiB of its own, 2 MiB of files, 0 MiB shared; peak 4 MiB");
        assert!(Memory::now().peak > 0, "the kernel reports it");
    }
}
