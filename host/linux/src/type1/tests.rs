//! The host as the mode uses it.

use super::*;
use hypervisor::memory::GuestSlice;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Sender, channel};

struct Tells(Sender<()>);

impl Arrival for Tells {
    fn arrived(&self) {
        let _ = self.0.send(());
    }
}

struct Deaf;

impl ConsoleInput for Deaf {
    fn type_in(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_room(&self, _: Arc<dyn Arrival>) {}
}

#[test]
fn a_park_ends_by_a_kick_before_it_during_it_and_by_time() {
    let thread = Arc::new(Thread::new(libc::SIGURG));
    thread.kick();
    thread.park(None);
    let parked = Arc::clone(&thread);
    let (tell, told) = channel();
    let other = std::thread::spawn(move || {
        for _ in 0..100 {
            parked.park(None);
            tell.send(()).unwrap();
        }
    });
    for _ in 0..100 {
        thread.kick();
        told.recv().unwrap();
    }
    other.join().unwrap();
    let now = crate::clock::monotonic_ns();
    thread.park(Some(now + 2_000_000));
    assert!(crate::clock::monotonic_ns() >= now + 2_000_000);
    thread.park(Some(0));
}

#[test]
fn frames_are_told_once_each_time_that_they_come() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
    let host = LinuxHost::new(libc::SIGURG, || {});
    let mut session = host.session(VmId::new(1).unwrap(), "x").unwrap();
    let (tell, told) = channel();
    let name = format!("@{}", ours.as_raw_fd());
    let port = session.net(0, Some(&name), None, Arc::new(Tells(tell))).unwrap();
    let lent = session.lend(2, Arc::new(Deaf)).unwrap();
    assert_eq!(lent.vcpus.len(), 2);
    let serve = host.shared.state().work.pop().unwrap();
    assert_eq!(serve.0, "networks");
    std::thread::spawn(serve.1);
    for round in 0..3u8 {
        rustix::io::write(&theirs, &[round; 60]).unwrap();
        told.recv().unwrap();
        let mut frame = [0; 100];
        let got = port.receive(GuestSlice::from_host(&mut frame)).unwrap();
        assert_eq!((got, frame[59]), (Some(60), round));
        assert_eq!(port.receive(GuestSlice::from_host(&mut frame)), Ok(None));
    }
    std::mem::forget(ours);
}

#[test]
fn a_read_only_disk_cannot_be_written() {
    let host = LinuxHost::new(libc::SIGURG, || {});
    let mut session = host.session(VmId::new(1).unwrap(), "x").unwrap();
    let disk = session.disk("/proc/self/exe", true).unwrap();
    assert!(disk.write_at(0, GuestSlice::from_host(&mut [0; 512])).is_err());
    let missing = session.disk("/nowhere", false).err().unwrap();
    assert_eq!(missing.to_string(), "opening the disk: No such file or directory");
}

#[test]
fn a_file_that_was_open_once_stays_so() {
    let path = std::env::temp_dir().join(format!("type1-host-{}", std::process::id()));
    std::fs::write(&path, b"kernel").unwrap();
    let name = path.to_str().unwrap();
    let host = LinuxHost::new(libc::SIGURG, || {});
    drop(host.open(name).unwrap());
    std::fs::remove_file(&path).unwrap();
    let again = host.open(name).unwrap();
    let mut bytes = [0; 6];
    assert_eq!(again.read_at(0, GuestSlice::from_host(&mut bytes)), Ok(6));
    assert_eq!(&bytes, b"kernel");
    assert!(host.open("/nowhere").is_err());
}
