//! `--help` and `--version`.

use crate::tell;
use hypervisor::modes::hvt::solo5_abi::ABI_VERSIONS;

/// The tender's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `--help` says.
pub fn help() -> String {
    format!(
        "usage: {} [ CORE OPTIONS ] [ MODULE OPTIONS ] [ -- ] KERNEL [ ARGS ]
Runs a Solo5 unikernel (hvt ABI version {} or {}).
KERNEL is the filename of the unikernel to run.
ARGS are optional arguments passed to the unikernel.
Core options:
  [ --mem=512 ] (guest memory in MB; or with a unit: 64M, 2G; at most 4G)
    --backend=auto|kvm|sandbox|qemu (how its vCPU runs; auto: KVM where it runs
        at hardware speed, else a sandboxed process that needs no KVM and no
        root; qemu: our bare-metal image in an emulated processor, by redox-vm)
    -v (say which backend is used and why, and how the tender confines itself)
    --stats=FILE|- (write counters as JSON when the guest ends, and on SIGUSR1)
    --console-gone=end|continue (where the reader of standard output has gone:
        end the guest, or drop what it prints; continue if SIGPIPE is ignored)
    --help (display this help)
    --version (display version information)
Compiled-in modules: core net block gdb dumpcore
Compiled-in module options:
    --net:NAME=IFACE | @NN (attach tap at IFACE or at fd @NN as network NAME)
    --net:NAME=user[,tcp=HOST:GUEST][,udp=HOST:GUEST] (network NAME without
        root: DHCP, outgoing TCP and UDP, and forwarded ports, through passt)
  [ --net-mac:NAME=HWADDR ] (set HWADDR for network NAME)
  [ --no-net-ring ] (do not offer network ring I/O; --net-ring offers it always)
    --block:NAME=PATH (attach block device/file at PATH as block storage NAME)
  [ --block-sector-size:NAME=SECTORSIZE ] (set sector size for block device
        NAME; must be a power of two from 512 to 32768; 512 if not set)
    --dumpcore=DIR (enable guest core dump on abort/trap)
    --gdb (wait for a gdb debug session before the guest's first instruction)
  [ --gdb-port=1234 ] (port to use, on 127.0.0.1; 0: any that is free)
    --gdb=PATH (the same at a unix socket, to which only this user can connect)
Example:
    redox-hvt --mem=64M --block:storage=disk.img --net:service0=user,tcp=8080:80 \\
        app.hvt --hello=world
Exit status: the guest's; 255 after its abort; 1 if it was ended from outside or
could not be run.
",
        tell::program(),
        ABI_VERSIONS.start(),
        ABI_VERSIONS.end(),
    )
}

/// Where the options are told, for one who has got them wrong.
pub fn hint() -> String {
    format!("`{} --help' lists the options", tell::program())
}

/// What `--version` says. Other programs read the lines after the first: Albatross looks for one with
/// the version of its image, and solo5-hvt has one line, with the newest.
pub fn version() -> String {
    let mut text = format!("{} tender, version {VERSION}\n", tell::program());
    for abi in ABI_VERSIONS.rev() {
        text.push_str(&format!("ABI version {abi}\n"));
    }
    text
}
