//! Files in memory that a child opens by name: nothing is left behind, whatever happens.

use host_program::output::words;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

/// A file that children inherit.
pub struct Handed(File);

impl Handed {
    /// With these contents; `name` is for people who look at descriptors.
    ///
    /// # Errors
    /// In words for a person.
    pub fn new(name: &str, contents: &[u8]) -> Result<Self, String> {
        let failed = |e: std::io::Error| {
            let why = Errno::from_io_error(&e).map_or_else(|| e.to_string(), words);
            format!("cannot make a file in memory to hand to QEMU: {why}")
        };
        // Without CLOEXEC.
        let fd = memfd_create(name, MemfdFlags::empty()).map_err(|e| failed(e.into()))?;
        let mut file = File::from(fd);
        file.write_all(contents).map_err(failed)?;
        Ok(Self(file))
    }

    /// Its name in a child.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// What is in it now.
    pub fn contents(mut self) -> String {
        let mut bytes = Vec::new();
        let read = self.0.rewind().and_then(|()| self.0.read_to_end(&mut bytes));
        read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
    }
}
