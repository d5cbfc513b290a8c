//! Whole PCs: memory with a hole, several vCPUs, interrupts, unknown registers, ends of runs.

#![cfg(target_arch = "x86_64")]

mod guest;

use backend_conformance::code;
use backend_conformance::guest::{DATA, TEXT, out, state, unused};
use backend_kvm::pc::{KvmPcVcpu, KvmPcVm, KvmPcs, kick_signal};
use guest::{answer, kvm, next};
use hypervisor::device::MsiMessage;
use hypervisor::memory::{Gpa, Perms};
use hypervisor::vcpu::machine::{Event, MachineBackend, MachineSpec, MachineVcpu, MachineVm};
use hypervisor::vcpu::{BackendVcpu, BackendVm, VcpuState, VmEntry, VmExit};

/// RAM around a hole of 2 MiB.
const RAM: [std::ops::Range<u64>; 2] = [0..0x20_0000, 0x40_0000..0x60_0000];
const ROM: u64 = 0x50_0000;
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const IDT: u64 = 0x5000;
/// Where another vCPU starts, in real mode.
const AP_TEXT: u64 = 0x8000;
const HANDLER: u64 = 0x10_8000;
/// Vectors that [`HANDLER`] serves.
const VECTORS: [u64; 3] = [2, 0x31, 0x40];

struct Pc {
    vm: KvmPcVm,
    pcs: KvmPcs,
}

impl Pc {
    fn new(test: &str, vcpus: u32, code: &[u8]) -> Option<Self> {
        let pcs = KvmPcs::new(kvm(test)?).unwrap();
        let mut vm = pcs.create_machine(&MachineSpec { ram: &RAM, vcpus, tsc_khz: None }).unwrap();
        let memory = vm.memory();
        memory.write_obj(Gpa(GDT), &[0u64, 0xaf_9b00_0000_ffff, 0xcf_9300_0000_ffff]).unwrap();
        memory.write_obj(Gpa(PML4), &0x3003u64).unwrap();
        memory.write_obj(Gpa(0x3000), &0x4003u64).unwrap();
        for page in 0..4u64 {
            memory.write_obj(Gpa(0x4000 + 8 * page), &(page << 21 | 0x83)).unwrap();
        }
        for vector in VECTORS {
            let gate = [HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48, 0];
            memory.write_obj(Gpa(IDT + 16 * vector), &gate).unwrap();
        }
        memory.write_bytes(Gpa(TEXT), code).unwrap();
        memory.write_bytes(Gpa(HANDLER), handler()).unwrap();
        memory.write_bytes(Gpa(ROM), &[0x77; 8]).unwrap();
        vm.protect(ROM..ROM + 0x1000, Perms::READ | Perms::EXEC).unwrap();
        Some(Self { vm, pcs })
    }

    fn vcpu(&self, index: u32) -> KvmPcVcpu {
        let mut cpuid = self.pcs.supported_cpuid().unwrap();
        for row in cpuid.iter_mut().filter(|row| row.leaf == 1) {
            row.registers[1] = row.registers[1] & 0xff_ffff | index << 24;
        }
        self.vm.create_machine_vcpu(index, &cpuid, start(), unused()).unwrap()
    }

    fn msi(&self, vector: u32) {
        let level_assert = 1 << 15 | 1 << 14;
        let message = MsiMessage { device: 0, address: 0xfee0_0000, data: vector | level_assert };
        self.vm.local_controllers().unwrap().msi(message);
    }
}

