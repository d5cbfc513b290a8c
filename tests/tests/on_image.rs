//! `--backend=qemu`: our bare-metal image in an emulated processor, with this machine's disks,
//! networks and terminal, and the guest's status.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use system_tests::pseudoterminal::Pseudoterminal;
use system_tests::stream::Stream;
use system_tests::{Machine, Scratch, Tender, test_kernel};

/// An emulated machine starts slowly.
const LIMIT: Duration = Duration::from_secs(120);
const QEMU: &str = "qemu";

#[test]
fn linux_has_its_disk_and_its_network() {
    let folder = Scratch::new();
    let disk = folder.zeroes("disk.img", 1 << 20);
    let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let out = here.local_addr().unwrap().port();
    let back = free_port();
    let more = format!(
        "[[vm.type1.disks]]\npath = {disk:?}\n\
         [[vm.type1.nets]]\ninterface = \"user,host,tcp={back}:80\"\n"
    );
    let mut linux = Machine::linux_on(QEMU, 1, &more);
    assert_eq!(linux.shell("cat /sys/block/vda/size"), "2048");
    linux.shell("echo written in the guest > /dev/vda; sync");
    linux.shell("ifconfig eth0 10.0.2.15 up; mkdir /tmp/www; echo from the guest > /tmp/www/a");

    linux.type_line(&format!("echo to the host | nc 10.0.2.2 {out}"));
    let mut told = String::new();
    here.accept().unwrap().0.read_to_string(&mut told).unwrap();
    assert_eq!(told, "to the host\n");
    linux.prompted();

    linux.shell("httpd -h /tmp/www");
    let mut page = TcpStream::connect((Ipv4Addr::LOCALHOST, back)).unwrap();
    page.set_read_timeout(Some(LIMIT)).unwrap();
    page.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("from the guest\n"), "{answer}");

    linux.type_line("exit");
    let run = linux.wait();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(fs::read(disk).unwrap().starts_with(b"written in the guest\n"));
}

#[test]
fn linux_resets_its_machine_in_every_way() {
    let mut linux = Machine::linux_on(QEMU, 2, "");
    linux.resets_by(&["bios", "efi", "triple", "kbd", "pci", "acpi"]);
    linux.type_line("exit");
    assert_eq!(linux.wait().status, Some(0));
}

/// Firmware takes RAM for each virtio disk off the top of the memory map, where QEMU puts the boot
/// module: part of the module then lies outside of what the map calls RAM.
#[test]
fn linux_has_four_disks() {
    let folder = Scratch::new();
    let more: String = (1..=4)
        .map(|number| folder.zeroes(&format!("disk{number}.img"), number << 20))
        .map(|disk| format!("[[vm.type1.disks]]\npath = {disk:?}\n"))
        .collect();
    let mut linux = Machine::linux_on(QEMU, 1, &more);
    assert_eq!(linux.shell("cat /sys/block/vd[abcd]/size"), "2048\n4096\n6144\n8192");
    linux.type_line("exit");
    let run = linux.wait();
    assert_eq!(run.status, Some(0), "{run:#?}");
}

/// The emulated machine has a CPU for each, beside the one that runs no guest. Where this machine
/// has one CPU only, they share that.
#[test]
fn linux_has_two_processors() {
    let mut linux = Machine::linux_on(QEMU, 2, "");
    assert_eq!(linux.shell("nproc"), "2");
    let sum = "for i in 1 2 3 4 5 6; do seq 1 2000 | sha256sum; done | sort -u | wc -l";
    let both = format!("taskset 1 sh -c '{sum}' > /tmp/0 & taskset 2 sh -c '{sum}' > /tmp/1; wait");
    linux.shell(&both);
    assert_eq!(linux.shell("cat /tmp/0 /tmp/1"), "1\n1");
    assert_eq!(linux.shell("dmesg | grep -cE 'WARNING:|Call Trace|BUG:|Oops'"), "0");
    linux.type_line("exit");
    let run = linux.wait();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(!run.stdout.contains("hv> "), "the image asks for commands: {run:#?}");
}

/// In this machine's numbers.
#[test]
fn a_cpu_that_is_not_there_is_refused() {
    let scratch = Scratch::new();
    let run = test_kernel::pinned(QEMU, &scratch, &[1023], "do=spin");
    run.spawn()
        .finish_within(LIMIT)
        .assert_ends(1, "test: `cpus` names CPU 1023, which is not there");
}

#[test]
fn a_unikernels_words_and_status_come_back() {
    let hello = system_tests::unikernel("hello");
    let run = on_image(&hello).args(["Hello_Solo5"]).spawn().finish_within(LIMIT);
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(run.stdout.contains("Hello"), "{run:#?}");
    let hostile = system_tests::unikernel("hostile");
    let run = on_image(&hostile).args(["hypercall-9"]).spawn().finish_within(LIMIT);
    run.assert_ends(1, "Invalid guest port access: port=0x509");
}

/// A reader that pauses gets every line all the same.
#[test]
fn a_slow_reader_loses_no_line() {
    let clock = system_tests::unikernel("clock");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut running = on_image(&clock)
        .args(["bench", "puts", "4000"])
        .prepare(|command| {
            command.stdout(writer);
        })
        .spawn_without_output();
    // The pipe is full long before, and then the machine's serial port.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) && running.ended().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(running.finish_within(LIMIT).status, Some(0));
    assert!(all.contains("SUCCESS"));
    // Each of them is 64 dots.
    assert_eq!(all.lines().map(|line| line.matches('.').count()).max(), Some(4000 * 64));
}

