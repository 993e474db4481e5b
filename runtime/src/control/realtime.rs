//! Real-time priority and locked memory for the control thread, where the system allows them (`LimitRTPRIO`, `LimitMEMLOCK` of the
//! service).

use std::io;

/// Gives the calling thread a real-time priority until it is dropped.
#[derive(Debug)]
pub(super) struct RealTime {
    before: Option<(i32, libc::sched_param)>,
}

impl RealTime {
    /// Asks for `SCHED_FIFO` with this priority; 0 asks for nothing. Threads that the calling one starts have none. A system that
    /// refuses is logged: the loop runs without.
    pub(super) fn claim(priority: u32) -> RealTime {
        if priority == 0 {
            return RealTime { before: None };
        }
        match claim(priority) {
            Ok(before) => {
                tracing::info!(priority, "the control thread has real-time priority");
                lock_memory();
                RealTime { before: Some(before) }
            }
            Err(error) => {
                tracing::info!(priority, %error, "the control thread has no real-time priority");
                RealTime { before: None }
            }
        }
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        if let Some((policy, parameters)) = &self.before {
            // Giving a priority up is always allowed.
            let _ = set(*policy, parameters);
        }
    }
}

/// The thread's policy and parameters before.
fn claim(priority: u32) -> io::Result<(i32, libc::sched_param)> {
    let mut before = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the system writes one `sched_param` to a place that is one.
    let policy = unsafe {
        let policy = libc::sched_getscheduler(0);
        if libc::sched_getparam(0, &raw mut before) < 0 {
            return Err(io::Error::last_os_error());
        }
        policy
    };
    if policy < 0 {
        return Err(io::Error::last_os_error());
    }
    let parameters = libc::sched_param { sched_priority: i32::try_from(priority).unwrap_or(i32::MAX) };
    set(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameters)?;
    Ok((policy, before))
}

fn set(policy: i32, parameters: &libc::sched_param) -> io::Result<()> {
    // SAFETY: 0 is the calling thread; the system reads one `sched_param`.
    match unsafe { libc::sched_setscheduler(0, policy, std::ptr::from_ref(parameters)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the memory that this process uses now from being paged out. Pages that it has not touched yet are not loaded for it: a mapped
/// checkpoint stays on disk.
fn lock_memory() {
    // SAFETY: no memory is read or written; pages that are resident stay so.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) } {
        0 => tracing::debug!("memory is locked"),
        _ => tracing::info!(error = %io::Error::last_os_error(), "memory is not locked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calling thread's policy.
    fn policy() -> i32 {
        // SAFETY: 0 is the calling thread; no memory is read or written.
        unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
    }

    #[test]
    fn a_priority_ends_with_its_owner_and_is_not_inherited() {
        let before = policy();
        let claimed = RealTime::claim(1);
        let expected = if claimed.before.is_some() { libc::SCHED_FIFO } else { before };
        assert_eq!(policy(), expected, "a refusal changes nothing");
        let started = std::thread::spawn(policy).join().expect("it ends");
        assert_eq!(started, libc::SCHED_OTHER, "a thread that this one starts");
        drop(claimed);
        assert_eq!(policy(), before);
        assert!(RealTime::claim(0).before.is_none(), "0 asks for nothing");
    }
}
