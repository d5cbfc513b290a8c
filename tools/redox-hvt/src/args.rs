//! The command line: solo5-hvt's options and syntax, and what this tender adds.
//!
//! Options come first, then the unikernel, then its arguments, which are not looked at. `--` ends
//! the options. Parsing touches nothing: it turns words into [`Options`].

use host_linux::gdb::Place;
use hypervisor::config::nearest;
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// Default of `--mem`, in bytes.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// Default of `--gdb-port`.
pub const DEFAULT_GDB_PORT: u16 = 1234;
/// Longest device name (`MFT_NAME_MAX`).
const NAME_MAX: usize = 67;

/// Which backend the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// KVM where it really works, else the sandbox.
    Auto,
    /// KVM or an error.
    Kvm,
    /// The sandbox.
    Sandbox,
    /// The bare-metal image in QEMU, by `redox-vm`.
    Qemu,
}

/// What becomes of a guest whose console cannot be written to, because its reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleGone {
    /// It ends, as under solo5-hvt.
    End,
    /// It goes on, and what it prints is dropped, as under solo5-spt where SIGPIPE is ignored.
    Continue,
}

/// An option that concerns a device, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceOption {
    /// `--net:NAME=SPEC`
    Net(String, String),
    /// `--net-mac:NAME=MAC`
    NetMac(String, [u8; 6]),
    /// `--block:NAME=PATH`
    Block(String, OsString),
    /// `--block-sector-size:NAME=BYTES`
    BlockSectorSize(String, u16),
}

/// Everything that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Guest memory in bytes.
    pub memory: u64,
    /// Devices.
    pub devices: Vec<DeviceOption>,
    /// Backend.
    pub backend: BackendChoice,
    /// `None`: as the backend likes it; else whether the network ring is offered.
    pub net_ring: Option<bool>,
    /// Wait for a debugger here.
    pub gdb: Option<Place>,
    /// `None`: as the parent's SIGPIPE says.
    pub console_gone: Option<ConsoleGone>,
    /// Directory for a core file when the guest aborts.
    pub dumpcore: Option<OsString>,
    /// File for counters; `-` is standard output.
    pub stats: Option<OsString>,
    /// Files that have been read on the way here, such as a VM's description.
    pub read: Vec<OsString>,
    /// Say what is chosen and why.
    pub verbose: bool,
    /// The unikernel.
    pub kernel: OsString,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
}

impl Options {
    /// The files that the run reads or lends its guest, which nothing may be written over.
    pub fn files(&self) -> impl Iterator<Item = &OsString> {
        let disks = self.devices.iter().filter_map(|device| match device {
            DeviceOption::Block(_, path) => Some(path),
            _ => None,
        });
        self.read.iter().chain([&self.kernel]).chain(disks)
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run a unikernel.
    Run(Box<Options>),
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// A command line that cannot be followed; the words are for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub text: String,
    /// Whether the usage should follow.
    pub usage: bool,
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { text: text.into(), usage: false })
}

fn misuse<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { text: text.into(), usage: true })
}

