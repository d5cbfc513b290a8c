//! An unmodified distribution's Linux as a whole machine: to its shell, and back.

use std::fs;
use system_tests::{Machine, Scratch};

#[test]
fn linux_reaches_a_shell_writes_its_disk_and_powers_off() {
    let folder = Scratch::new();
    let disk = folder.zeroes("disk.img", 1 << 20);
    let name = "linux_reaches_a_shell_writes_its_disk_and_powers_off";
    let more = format!("[[vm.type1.disks]]\npath = {disk:?}\n");
    let Some(mut linux) = Machine::linux(name, 1, &more) else { return };
    assert_eq!(linux.shell("nproc"), "1");
    let interrupts = linux.shell("cat /proc/interrupts");
    assert!(interrupts.contains("ttyS0"), "{interrupts}");
    assert_eq!(linux.shell("cat /sys/block/vda/size"), "2048");
    linux.shell("echo written in the guest > /dev/vda; sync");
    linux.type_line("exit");
    let run = linux.wait();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(run.stdout.contains("reboot: Power down"), "{run:#?}");
    assert!(run.stderr.contains("confined: system call filter"), "{run:#?}");
    let written = fs::read(disk).unwrap();
    assert!(written.starts_with(b"written in the guest\n"), "{:?}", &written[..32]);
}

#[test]
fn linux_has_four_cpus_reboots_and_ends_by_a_signal() {
    let name = "linux_has_four_cpus_reboots_and_ends_by_a_signal";
    let Some(mut linux) = Machine::linux(name, 4, "") else { return };
    assert_eq!(linux.shell("nproc"), "4");
    for cpu in 0..4 {
        assert_eq!(linux.shell(&format!("taskset -c {cpu} sh -c 'echo $((6*7))'")), "42");
    }
    linux.type_line("reboot -f");
    linux.boots_again();
    assert_eq!(linux.shell("nproc"), "4");
    linux.signal(15);
    let run = linux.wait();
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.stderr.contains("Exiting on signal 15"), "{run:#?}");
}
