//! Disks on files of this process.

use super::*;
use hypervisor::host::HostErrorKind;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

fn disk(capacity: u64) -> FileBlock {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, capacity).unwrap();
    FileBlock { file, capacity }
}

#[test]
fn what_is_written_is_read_back_at_its_place() {
    let disk = disk(4096);
    let mut sector: Vec<u8> = (0..=255).cycle().take(512).collect();
    disk.write_at(3584, GuestSlice::from_host(&mut sector)).unwrap();
    let mut back = [0; 512];
    disk.read_at(3584, GuestSlice::from_host(&mut back)).unwrap();
    assert_eq!(back[..], sector[..]);
    disk.read_at(3072, GuestSlice::from_host(&mut back)).unwrap();
    assert_eq!(back, [0; 512]);
    disk.flush().unwrap();
}

fn lengths() -> impl Iterator<Item = usize> {
    (0..3 * PIECES).map(|i| i * 37 % 5 * 100)
}

fn pieces(bytes: &mut [u8]) -> impl Iterator<Item = GuestSlice<'_>> {
    let mut rest = bytes;
    lengths().map(move |length| {
        let (piece, behind) = std::mem::take(&mut rest).split_at_mut(length);
        rest = behind;
        GuestSlice::from_host(piece)
    })
}

/// More pieces than one call takes, empty ones among them.
#[test]
fn pieces_are_one_run_of_bytes() {
    let disk = disk(1 << 20);
    let len = lengths().sum();
    let mut written: Vec<u8> = (0..=250).cycle().take(len).collect();
    disk.write_pieces(512, len as u64, &mut pieces(&mut written)).unwrap();
    let mut one = vec![0; len];
    disk.read_at(512, GuestSlice::from_host(&mut one)).unwrap();
    assert_eq!(one, written);
    let mut back = vec![0; len];
    disk.read_pieces(512, len as u64, &mut pieces(&mut back)).unwrap();
    assert_eq!(back, written);
}

/// The kernel moves what there is and then nothing.
#[test]
fn a_transfer_that_stops_in_the_middle_is_a_failed_device() {
    let disk = disk(8192);
    ftruncate(&disk.file, 1000).unwrap();
    let (mut first, mut second) = ([0; 700], [0; 700]);
    let pieces = [&mut first, &mut second].map(|piece| GuestSlice::from_host(piece));
    let error = disk.read_pieces(0, 1400, &mut pieces.into_iter()).unwrap_err();
    assert_eq!(error.kind, HostErrorKind::Io);
}

#[test]
fn a_file_that_has_shrunk_is_a_failed_device() {
    let disk = disk(4096);
    ftruncate(&disk.file, 1000).unwrap();
    let error = disk.read_at(512, GuestSlice::from_host(&mut [0; 512])).unwrap_err();
    assert_eq!(error.kind, HostErrorKind::Io);
}

#[test]
fn a_full_device_says_so() {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    let full = FileBlock { file, capacity: 512 };
    let error = full.write_at(0, GuestSlice::from_host(&mut [0; 512])).unwrap_err();
    assert_eq!(error.kind, HostErrorKind::NoSpace);
    assert_eq!(error.to_string(), "block write: No space left on device");
}

#[test]
fn opening_fails_in_upstreams_words() {
    let error = FileBlock::open(OsStr::new("/no/such/file")).err().unwrap();
    assert!(error.starts_with("Could not open block device: /no/such/file: "), "{error}");
}

/// Two writers, or a writer and a reader, are refused; any number of readers are not.
#[test]
fn a_disk_is_one_guests_unless_all_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::write(&path, [0; 512]).unwrap();
    let open = |read_only| FileBlock::open_as(path.as_os_str(), read_only);
    let writer = open(false).unwrap();
    for read_only in [true, false] {
        assert!(matches!(open(read_only), Err(OpenError::InUse)));
    }
    let error = FileBlock::open(path.as_os_str()).err().unwrap();
    assert!(error.contains("disk.img: another guest uses it"), "{error}");
    drop(writer);
    let readers = [open(true).unwrap(), open(true).unwrap()];
    assert!(matches!(open(false), Err(OpenError::InUse)));
    drop(readers);
    open(false).unwrap();
}