fn malformed<T>(option: &str, value: &[u8], instead: &str) -> Result<T, Refused> {
    refuse(format!("Malformed argument to {option}: `{}': {instead}", shown(value)))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Options as far as `=` or `:`.
const NAMES: [&str; 15] = [
    "--mem",
    "--backend",
    "--console-gone",
    "--dumpcore",
    "--stats",
    "--net",
    "--net-mac",
    "--block",
    "--block-sector-size",
    "--gdb",
    "--gdb-port",
    "--no-net-ring",
    "--net-ring",
    "--help",
    "--version",
];

/// The option that a word may be a slip of, or was not given what it needs.
fn meant(word: &[u8]) -> String {
    let word = shown(word);
    let name = word.split(['=', ':']).next().unwrap_or_default();
    match nearest(name, NAMES) {
        Some(near) if near != name => format!(": did you mean {near}?"),
        _ => String::new(),
    }
}

/// Parses everything after the program's name.
///
/// # Errors
/// [`Refused`].
pub fn parse(words: &[&CStr]) -> Result<Command, Refused> {
    let mut options = Options {
        memory: DEFAULT_MEMORY,
        devices: Vec::new(),
        backend: BackendChoice::Auto,
        net_ring: None,
        gdb: None,
        console_gone: None,
        dumpcore: None,
        stats: None,
        read: Vec::new(),
        verbose: false,
        kernel: OsString::new(),
        arguments: Vec::new(),
    };
    let (mut gdb, mut gdb_path) = (false, None);
    let mut gdb_port = DEFAULT_GDB_PORT;
    let mut rest = words.iter().map(|word| word.to_bytes());
    let kernel = loop {
        let Some(word) = rest.next() else { return misuse("Missing KERNEL operand") };
        match word {
            b"--" => break rest.next(),
            b"--help" | b"-h" => return Ok(Command::Help),
            b"--version" => return Ok(Command::Version),
            b"--gdb" => gdb = true,
            b"--no-net-ring" => options.net_ring = Some(false),
            b"--net-ring" => options.net_ring = Some(true),
            b"-v" | b"--verbose" => options.verbose = true,
            _ if !word.starts_with(b"-") => break Some(word),
            _ => {
                if let Some(value) = word.strip_prefix(b"--gdb=") {
                    if value.is_empty() {
                        return malformed("--gdb", value, "write --gdb, or --gdb=PATH of a socket");
                    }
                    gdb_path = Some(OsString::from_vec(value.to_vec()));
                } else if let Some(value) = word.strip_prefix(b"--gdb-port=") {
                    gdb_port = number(value).ok_or(()).or_else(|()| {
                        malformed("--gdb-port", value, "write 0 to 65535; 0 is any that is free")
                    })?;
                } else {
                    valued(word, &mut options)?;
                }
            }
        }
    };
    let Some(kernel) = kernel else { return misuse("Missing KERNEL operand") };
    options.kernel = OsString::from_vec(kernel.to_vec());
    options.arguments = rest.map(<[u8]>::to_vec).collect();
    let port = gdb.then_some(Place::Port(gdb_port));
    options.gdb = gdb_path.map(Place::Path).or(port);
    Ok(Command::Run(Box::new(options)))
}

/// `--KEY=VALUE` and `--KEY:NAME=VALUE`.
fn valued(word: &[u8], options: &mut Options) -> Result<(), Refused> {
    let invalid = || misuse(format!("Invalid option: `{}'{}", shown(word), meant(word)));
    let Some(equals) = word.iter().position(|&b| b == b'=') else { return invalid() };
    let (key, value) = (&word[..equals], &word[equals + 1..]);
    let text = || String::from_utf8_lossy(value).into_owned();
    match key {
        b"--mem" => options.memory = memory(value)?,
        b"--backend" => options.backend = backend(&text())?,
        b"--console-gone" => options.console_gone = Some(console_gone(&text())?),
        b"--dumpcore" => options.dumpcore = Some(OsString::from_vec(value.to_vec())),
        b"--stats" => options.stats = Some(OsString::from_vec(value.to_vec())),
        _ => {
            let Some(colon) = key.iter().position(|&b| b == b':') else { return invalid() };
            let Some(name) = device_name(&key[colon + 1..]) else { return invalid() };
            if value.is_empty() {
                return invalid();
            }
            let option = match &key[..colon] {
                b"--net" => DeviceOption::Net(name, text()),
                b"--net-mac" => match mac(value) {
                    Some(mac) => DeviceOption::NetMac(name, mac),
                    None => return invalid(),
                },
                b"--block" => DeviceOption::Block(name, OsString::from_vec(value.to_vec())),
                b"--block-sector-size" => DeviceOption::BlockSectorSize(name, sector(value)?),
                _ => return invalid(),
            };
            options.devices.push(option);
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Mebibytes, as solo5-hvt has it, or a number with a unit: `64M`, `2G`.
fn memory(value: &[u8]) -> Result<u64, Refused> {
    let (digits, shift) = match value {
        [digits @ .., b'K' | b'k'] => (digits, 10),
        [digits @ .., b'M' | b'm'] => (digits, 20),
        [digits @ .., b'G' | b'g'] => (digits, 30),
        digits => (digits, 20),
    };
    match number::<u64>(digits).filter(|&n| n > 0 && n <= u64::MAX >> shift) {
        Some(n) => Ok(n << shift),
        None => malformed(
            "--mem",
            value,
            "write a number of MiB, or one with K, M or G, up to 4G, such as --mem=64",
        ),
    }
}

fn backend(value: &str) -> Result<BackendChoice, Refused> {
    match value {
        "auto" => Ok(BackendChoice::Auto),
        "kvm" => Ok(BackendChoice::Kvm),
        "sandbox" => Ok(BackendChoice::Sandbox),
        "qemu" => Ok(BackendChoice::Qemu),
        _ => refuse(format!("Unknown backend `{value}': use auto, kvm, sandbox or qemu")),
    }
}

fn console_gone(value: &str) -> Result<ConsoleGone, Refused> {
    match value {
        "end" => Ok(ConsoleGone::End),
        "continue" => Ok(ConsoleGone::Continue),
        _ => malformed("--console-gone", value.as_bytes(), "write end or continue"),
    }
}

fn device_name(name: &[u8]) -> Option<String> {
    let valid = (1..=NAME_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_alphanumeric);
    valid.then(|| String::from_utf8_lossy(name).into_owned())
}

fn mac(value: &[u8]) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = std::str::from_utf8(value).ok()?.split(':');
    for byte in &mut mac {
        let hex = |p: &&str| matches!(p.len(), 1 | 2) && p.bytes().all(|b| b.is_ascii_hexdigit());
        let part = parts.next().filter(hex)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn sector(value: &[u8]) -> Result<u16, Refused> {
    match number::<u16>(value).filter(|&n| n >= 512 && n.is_power_of_two()) {
        Some(bytes) => Ok(bytes),
        None => misuse(format!(
            "Block size must be a multiple of 2 greater than or equal 512 (not {}): write a power \
             of two from 512 to 32768",
            shown(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn parsed(line: &str) -> Result<Command, Refused> {
        let words: Vec<CString> = line.split(' ').map(|w| CString::new(w).unwrap()).collect();
        parse(&words.iter().map(CString::as_c_str).collect::<Vec<_>>())
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Command::Run(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_end_at_the_kernel_or_at_two_dashes() {
        let run = options("--mem=64 k.hvt --mem=1 --help");
        assert_eq!((run.memory, run.kernel.to_str()), (64 << 20, Some("k.hvt")));
        assert_eq!(run.arguments, [b"--mem=1".to_vec(), b"--help".to_vec()]);
        assert_eq!(options("-- -k").kernel.to_str(), Some("-k"));
        assert!(parsed("--mem=64 --").unwrap_err().usage);
        assert_eq!(parsed("--bad --help"), parsed("--bad"));
    }

    #[test]
    fn devices_keep_their_order() {
        let run = options("--block:s=/x=y --net:n=@3 --net-mac:n=02:0:aB:00:00:01 k");
        assert_eq!(
            run.devices,
            [
                DeviceOption::Block("s".into(), "/x=y".into()),
                DeviceOption::Net("n".into(), "@3".into()),
                DeviceOption::NetMac("n".into(), [2, 0, 0xab, 0, 0, 1]),
            ]
        );
    }

    #[test]
    fn a_slip_is_told_what_it_may_mean() {
        let text = |line: &str| parsed(line).unwrap_err().text;
        assert_eq!(text("--memm=3 k"), "Invalid option: `--memm=3': did you mean --mem?");
        assert_eq!(text("--blok:s=x k"), "Invalid option: `--blok:s=x': did you mean --block?");
        assert_eq!(text("--net:n= k"), "Invalid option: `--net:n='");
        assert_eq!(text("-x k"), "Invalid option: `-x'");
    }

    #[test]
    fn bad_values_are_refused() {
        for line in [
            "--mem=0 k",
            "--mem=-1 k",
            "--mem=x k",
            "--mem= k",
            "--mem=99999999999999999999 k",
            "--net:=x k",
            "--net:a-b=x k",
            "--net:n= k",
            "--net k",
            "--net-mac:n=1:2:3:4:5 k",
            "--net-mac:n=1:2:3:4:5:6:7 k",
            "--net-mac:n=1:2:3:4:5:+6 k",
            "--backend=xen k",
            "--block-sector-size:s=521 k",
            "--block-sector-size:s=256 k",
            "--gdb-port=99999 k",
            "--gdb= k",
            "--console-gone=x k",
            "--what k",
            "--what=1 k",
            "--what:n=1 k",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_debugger_calls_at_a_port_or_a_path() {
        assert_eq!(options("k").gdb, None);
        assert_eq!(options("--gdb k").gdb, Some(Place::Port(DEFAULT_GDB_PORT)));
        assert_eq!(options("--gdb --gdb-port=0 k").gdb, Some(Place::Port(0)));
        assert_eq!(options("--gdb=a/b k").gdb, Some(Place::Path("a/b".into())));
    }

    #[test]
    fn memory_has_units() {
        assert_eq!(options("--mem=2 k").memory, 2 << 20);
        assert_eq!(options("--mem=64M k").memory, 64 << 20);
        assert_eq!(options("--mem=2G k").memory, 2 << 30);
        assert_eq!(options("--mem=2048K k").memory, 2 << 20);
    }
}
