//! What only a hypervisor may do, and what one may be asked.

use super::Numbers;
use crate::cpu::probe;
use crate::println;
use crate::pvh::Boot;
use crate::traps::{self, Faulted};

/// Every number that anybody's hypervisor has, with garbage for arguments, by both instructions.
pub fn hypercalls(_: &Boot) {
    let mut numbers = Numbers::new(3);
    let (mut faults, mut answered) = (0u32, 0u32);
    for number in (0..300u64).chain([0x8000_0000, 0x4000_0000, u64::MAX]) {
        for argument in [0, numbers.next(), u64::MAX] {
            match [vmmcall(number, argument), vmcall(number, argument)] {
                [Err(_), Err(_)] => faults += 1,
                [Ok(value), _] | [_, Ok(value)] if (value.cast_signed()) >= 0 => answered += 1,
                _ => {}
            }
        }
    }
    println!("{faults} faults, {answered} answered");
}

/// KVM takes its first argument in RBX, and some of its calls write where that points: the
/// compiler's value must not be there.
fn vmmcall(number: u64, argument: u64) -> Result<u64, Faulted> {
    let value;
    probe!("xchg rbx, {first}\n.byte 0x0f, 0x01, 0xd9", after "xchg rbx, {first}",
        first = inout(reg) argument => _,
        inout("rax") number => value, in("rcx") argument, in("rdx") argument, in("rsi") argument)?;
    Ok(value)
}

fn vmcall(number: u64, argument: u64) -> Result<u64, Faulted> {
    let value;
    probe!("xchg rbx, {first}\n.byte 0x0f, 0x01, 0xc1", after "xchg rbx, {first}",
        first = inout(reg) argument => _,
        inout("rax") number => value, in("rcx") argument, in("rdx") argument, in("rsi") argument)?;
    Ok(value)
}

/// The instructions of SVM and VMX themselves, and a few that hosts keep for themselves.
pub fn instructions(_: &Boot) {
    let at = 0x5000u64;
    let results = [
        ("vmrun", probe!(".byte 0x0f, 0x01, 0xd8", in("rax") at)),
        ("vmload", probe!(".byte 0x0f, 0x01, 0xda", in("rax") at)),
        ("vmsave", probe!(".byte 0x0f, 0x01, 0xdb", in("rax") at)),
        ("stgi", probe!(".byte 0x0f, 0x01, 0xdc")),
        ("clgi", probe!(".byte 0x0f, 0x01, 0xdd")),
        ("skinit", probe!(".byte 0x0f, 0x01, 0xde", in("eax") 0x5000)),
        ("invlpga", probe!(".byte 0x0f, 0x01, 0xdf", in("rax") at, in("ecx") 1)),
        ("vmxon", probe!("vmxon qword ptr [{at}]", at = in(reg) at)),
        ("vmptrld", probe!("vmptrld qword ptr [{at}]", at = in(reg) at)),
        ("vmlaunch", probe!("vmlaunch")),
        ("rsm", probe!(".byte 0x0f, 0xaa")),
        ("monitor", probe!(".byte 0x0f, 0x01, 0xc8", in("rax") at, in("ecx") 0, in("edx") 0)),
        ("mwait", probe!(".byte 0x0f, 0x01, 0xc9", in("eax") 0, in("ecx") 0)),
        ("wbinvd", probe!("wbinvd")),
        ("invd", probe!("invd")),
        ("rdpmc", probe!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _)),
    ];
    for (name, result) in results {
        println!("{name}: {result:?}");
    }
}
