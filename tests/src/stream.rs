//! Output of a process that a thread reads as it comes, so that the process never waits for us.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How much output is kept.
const OUTPUT_MAX: usize = 4 << 20;

/// Output that a thread reads as it comes.
pub struct Stream {
    shared: Arc<(Mutex<Seen>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    text: Vec<u8>,
    closed: bool,
}

impl Stream {
    /// Nothing to read.
    pub fn none() -> Self {
        Self::read(std::io::empty())
    }

    /// Starts to read.
    pub fn read(mut source: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let sink = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = source.read(&mut buffer).unwrap_or(0);
                let mut seen = sink.0.lock().expect("nobody panics with the lock held");
                let room = OUTPUT_MAX - seen.text.len();
                seen.text.extend_from_slice(&buffer[..count.min(room)]);
                seen.closed = count == 0;
                sink.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { shared, reader: Some(reader) }
    }

    /// What has been written so far.
    pub fn now(&self) -> String {
        let seen = self.shared.0.lock().expect("nobody panics with the lock held");
        String::from_utf8_lossy(&seen.text).into_owned()
    }

    /// Waits a moment for `text`; gives what has been written so far.
    pub fn wait_for(&self, text: &str) -> String {
        let lacks =
            |seen: &mut Seen| !seen.closed && !String::from_utf8_lossy(&seen.text).contains(text);
        let seen = self.shared.0.lock().expect("nobody panics with the lock held");
        let moment = Duration::from_millis(100);
        let (seen, _) = self
            .shared
            .1
            .wait_timeout_while(seen, moment, lacks)
            .expect("nobody panics with the lock held");
        String::from_utf8_lossy(&seen.text).into_owned()
    }

    /// Everything, when the process has ended; a process that it left behind and that holds the
    /// pipe open is given a moment.
    pub fn all(&mut self) -> String {
        let start = Instant::now();
        while !self.shared.0.lock().expect("nobody panics with the lock held").closed {
            if start.elapsed() > Duration::from_secs(5) {
                return self.now() + "\n[some process still holds this output open]\n";
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.now()
    }
}