fn start() -> VcpuState {
    let mut state = state();
    state.gdt = (GDT, 23);
    state.idt = (IDT, 0xfff);
    VcpuState::X86(state)
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

// Tells that it was called, and ends the interrupt at an x2APIC.
code!(handler:
    "push rax", "push rcx", "push rdx",
    "mov edx, 0x600", "out dx, al",
    "mov byte ptr [rdi], 1",
    "mov ecx, 0x80b", "xor eax, eax", "xor edx, edx", "wrmsr",
    "pop rdx", "pop rcx", "pop rax",
    "iretq",
);

code!(touches:
    "mov eax, 1",
    "mov dword ptr [0x400010], eax",
    "mov eax, dword ptr [0x500000]",
    "mov edx, 0x500",
    "out dx, eax",
    "mov dword ptr [0x500004], eax",
    "mov dword ptr [0x200010], eax",
    "mov eax, dword ptr [0x500004]",
    "out dx, eax",
);

#[test]
fn memory_has_holes_and_read_only_pages() {
    let Some(pc) = Pc::new("memory_has_holes_and_read_only_pages", 1, touches()) else { return };
    let mut vcpu = pc.vcpu(0);
    let write = |gpa| VmExit::Mmio { gpa: Gpa(gpa), size: 4, write: Some(0x7777_7777) };
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0x7777_7777));
    assert_eq!(next(&mut vcpu), write(ROM + 4));
    assert_eq!(next(&mut vcpu), write(0x20_0010));
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0x7777_7777));
    assert_eq!(pc.vm.memory().read_obj::<u32>(Gpa(0x40_0010)), Ok(1));
    assert!(pc.vm.memory().write_bytes(Gpa(ROM), &[0]).is_err());
}

code!(asks_registers:
    "mov ecx, 0x12345",
    "rdmsr",
    "mov ebx, edx",
    "mov edx, 0x500",
    "out dx, eax",
    "mov eax, ebx",
    "out dx, eax",
    "mov edx, 7",
    "mov eax, 8",
    "wrmsr",
    "wrmsr",
);

#[test]
fn unknown_registers_are_the_modes() {
    let Some(pc) = Pc::new("unknown_registers_are_the_modes", 1, asks_registers()) else { return };
    let mut vcpu = pc.vcpu(0);
    assert_eq!(next(&mut vcpu), VmExit::ReadMsr { index: 0x12345 });
    let value = VmEntry::Data(0x1111_2222_3333_4444);
    assert_eq!(answer(&mut vcpu, value), out(0x500, 4, 0x3333_4444));
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0x1111_2222));
    let write = VmExit::WriteMsr { index: 0x12345, value: 0x7_0000_0008 };
    assert_eq!(next(&mut vcpu), write);
    assert_eq!(next(&mut vcpu), write);
    // A general protection fault, for which there is no gate.
    assert!(matches!(answer(&mut vcpu, VmEntry::Refuse), VmExit::Shutdown { .. }));
}

// Turns the x2APIC on; software-enables it.
macro_rules! x2apic {
    ($name:ident: $($line:literal),+ $(,)?) => {
        code!($name:
            "mov ecx, 0x1b", "rdmsr", "or eax, 0xc00", "wrmsr",
            "mov ecx, 0x80f", "mov eax, 0x1ff", "xor edx, edx", "wrmsr",
            $($line,)+
        );
    };
}

x2apic!(starts_another:
    "mov ecx, 0x830", "mov edx, 1", "mov eax, 0x4500", "wrmsr",
    "mov eax, 0x4608", "wrmsr",
    "mov edx, 0x500", "out dx, al",
    "2: hlt", "jmp 2b",
);
// In 16-bit mode: MOV AL, 0x5a; OUT 0x99, AL; HLT.
const AP: [u8; 5] = [0xb0, 0x5a, 0xe6, 0x99, 0xf4];

#[test]
fn a_second_vcpu_starts_by_message_and_halts_in_the_kernel() {
    let name = "a_second_vcpu_starts_by_message_and_halts_in_the_kernel";
    let Some(pc) = Pc::new(name, 2, starts_another()) else { return };
    pc.vm.memory().write_bytes(Gpa(AP_TEXT), &AP).unwrap();
    let mut first = pc.vcpu(0);
    let mut second = pc.vcpu(1);
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: asks for this thread's own number.
        tell.send(unsafe { libc::gettid() }).unwrap();
        assert_eq!(next(&mut second), VmExit::Io { port: 0x99, size: 1, write: Some(0x5a) });
        tell.send(0).unwrap();
        assert_eq!(second.run(VmEntry::Continue), Ok(VmExit::Interrupted));
    });
    let id = told.recv().unwrap();
    assert_eq!(next(&mut first), out(0x500, 1, 0x08));
    told.recv().unwrap();
    // SAFETY: the thread ends only by this.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, kick_signal()) };
    thread.join().unwrap();
    assert!(pc.vm.create_machine_vcpu(1, &[], start(), unused()).is_err());
    assert!(pc.vm.create_machine_vcpu(2, &[], start(), unused()).is_err());
}

