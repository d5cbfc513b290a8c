//! Threads of a process that gives up its system calls once they run.
//!
//! [`begin`] returns when the thread does its work: what a thread's start takes (a signal stack,
//! registrations with the system, its own heap) lies behind it, so that a filter may come. A
//! thread that has ended its work stays, because an end takes such calls as well.

use std::io;
use std::sync::mpsc::channel;
use std::thread::{self, Builder};

/// Starts a thread with a stack of so many bytes, and waits until it runs.
///
/// # Errors
/// If there can be no more threads.
pub fn begin(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (tell, begun) = channel();
    let work = move || {
        // This allocates, in this thread: its heap is there from now on.
        let _ = tell.send(());
        work();
        loop {
            thread::park();
        }
    };
    Builder::new().name(name.to_owned()).stack_size(stack).spawn(work)?;
    // The other side is never gone: the thread has it.
    let _ = begun.recv();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::begin;
    use std::sync::Arc;
    use std::sync::Mutex;

    /// Held by the caller, the lock keeps the thread in its work, and its start is over.
    #[test]
    fn a_thread_has_begun_when_it_is_handed_over() {
        let name = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&name);
        let (tell, told) = std::sync::mpsc::channel();
        let work = move || {
            let own = std::thread::current().name().unwrap_or_default().to_owned();
            theirs.lock().unwrap().push_str(&own);
            tell.send(()).unwrap();
        };
        begin("a thread", 64 << 10, work).unwrap();
        told.recv().unwrap();
        assert_eq!(*name.lock().unwrap(), "a thread");
    }
}
