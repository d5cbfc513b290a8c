//! The two directions of a machine's serial line: gathered output, and input with its keys.

use crate::confine::Rule;
use crate::sys::sleep_ms;
use crate::terminal::{Keys, Typed};
use hypervisor::host::{Console, HostError};
use hypervisor::memory::GuestSlice;
use hypervisor::modes::type1::host::{Arrival, ConsoleInput};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that wait for a standard output that takes no more; then the guest waits.
const ROOM: usize = 64 << 10;

/// Output that a thread writes, so that the guest waits for the first byte of a burst at most.
pub(super) struct Output {
    shared: Arc<Waiting>,
    fd: BorrowedFd<'static>,
}

#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    /// There is something to write, or it is the end.
    more: Condvar,
    /// There is room again, or everything is written.
    room: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// The thread is writing what it took.
    writing: bool,
    /// Nobody reads any more, or it is the end: what comes is dropped.
    closed: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self::over(rustix::stdio::stdout())
    }

    fn over(fd: BorrowedFd<'static>) -> Self {
        Self { shared: Arc::default(), fd }
    }

    pub(super) fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), fd: self.fd }
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        vec![
            Rule::on_fd(libc::SYS_write, self.fd.as_raw_fd(), "console output"),
            Rule::any(libc::SYS_nanosleep, "wait for a console that takes no more at the moment"),
        ]
    }

    /// Writes what comes, for good. Where that cannot be done any more, what comes from then on is
    /// dropped, and `lost` is called, once.
    pub(super) fn serve(&self, lost: impl FnOnce(Errno)) {
        let mut lost = Some(lost);
        let mut taken = Vec::with_capacity(ROOM);
        loop {
            let mut state = self.shared.lock();
            while state.bytes.is_empty() {
                state.writing = false;
                self.shared.room.notify_all();
                state = wait(&self.shared.more, state);
            }
            std::mem::swap(&mut state.bytes, &mut taken);
            state.writing = true;
            self.shared.room.notify_all();
            drop(state);
            if let Err(error) = write_all(self.fd, &taken) {
                self.shared.lock().closed = true;
                self.shared.room.notify_all();
                if let Some(lost) = lost.take() {
                    lost(error);
                }
            }
            taken.clear();
        }
    }

    /// Comes back when everything is written.
    pub(super) fn finish(&self) {
        let mut state = self.shared.lock();
        while (state.writing || !state.bytes.is_empty()) && !state.closed {
            state = wait(&self.shared.room, state);
        }
        state.closed = true;
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => sleep_ms(1),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Console for Output {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        let mut done = 0;
        while let Some(rest) = text.part(done, text.len() - done).filter(|rest| !rest.is_empty()) {
            let mut state = self.shared.lock();
            while state.bytes.len() >= ROOM && !state.closed {
                state = wait(&self.shared.room, state);
            }
            if state.closed {
                return Ok(());
            }
            let old = state.bytes.len();
            let count = rest.len().min(ROOM - old);
            state.bytes.resize(old + count, 0);
            done += rest.copy_to(&mut state.bytes[old..]);
            if !state.writing {
                self.shared.more.notify_one();
            }
        }
        Ok(())
    }
}

/// What is typed, until the end of standard input.
pub(super) struct Input {
    to: Arc<dyn ConsoleInput>,
    keys: Keys,
    leave: Box<dyn Fn() + Send>,
    room: Arc<Room>,
}

/// The guest has room for more.
#[derive(Default)]
struct Room {
    told: Mutex<bool>,
    more: Condvar,
}

impl Arrival for Room {
    fn arrived(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.more.notify_one();
    }
}

impl Room {
    fn wait(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *told) {
            told = self.more.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Input {
    pub(super) fn new(to: Arc<dyn ConsoleInput>, keys: Keys, leave: Box<dyn Fn() + Send>) -> Self {
        let room = Arc::<Room>::default();
        to.on_room(Arc::<Room>::clone(&room));
        Self { to, keys, leave, room }
    }

    pub(super) fn serve(mut self) {
        let mut bytes = [0; 512];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
                Ok(0) => return,
                Ok(count) => self.typed(&bytes[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => sleep_ms(10),
                Err(_) => return,
            }
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        let mut plain = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            match self.keys.typed(byte) {
                Typed::Byte(byte) => plain.push(byte),
                Typed::Nothing => {}
                Typed::Leave => {
                    self.give(&plain);
                    plain.clear();
                    (self.leave)();
                }
                Typed::Help => Keys::help(),
            }
        }
        self.give(&plain);
    }

    fn give(&self, mut bytes: &[u8]) {
        loop {
            let taken = self.to.type_in(bytes).min(bytes.len());
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return;
            }
            self.room.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::OwnedFd;

    fn leaked(fd: OwnedFd) -> BorrowedFd<'static> {
        // SAFETY: leaked, so it stays open.
        #[allow(unsafe_code)]
        unsafe {
            BorrowedFd::borrow_raw(std::mem::ManuallyDrop::new(fd).as_raw_fd())
        }
    }

    #[test]
    fn output_arrives_in_order_and_before_the_end() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let output = Output::over(leaked(writer));
        let served = output.share();
        std::thread::spawn(move || served.serve(|_| ()));
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut chunk = [0; 1000];
            while all.len() < 200_000 {
                let count = rustix::io::read(&reader, &mut chunk).unwrap();
                all.extend_from_slice(&chunk[..count]);
            }
            all
        });
        let expected: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        for chunk in expected.chunks(7777) {
            output.write(GuestSlice::from_host(&mut chunk.to_vec())).unwrap();
        }
        output.finish();
        assert_eq!(read.join().unwrap(), expected);
        assert!(output.write(GuestSlice::from_host(&mut [1])).is_ok(), "dropped after the end");
    }

    #[test]
    fn a_reader_that_is_gone_is_told_once_and_nothing_waits() {
        // Rust's runtime ignores SIGPIPE, as our programs do.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let output = Output::over(leaked(writer));
        let served = output.share();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || served.serve(|error| tell.send(error).unwrap()));
        output.write(GuestSlice::from_host(&mut [1])).unwrap();
        assert_eq!(told.recv(), Ok(Errno::PIPE));
        let mut much = vec![2; 2 * ROOM];
        output.write(GuestSlice::from_host(&mut much)).unwrap();
        output.finish();
        assert!(told.try_recv().is_err());
    }

    #[derive(Default)]
    struct Line {
        got: Mutex<Vec<u8>>,
        room: Mutex<Option<Arc<dyn Arrival>>>,
    }

    impl ConsoleInput for Line {
        /// Three bytes at a time; then there is room at once.
        fn type_in(&self, bytes: &[u8]) -> usize {
            let count = bytes.len().min(3);
            self.got.lock().unwrap().extend_from_slice(&bytes[..count]);
            self.room.lock().unwrap().as_ref().unwrap().arrived();
            count
        }

        fn on_room(&self, room: Arc<dyn Arrival>) {
            *self.room.lock().unwrap() = Some(room);
        }
    }

    #[test]
    fn what_does_not_fit_waits_for_room_and_keys_are_kept_out() {
        let line = Arc::new(Line::default());
        let left = Arc::new(Mutex::new(false));
        let leave = Arc::clone(&left);
        let leave = Box::new(move || *leave.lock().unwrap() = true);
        let mut input = Input::new(Arc::<Line>::clone(&line), Keys::of_terminal(), leave);
        input.typed(b"hello\x01\x01, world\x01xyz");
        assert_eq!(*line.got.lock().unwrap(), b"hello\x01, worldyz");
        assert!(*left.lock().unwrap());
    }
}
