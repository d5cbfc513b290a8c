//! What a guest gains that has taken over its monitor: no more than its hypercalls gave it.
//!
//! The handler of exits runs in the guest's process, as code that may make system calls. So a test
//! says what such a guest would do as a handler, and hears what came of it.

#![allow(unsafe_code)]

use backend_sandbox::{Sandbox, SandboxConfig};
use host_linux::block::FileBlock;
use host_linux::confine::Rule;
use host_linux::net::Port;
use hypervisor::memory::{Gpa, GuestMemory, Perms};
use hypervisor::vcpu::*;
use rustix::io::{FdFlags, fcntl_setfd};
use std::arch::asm;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const MEMORY: u64 = 0x20_0000;
const TEXT: u64 = 0x10_0000;
/// out dx, eax
const CALLS: [u8; 1] = [0xef];

struct Hijacked<F>(F);

impl<F: Fn() -> i64 + Send + Sync> ExitHandler for Hijacked<F> {
    fn handle(&self, _: VmExit, _: &GuestMemory) -> Answer {
        let status = i32::try_from((self.0)()).unwrap_or(i32::MAX);
        Answer::End(Ending::Exit { status, cookie: None })
    }
}

/// A system call from the test's own text, and what the kernel says.
fn call(number: i64, args: [u64; 4]) -> i64 {
    let [a, b, c, d] = args;
    let result;
    // SAFETY: in a process of its own, which this may break.
    unsafe {
        asm!("syscall", inout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") 0, in("r9") 0, out("rcx") _, out("r11") _);
    }
    result
}

/// What comes of a guest whose monitor does this: `Ok` with its result, or the line that says why
/// it was killed. It is given the descriptor of the guest's memory.
fn takeover<F: Fn() -> i64 + Send + Sync + 'static>(
    rules: Vec<Rule>,
    make: impl Fn(u64) -> F,
) -> Result<i32, String> {
    takeover_with(Vec::new(), rules, make)
}

/// The same of a guest that also has these descriptors.
fn takeover_with<F: Fn() -> i64 + Send + Sync + 'static>(
    descriptors: Vec<i32>,
    rules: Vec<Rule>,
    make: impl Fn(u64) -> F,
) -> Result<i32, String> {
    let backend = Sandbox::new(SandboxConfig { descriptors, rules, keep_code: false });
    let mut vm = backend.create_vm(VmSpec { memory: MEMORY }).unwrap();
    vm.memory().write_bytes(Gpa(TEXT), &CALLS).unwrap();
    vm.protect(TEXT..TEXT + 0x1000, Perms::READ | Perms::EXEC).unwrap();
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    let state = X86State {
        rip: TEXT,
        rsp: TEXT + 0x8_0000,
        rflags: 2,
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0, ..segment(0, 0x8b) },
        ..X86State::default()
    };
    let descriptor = u64::try_from(vm.descriptor()).unwrap();
    let handler = Arc::new(Hijacked(make(descriptor)));
    let mut vcpu = vm.create_vcpu(VcpuState::X86(state), handler).unwrap();
    match vcpu.run(VmEntry::Continue).unwrap() {
        VmExit::Ended(ending) => match *ending {
            Ending::Exit { status, .. } => Ok(status),
            other => Err(format!("{other:?}")),
        },
        other => panic!("{other:?} is no end"),
    }
}

fn is_killed(outcome: &Result<i32, String>) -> bool {
    outcome.as_ref().is_err_and(|why| why.contains("a system call that its sandbox forbids"))
}

#[test]
fn its_memory_does_not_grow() {
    let write = |at: u64| {
        takeover(Vec::new(), move |memory| move || call(libc::SYS_pwrite64, [memory, TEXT, 1, at]))
    };
    let len = MEMORY - 0x1_0000;
    assert_eq!(write(len - 1), Ok(1));
    assert_eq!(write(len), Ok(-libc::EPERM));
    assert_eq!(write(1 << 40), Ok(-libc::EPERM));
}

#[test]
fn its_disk_does_not_grow() {
    const CAPACITY: u64 = 4096;
    let path = std::env::temp_dir().join(format!("takeover-{}", std::process::id()));
    std::fs::write(&path, [0; 4096]).unwrap();
    let disk = FileBlock::open(path.as_os_str()).unwrap();
    let fd = u64::try_from(disk.fd()).unwrap();
    let write = |at: u64, len: u64| {
        takeover_with(vec![disk.fd()], disk.rules(), move |_| {
            move || call(libc::SYS_pwrite64, [fd, TEXT, len, at])
        })
    };
    assert_eq!(write(CAPACITY - 512, 512), Ok(512));
    for (at, len) in [(CAPACITY - 512, 513), (CAPACITY, 1), (1 << 40, 1), (u64::MAX, 2)] {
        assert!(is_killed(&write(at, len)), "{len} at {at}");
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), CAPACITY);
    std::fs::remove_file(path).unwrap();
}

/// With sendmsg(2) it could pass its descriptors on, and reach all that a socket's messages have.
#[test]
fn its_stream_takes_bytes_only() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    fcntl_setfd(&ours, FdFlags::empty()).unwrap();
    let port = Port::attach(&format!("@{}", ours.into_raw_fd()), Some([2; 6])).unwrap();
    let fd = u64::try_from(port.fd()).unwrap();
    let send = |number: i64| {
        takeover_with(vec![port.fd()], port.rules(), move |_| move || call(number, [fd, 0, 0, 0]))
    };
    assert_eq!(send(libc::SYS_writev), Ok(0));
    for other in [libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_sendmmsg] {
        assert!(is_killed(&send(other)), "{other}");
    }
    drop(theirs);
}

#[test]
fn clocks_are_those_of_its_hypercalls() {
    let read = |clock: i32| {
        let clock = u64::from(clock.cast_unsigned());
        takeover(Vec::new(), move |_| {
            let time = TEXT + 0x8_0000;
            move || call(libc::SYS_clock_gettime, [clock, time, 0, 0])
        })
    };
    assert_eq!(read(libc::CLOCK_REALTIME), Ok(0));
    assert_eq!(read(libc::CLOCK_MONOTONIC), Ok(0));
    // How busy another process is: clock_getcpuclockid(3) makes such a number of any process'.
    let of_another = !std::process::id().cast_signed() << 3 | 2;
    for other in [of_another, libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_BOOTTIME] {
        assert!(is_killed(&read(other)), "{other}");
    }
}

#[test]
fn its_stack_does_not_grow() {
    let limit = takeover(Vec::from([Rule::any(libc::SYS_prlimit64, "the test asks")]), |_| {
        || {
            let mut limit = [u64::MAX; 2];
            let at = limit.as_mut_ptr().expose_provenance() as u64;
            let asked = call(libc::SYS_prlimit64, [0, u64::from(libc::RLIMIT_STACK), 0, at]);
            let [soft, hard] = limit;
            if asked == 0 && soft == hard { soft.cast_signed() } else { -1 }
        }
    });
    assert!(limit.as_ref().is_ok_and(|bytes| (0..=1 << 20).contains(bytes)), "{limit:?}");
}