// Not with HLT: QEMU's emulated SVM lets an interrupt in between STI and HLT.
x2apic!(waits:
    "mov edx, 0x500", "out dx, al", "sti",
    "2: cmp byte ptr [rdi], 0", "je 2b",
    "mov byte ptr [rdi], 0", "out dx, al", "jmp 2b",
);

#[test]
fn a_message_arrives_and_its_end_is_told_where_it_is_watched() {
    let name = "a_message_arrives_and_its_end_is_told_where_it_is_watched";
    let Some(pc) = Pc::new(name, 1, waits()) else { return };
    let mut vcpu = pc.vcpu(0);
    assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x500, .. }), "the APIC is on");
    let local = pc.vm.local_controllers().unwrap();
    for watched in [0, 1 << 0x31, 1 << 0x31, 0] {
        local.watch_ends([watched, 0, 0, 0]);
        pc.msi(0x31);
        assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x600, .. }));
        if watched != 0 {
            assert_eq!(next(&mut vcpu), VmExit::EndOfInterrupt { vector: 0x31 });
        }
        assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x500, .. }));
    }
}

code!(spins: "mov edx, 0x500", "out dx, al", "sti", "nop", "2: jmp 2b");

#[test]
fn an_external_interrupt_goes_in_when_the_guest_can_take_it() {
    let name = "an_external_interrupt_goes_in_when_the_guest_can_take_it";
    let Some(pc) = Pc::new(name, 1, spins()) else { return };
    let mut vcpu = pc.vcpu(0);
    assert_eq!(next(&mut vcpu), out(0x500, 1, 0));
    assert!(!vcpu.interruptible());
    // Its owner learns of it by an interruption.
    pc.vm.local_controllers().unwrap().set_external(true);
    assert_eq!(vcpu.run(VmEntry::Continue), Ok(VmExit::Interrupted));
    vcpu.request_window(true);
    assert_eq!(next(&mut vcpu), VmExit::InterruptWindow);
    assert!(vcpu.interruptible());
    vcpu.inject(Event::Interrupt { vector: 0x40 });
    assert!(!vcpu.interruptible());
    assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x600, .. }));
}

#[test]
fn a_non_maskable_interrupt_needs_no_permission() {
    let Some(pc) = Pc::new("a_non_maskable_interrupt_needs_no_permission", 1, spins()) else {
        return;
    };
    let mut vcpu = pc.vcpu(0);
    assert_eq!(next(&mut vcpu), out(0x500, 1, 0));
    vcpu.inject(Event::Nmi);
    assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x600, .. }));
}

code!(shows_the_cycles:
    "rdtsc", "shl rdx, 32", "or rax, rdx", "mov [rdi], rax",
    "movd ecx, xmm0", "mov [rdi + 8], ecx",
    "mov edx, 0x500", "out dx, al",
    "mov ecx, 0xc0000082", "rdmsr", "mov [rdi + 12], eax",
    "mov eax, 0x1000", "movd xmm0, eax", "xor edx, edx", "wrmsr",
    "2: jmp 2b",
);

#[test]
fn a_reset_begins_again_and_deadlines_end_runs() {
    let name = "a_reset_begins_again_and_deadlines_end_runs";
    let Some(pc) = Pc::new(name, 1, shows_the_cycles()) else { return };
    let mut vcpu = pc.vcpu(0);
    let told = |at| pc.vm.memory().read_obj::<u64>(Gpa(DATA + at)).unwrap();
    let mut before = vcpu.cycles();
    for _ in 0..2 {
        assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x500, .. }));
        let (cycles, after) = (told(0), vcpu.cycles());
        assert!((before..after).contains(&cycles), "{before} {cycles} {after}");
        before = after;
        assert_eq!(told(8), 0, "no register keeps what the guest wrote");
        let deadline = now() + 30_000_000;
        vcpu.set_deadline(Some(deadline));
        assert_eq!(vcpu.run(VmEntry::Continue), Ok(VmExit::Interrupted));
        assert!(now() >= deadline);
        vcpu.set_deadline(None);
        vcpu.reset(&start()).unwrap();
    }
    assert!(matches!(next(&mut vcpu), VmExit::Io { port: 0x500, .. }));
    // One that has passed ends the next run at once.
    vcpu.set_deadline(Some(1));
    assert_eq!(vcpu.run(VmEntry::Continue), Ok(VmExit::Interrupted));
}
