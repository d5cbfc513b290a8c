//! Waiting on sockets of this process. Long timeouts are only given where something ends the wait.

use super::*;
use rustix::io::{read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const LONG: u64 = 60_000_000_000;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn both(check: impl Fn(bool)) {
    check(false);
    check(true);
}

fn epoll(nets: &[(u32, &OwnedFd)], coarse: bool) -> Epoll {
    let nets: Vec<_> = nets.iter().map(|&(handle, fd)| (handle, fd.as_fd())).collect();
    let set = Epoll::new(&nets, Vec::new()).unwrap();
    set.coarse.store(coarse, Ordering::Relaxed);
    set
}

#[test]
fn ready_ports_are_the_bits_of_the_set() {
    both(|coarse| {
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        let set = epoll(&[(2, &a), (63, &b)], coarse);
        assert_eq!(set.wait(0), Ok(0));
        write(&to_b, &[1]).unwrap();
        assert_eq!(set.wait(LONG), Ok(1 << 63));
        assert_eq!(set.wait(LONG), Ok(1 << 63), "as long as nobody has taken the frame");
        write(&to_a, &[1]).unwrap();
        assert_eq!(set.wait(0), Ok(1 << 63 | 1 << 2));
        read(&b, &mut [0u8]).unwrap();
        assert_eq!(set.wait(LONG), Ok(1 << 2));
    });
}

#[test]
fn time_passes_as_asked_for() {
    both(|coarse| {
        let (a, _to_a) = pair();
        let set = epoll(&[(0, &a)], coarse);
        for ns in [1, 999_999, 3_000_001] {
            let start = crate::clock::monotonic_ns();
            assert_eq!(set.wait(ns), Ok(0));
            assert!(crate::clock::monotonic_ns() - start >= ns, "{ns} ns, coarse: {coarse}");
        }
        assert_eq!(set.wait(0), Ok(0));
    });
}

#[test]
fn a_wait_falls_back_where_nanoseconds_are_refused() {
    let (a, to_a) = pair();
    let set = epoll(&[(0, &a)], false);
    write(&to_a, &[1]).unwrap();
    // A set without epoll_pwait2 finds out by itself; here it is told.
    set.coarse.store(true, Ordering::Relaxed);
    assert_eq!(set.wait(u64::MAX), Ok(1));
}

#[test]
fn handles_that_do_not_fit_the_set_are_refused() {
    let (a, _to_a) = pair();
    assert_eq!(Epoll::new(&[(64, a.as_fd())], Vec::new()).err(), Some(Errno::INVAL));
}

/// A port that has one frame, and something to send until it was asked twice.
struct Fake {
    frame: AtomicBool,
    unsent: core::sync::atomic::AtomicU32,
}

impl Buffered for Fake {
    fn has_frame(&self) -> bool {
        self.frame.load(Ordering::Relaxed)
    }

    fn has_unsent(&self) -> bool {
        let left = self.unsent.load(Ordering::Relaxed);
        self.unsent.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    fn nudge_with(&self, _: Arc<Nudge>) {}
}

#[test]
fn a_frame_in_a_buffer_ends_the_wait_and_unsent_bytes_do_not() {
    let (a, _to_a) = pair();
    let fake = Arc::new(Fake { frame: AtomicBool::new(true), unsent: 0.into() });
    let buffered: Vec<(u32, Arc<dyn Buffered>)> = vec![(5, Arc::<Fake>::clone(&fake))];
    let set = Epoll::new(&[(5, a.as_fd())], buffered).unwrap();
    assert_eq!(set.wait(LONG), Ok(1 << 5));
    fake.frame.store(false, Ordering::Relaxed);
    fake.unsent.store(2, Ordering::Relaxed);
    // The socket is writable: the set wakes up, has the port send, and goes on waiting.
    assert_eq!(set.wait(3_000_000), Ok(0));
    assert_eq!(fake.unsent.load(Ordering::Relaxed), 0);
    assert!(!set.buffered[0].asks.load(Ordering::Relaxed));
}

/// Takes SIGUSR2 (goes on) and SIGALRM (ends).
struct Ask;

impl OnSignal for Ask {
    fn ends_wait(&self) -> bool {
        let mut ends = false;
        while let Some(signal) = signals::take() {
            ends |= signal == libc::SIGALRM;
        }
        ends
    }
}

#[test]
#[allow(unsafe_code)]
fn a_signal_just_before_a_wait_is_not_lost() {
    signals::install(&[libc::SIGALRM, libc::SIGUSR2]);
    let raise = |signal| {
        // SAFETY: a handler is installed; it only notes the signal.
        unsafe { libc::raise(signal) };
    };
    let (a, _to_a) = pair();
    let mut set = epoll(&[(0, &a)], false).interruptible(Arc::new(Ask));
    for coarse in [false, true] {
        set.coarse = AtomicBool::new(coarse);
        raise(libc::SIGUSR2);
        assert_eq!(set.wait(3_000_000), Ok(0));
        let mut kicked = 0u8;
        // SAFETY: the byte outlives what is told about it, which ends below.
        unsafe { signals::kick_byte(&raw mut kicked) };
        raise(libc::SIGALRM);
        // SAFETY: nobody is told to write there.
        unsafe { signals::kick_byte(core::ptr::null_mut()) };
        assert_eq!(kicked, 1);
        assert_eq!(set.wait(LONG), Ok(0), "coarse: {coarse}");
        assert!(!signals::pending());
    }
}
