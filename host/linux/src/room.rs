//! Room for a few words on a descriptor that somebody else may not read: a person's terminal that
//! is stopped, a pipe that is full. A write would wait there for ever, and so would the signal that
//! is to end this process.

use crate::{signals, sys};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// What a pipe with room takes without a wait (pipe(7), PIPE_BUF).
pub const BYTES: usize = 4096;

/// How long one waits who is in a hurry.
const PATIENCE_MS: i64 = 500;

/// Waits until there is room for [`BYTES`] or an error to be told by the write. `false` if there is
/// none for half a second `in_a_hurry`, which everybody is once a signal has come that is not
/// SIGUSR1.
pub fn wait(of: BorrowedFd<'_>, in_a_hurry: bool) -> bool {
    let mut hurry = in_a_hurry;
    loop {
        let mut fds = [PollFd::from_borrowed_fd(of, PollFlags::OUT)];
        match sys::ppoll(&mut fds, PATIENCE_MS) {
            Ok(0) | Err(Errno::INTR) if hurry => return false,
            Ok(0) | Err(Errno::INTR) => hurry = signals::pending_besides(libc::SIGUSR1),
            // Under an outer filter there is no such call.
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use rustix::io::{ioctl_fionbio, write};
    use rustix::pipe::pipe;

    #[test]
    fn a_full_pipe_is_given_up_in_a_hurry() {
        let (reader, writer) = pipe().unwrap();
        assert!(wait(writer.as_fd(), true));
        ioctl_fionbio(&writer, true).unwrap();
        while write(&writer, &[0; BYTES]).is_ok() {}
        assert!(!wait(writer.as_fd(), true));
        rustix::io::read(&reader, &mut [0u8; BYTES]).unwrap();
        assert!(wait(writer.as_fd(), true));
        assert_eq!(write(&writer, &[0; BYTES]), Ok(BYTES));
        drop(reader);
        assert!(wait(writer.as_fd(), false), "the write is an error, and at once");
    }
}
