//! String instructions between a device and RAM at the same place of another page: the decoy. What
//! the processor has translated is the operand that it has left the guest for, and no other.

use super::*;
use crate::x86_64::regs::Gprs;

const DEVICE: u64 = 0x20_0010;
const DECOY: u64 = 0x5010;

/// A guest at this instruction, with what it compares and moves.
fn at(code: &[u8], from: u64, to: u64) -> Rig {
    let mut rig = rig(Kind::Machine, code);
    (*rig.gpr(Gprs::RSI), *rig.gpr(Gprs::RDI)) = (from, to);
    *rig.gpr(Gprs::RAX) = 0x1111_1111;
    rig.vm.memory.write_obj(Gpa(DECOY), &0x2222_2222u32).unwrap();
    rig
}

impl Rig {
    fn decoy(&self) -> u32 {
        self.vm.memory.read_obj(Gpa(DECOY)).unwrap()
    }

    /// The device is read, and has this value; what comes of that.
    fn device_says(&mut self, value: u64) -> Option<VmExit> {
        let asked = VmExit::Mmio { gpa: Gpa(DEVICE), size: 4, write: None };
        assert_eq!(self.exit(device(DEVICE, Access::Read)), Some(asked));
        self.vcpu.settle(VmEntry::Data(value)).unwrap()
    }

    fn is_equal(&self) -> bool {
        self.vcpu.v.state.rflags & 1 << 6 != 0
    }
}

#[test]
fn movs_out_of_a_device_writes_ram() {
    let mut rig = at(&[0xa5], DEVICE, DECOY);
    assert_eq!(rig.device_says(7), None);
    assert_eq!((rig.decoy(), rig.vcpu.v.state.rip), (7, CODE + 1));
}

#[test]
fn movs_into_a_device_reads_ram() {
    let mut rig = at(&[0xa5], DECOY, DEVICE);
    let written = VmExit::Mmio { gpa: Gpa(DEVICE), size: 4, write: Some(0x2222_2222) };
    assert_eq!(rig.exit(device(DEVICE, Access::Write)), Some(written));
}

#[test]
fn movs_from_a_device_to_another_asks_one_and_writes_the_other() {
    let other = DEVICE + 0x1000;
    let mut rig = at(&[0xa5], DEVICE, other);
    let written = VmExit::Mmio { gpa: Gpa(other), size: 4, write: Some(7) };
    assert_eq!(rig.device_says(7), Some(written));
}

#[test]
fn movs_from_a_device_into_itself_asks_and_writes_it() {
    let mut rig = at(&[0xa5], DEVICE, DEVICE);
    let written = VmExit::Mmio { gpa: Gpa(DEVICE), size: 4, write: Some(7) };
    assert_eq!(rig.device_says(7), Some(written));
}

#[test]
fn cmps_compares_ram_with_a_device() {
    for (from, to) in [(DEVICE, DECOY), (DECOY, DEVICE)] {
        for (value, equal) in [(0x2222_2222, true), (7, false)] {
            let mut rig = at(&[0xa7], from, to);
            assert_eq!(rig.device_says(value), None, "{from:#x} {to:#x}");
            assert_eq!(rig.is_equal(), equal, "{from:#x} {to:#x}");
        }
    }
}

#[test]
fn scas_and_lods_read_the_device() {
    let mut scas = at(&[0xaf], DECOY, DEVICE);
    assert_eq!((scas.device_says(0x1111_1111), scas.is_equal()), (None, true));
    let mut lods = at(&[0xad], DEVICE, DECOY);
    assert_eq!((lods.device_says(7), *lods.gpr(Gprs::RAX)), (None, 7));
    assert_eq!(lods.decoy(), 0x2222_2222);
}

#[test]
fn stos_writes_the_device() {
    let mut rig = at(&[0xab], DECOY, DEVICE);
    let written = VmExit::Mmio { gpa: Gpa(DEVICE), size: 4, write: Some(0x1111_1111) };
    assert_eq!(rig.exit(device(DEVICE, Access::Write)), Some(written));
    assert_eq!(rig.decoy(), 0x2222_2222);
}

#[test]
fn ins_and_outs_use_ram() {
    let port = |input| Port { port: 0x60, size: 4, input, string: true, next: Some(CODE + 2) };
    // The second instruction, after STOS has accessed a device at the same place of its page.
    let after_stos = |code: u8| {
        let mut rig = at(&[0xab, code], DECOY, DEVICE);
        assert!(rig.exit(device(DEVICE, Access::Write)).is_some());
        (*rig.gpr(Gprs::RSI), *rig.gpr(Gprs::RDI)) = (DECOY, DECOY);
        rig
    };
    let mut ins = after_stos(0x6d);
    let asked = VmExit::Io { port: 0x60, size: 4, write: None };
    assert_eq!(ins.exit(Reason::Port(port(true))), Some(asked));
    assert_eq!(ins.vcpu.settle(VmEntry::Data(9)), Ok(None));
    assert_eq!(ins.decoy(), 9);
    let mut outs = after_stos(0x6f);
    let written = VmExit::Io { port: 0x60, size: 4, write: Some(0x2222_2222) };
    assert_eq!(outs.exit(Reason::Port(port(false))), Some(written));
}