/// The image's command line is made of words.
#[test]
fn a_name_may_have_blanks() {
    let scratch = Scratch::new();
    let hello = system_tests::unikernel("hello");
    let text = format!("[vm]\nname = \"my vm\"\nmemory = \"64M\"\nimage = {hello:?}\n");
    let file = scratch.file("a name.toml", text.as_bytes());
    let manager = system_tests::environment::manager().unwrap();
    let run = Tender::bare().program(&manager).options(["run", "--backend=qemu"]).option(file);
    let run = run.spawn().finish_within(LIMIT);
    assert!(run.status == Some(0) && run.stdout.contains("Hello"), "{run:#?}");
}

#[test]
fn a_signal_ends_the_machine() {
    let scratch = Scratch::new();
    let mut machine = test_kernel::machine_on(QEMU, &scratch, "do=spin").spawn();
    machine.expect_times("spin", 1, LIMIT);
    machine.signal(libc::SIGTERM);
    let group = machine.pid();
    machine.finish_within(LIMIT).assert_ends(1, "Exiting on signal 15");
    assert!(system_tests::processes::alive_in_group(group).is_empty(), "QEMU is still there");
}

/// A QEMU that does not listen is killed after a while.
#[test]
fn a_signal_ends_a_qemu_that_ignores_it() {
    let scratch = Scratch::new();
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && exec echo version 10.0\n\
                  trap '' TERM\necho started\nwhile :; do sleep 0.1; done\n";
    let program = scratch.file("qemu-system-x86_64", script.as_bytes());
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, all).unwrap();
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let machine = test_kernel::machine_on(QEMU, &scratch, "do=spin");
    let find = move |command: &mut std::process::Command| {
        command.env("PATH", path);
    };
    let mut machine = machine.prepare(find).spawn();
    machine.expect("started");
    machine.signal(libc::SIGTERM);
    machine.finish_within(LIMIT).assert_ends(1, "Exiting on signal 15");
}

/// QEMU reads such names as protocols unless it is told that they are files.
#[test]
fn a_disk_may_be_called_anything_and_never_grows() {
    let folder = Scratch::new();
    let names = ["vm:root.img", "nbd:x", "json:{},y"];
    let disks = names.map(|name| folder.file(name, &[b'-'; 1300]));
    let more: String =
        disks.iter().map(|disk| format!("[[vm.type1.disks]]\npath = {disk:?}\n")).collect();
    let mut linux = Machine::linux_on(QEMU, 1, &more);
    assert_eq!(linux.shell("cat /sys/block/vd[abc]/size"), "2\n2\n2");
    linux.shell("for disk in a b c; do cat /dev/zero > /dev/vd$disk; done; sync");
    linux.type_line("exit");
    let run = linux.wait();
    assert_eq!(run.status, Some(0), "{run:#?}");
    let told = "the last 276 bytes are no whole sector; the guest has no access";
    assert_eq!(run.stderr.matches(told).count(), 3, "{run:#?}");
    for disk in disks {
        assert_eq!(fs::read(disk).unwrap(), [[0; 1024].as_slice(), &[b'-'; 276]].concat());
    }
}

/// The emulated processor does not scale TSCs.
#[test]
fn a_tsc_that_cannot_be_had_is_refused_with_the_one_that_can() {
    let scratch = Scratch::new();
    let machine = test_kernel::tuned_on(QEMU, &scratch, "tsc_khz = 100000", "do=cpuid");
    let run = machine.spawn().finish_within(LIMIT);
    let begin = "`tsc_khz` of 100000 cannot be had: the host's TSC runs at ";
    let (_, rest) = run.stdout.split_once(begin).unwrap_or_else(|| panic!("{run:#?}"));
    let host = rest.split(' ').next().unwrap_or_default();
    assert!(host.parse::<u32>().is_ok_and(|khz| khz > 100_000), "{run:#?}");
    let remedy = format!("for guests: write tsc_khz = {host}, or leave the key out");
    assert!(rest.contains(&remedy) && run.status == Some(1), "{run:#?}");
}

#[test]
fn the_keys_leave_and_the_terminal_is_as_before() {
    let scratch = Scratch::new();
    let mut terminal = Pseudoterminal::open().unwrap();
    let modes = terminal.modes().unwrap();
    let machine = test_kernel::machine_on(QEMU, &scratch, "do=spin");
    let machine = machine.at(&terminal).spawn_without_output();
    let printed = Stream::read(terminal.person.try_clone().unwrap());
    wait_for(&printed, "spin");
    assert_ne!(terminal.modes().unwrap(), modes, "the terminal is not raw");
    terminal.person.write_all(b"\x01x").unwrap();
    assert_eq!(machine.finish_within(LIMIT).status, Some(0), "{}", printed.now());
    assert_eq!(terminal.modes().unwrap(), modes);
}

fn on_image(kernel: &std::path::Path) -> Tender {
    Tender::bare().options([format!("--backend={QEMU}")]).mem(64).kernel(kernel)
}

fn wait_for(printed: &Stream, text: &str) {
    let start = Instant::now();
    while !printed.wait_for(text).contains(text) {
        assert!(start.elapsed() < LIMIT, "no `{text}' in {}", printed.now());
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
