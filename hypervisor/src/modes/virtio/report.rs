//! What a host's log is told of a device that its driver has broken.
//!
//! The driver is told by the device status alone (VIRTIO 1.3 §2.1.2), so without this a person sees
//! a guest that hangs, and not why. The line is written when no lock is held, as deferred work.

use super::queue::QueueError;
use crate::device::{Effects, Work, WorkRef};
use crate::host::Notices;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

/// Lines of one device: a guest that breaks and resets it for ever must not fill the log.
const MOST: u32 = 8;

/// Where one device's breakdowns are told.
pub(super) struct Report {
    name: String,
    log: Arc<dyn Notices>,
    told: AtomicU32,
}

/// One breakdown, to be told.
struct Breakdown {
    report: Arc<Report>,
    error: QueueError,
}

impl Report {
    pub(super) fn new(name: &str, log: Arc<dyn Notices>) -> Self {
        Self { name: name.into(), log, told: AtomicU32::new(0) }
    }

    /// The work of telling this.
    pub(super) fn broken(self: &Arc<Self>, error: QueueError) -> WorkRef {
        WorkRef::new(Arc::new(Breakdown { report: self.clone(), error }))
    }
}

impl Work for Breakdown {
    fn run(self: Arc<Self>) -> Effects {
        let Report { name, log, told } = &*self.report;
        let lines = told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
            (lines < MOST).then_some(lines + 1)
        });
        if let Ok(before) = lines {
            let last = if before + 1 == MOST { "; no more is told of it" } else { "" };
            let error = &self.error;
            log.notice(format_args!(
                "{name}: the guest's driver has broken a queue: {error}: it stands still until \
                 the guest resets it{last}"
            ));
        }
        Effects::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use core::fmt;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Notices for Log {
        fn notice(&self, text: fmt::Arguments<'_>) {
            self.0.lock().push(text.to_string());
        }
    }

    #[test]
    fn breakdowns_are_told_up_to_a_limit() {
        let log = Arc::new(Log::default());
        let report = Arc::new(Report::new("disk 1", log.clone()));
        for _ in 0..MOST + 5 {
            report.broken(QueueError::Size(3)).run();
        }
        let lines = log.0.lock();
        assert_eq!(lines.len(), MOST as usize);
        let start = "disk 1: the guest's driver has broken a queue: a queue of 3 descriptors";
        assert!(lines.iter().all(|line| line.starts_with(start)), "{lines:?}");
        let ends = lines.iter().filter(|line| line.ends_with("no more is told of it")).count();
        assert!(ends == 1 && lines[7].ends_with("of it"), "{lines:?}");
    }
}
