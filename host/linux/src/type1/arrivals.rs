//! A thread that tells a guest's devices of frames: epoll(7) on edges, so that frames which a
//! device leaves in its port are not told again and again.

use super::Work;
use crate::confine::Rule;
use hypervisor::host::HostError;
use hypervisor::modes::type1::host::Arrival;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;

/// Room for the networks of one machine.
const EVENTS: usize = 32;

/// The networks of a machine.
pub(super) struct Arrivals {
    set: OwnedFd,
    told: Vec<Arc<dyn Arrival>>,
}

impl Arrivals {
    pub(super) fn new() -> Result<Self, HostError> {
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        Ok(Self { set, told: Vec::new() })
    }

    /// Tells `arrived` when something can be read from `fd`, which stays open for as long as the
    /// process.
    pub(super) fn add(&mut self, fd: RawFd, arrived: Arc<dyn Arrival>) -> Result<(), HostError> {
        // SAFETY: open at the moment; epoll forgets a descriptor that is closed.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let data = EventData::new_u64(self.told.len() as u64);
        epoll::add(&self.set, fd, data, EventFlags::IN | EventFlags::ET).map_err(failed)?;
        self.told.push(arrived);
        Ok(())
    }

    /// The work of the thread and the system calls that it takes, where there is a network.
    pub(super) fn take(&mut self) -> Option<(Vec<Rule>, Work)> {
        let told = std::mem::take(&mut self.told);
        if told.is_empty() {
            return None;
        }
        let set = self.set.try_clone().ok()?;
        let rules = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait]
            .map(|call| Rule::on_fd(call, set.as_raw_fd(), "wait for frames"));
        Some((rules.into(), Box::new(move || serve(&set, &told))))
    }
}

fn serve(set: &OwnedFd, told: &[Arc<dyn Arrival>]) {
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
    loop {
        match epoll::wait(set, &mut events[..], None) {
            Ok(count) => events[..count].iter().for_each(|event| {
                let at = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                told.get(at).into_iter().for_each(|arrived| arrived.arrived());
            }),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn failed(errno: Errno) -> HostError {
    HostError::from_errno(errno.raw_os_error(), "waiting for frames")
}
