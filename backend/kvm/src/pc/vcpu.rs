//! A PC's vCPU: `KVM_RUN` in, [`VmExit`] out.
//!
//! An exit that asks is answered by the next [`VmEntry`]; without an answer a read gives 0 and a
//! model-specific register takes what is written. A run makes one system call.

use super::birth::Birth;
use super::deadline::Deadline;
use super::ioctl;
use super::kick::{self, Home, Running};
use crate::access::{self, Access, Told};
use crate::arch;
use crate::error::{errno, refused};
use crate::machine::Machine;
use crate::run_page::{self, Reason};
use hypervisor::memory::Gva;
use hypervisor::vcpu::machine::{Event, Exception, MachineVcpu};
use hypervisor::vcpu::{BackendError, BackendVcpu, VcpuState, VmEntry, VmExit};
use kvm_ioctls::VcpuFd;
use rustix::io::Errno;
use std::sync::Arc;

/// The time-stamp counter.
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;

/// A vCPU of a [`super::KvmPcVm`].
///
/// Drop order is the order of the fields: the timer, then the vCPU, then perhaps the machine.
pub struct KvmPcVcpu {
    deadline: Deadline,
    fd: VcpuFd,
    pending: Pending,
    /// A failure of a call that has no way to tell: the next run does.
    failed: Option<BackendError>,
    birth: Box<Birth>,
    home: Arc<Home>,
    /// The thread that ran it last, by [`kick::this_thread`].
    thread: usize,
    page_len: usize,
    /// As the last run left it.
    interruptible: bool,
    task_priority: u8,
    /// Held so that the guest's memory outlives the vCPU.
    _machine: Arc<Machine>,
}

/// What has to be answered before the guest may go on.
enum Pending {
    Nothing,
    Access(Access),
    /// An access to a model-specific register; its value if it is a write.
    Msr(Option<u64>),
}

impl KvmPcVcpu {
    pub(super) fn new(fd: VcpuFd, birth: Birth, home: Arc<Home>, machine: Arc<Machine>) -> Self {
        Self {
            deadline: Deadline::default(),
            fd,
            pending: Pending::Nothing,
            failed: None,
            birth: Box::new(birth),
            home,
            thread: 0,
            page_len: machine.vm().run_size(),
            interruptible: false,
            task_priority: 0,
            _machine: machine,
        }
    }

    /// Notes the thread that is about to run it, and sets the timer. `true` if a kick has come
    /// already.
    fn prepare(&mut self) -> Result<bool, BackendError> {
        if self.thread != kick::this_thread() {
            self.thread = kick::this_thread();
            self.deadline.moved();
            self.home.move_in();
        }
        self.deadline.arm()?;
        Ok(self.home.take_early())
    }

    /// The run has ended by a kick, or would have begun with one.
    fn kicked(&mut self) -> VmExit {
        self.fd.set_kvm_immediate_exit(0);
        kick::served();
        self.home.take_early();
        self.deadline.kicked();
        VmExit::Interrupted
    }

    /// Finishes what the last exit left open. Some exit if that asks for the next answer.
    fn settle(&mut self, entry: VmEntry) -> Option<VmExit> {
        let value = access::answer(entry);
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Access(access) => {
                let told = access.settle(self.fd.get_kvm_run(), value)?;
                Some(self.tell(told))
            }
            Pending::Msr(written) => {
                let value = written.unwrap_or(value);
                let answer = (entry != VmEntry::Refuse).then_some(value);
                run_page::answer_msr(self.fd.get_kvm_run(), answer);
                None
            }
        }
    }

    fn tell(&mut self, (exit, open): Told) -> VmExit {
        self.pending = open.map_or(Pending::Nothing, Pending::Access);
        exit
    }

    fn exit(&mut self) -> Result<VmExit, BackendError> {
        let run = self.fd.get_kvm_run();
        let reason = run_page::reason(run, self.page_len);
        let reason = match Access::begin(run, reason) {
            Ok(told) => return Ok(self.tell(told)),
            Err(other) => other,
        };
        Ok(match reason {
            Reason::ReadMsr { index } => {
                self.pending = Pending::Msr(None);
                VmExit::ReadMsr { index }
            }
            Reason::WriteMsr { index, value } => {
                self.pending = Pending::Msr(Some(value));
                VmExit::WriteMsr { index, value }
            }
            Reason::InterruptWindow => {
                self.request_window(false);
                VmExit::InterruptWindow
            }
            Reason::EndOfInterrupt { vector } => VmExit::EndOfInterrupt { vector },
            Reason::Halt => VmExit::Halt,
            Reason::Shutdown => VmExit::Shutdown { rip: Some(self.rip()) },
            other => return Err(crate::vcpu::unexpected(&other, self.rip())),
        })
    }

    fn error(&mut self, error: kvm_ioctls::Error) -> Result<VmExit, BackendError> {
        match errno(&error) {
            Errno::INTR => Ok(self.kicked()),
            // A vCPU that waited has got its start-up message.
            Errno::AGAIN => Ok(VmExit::Interrupted),
            Errno::HWPOISON => Err(BackendError::new(crate::vcpu::BROKEN_MEMORY)),
            _ => Err(refused("KVM_RUN")(error)),
        }
    }

    fn rip(&self) -> Gva {
        Gva(self.fd.get_regs().map_or(0, |regs| regs.rip))
    }

    /// Keeps what the page says of the vCPU beside its exit.
    fn look(&mut self) {
        let page = self.fd.get_kvm_run();
        self.interruptible = page.ready_for_interrupt_injection != 0 && page.if_flag != 0;
        // CR8 is the priority's upper half.
        self.task_priority = u8::try_from(page.cr8 & 0xf).unwrap_or(0) << 4;
    }

    fn note(&mut self, result: Result<(), BackendError>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

impl Drop for KvmPcVcpu {
    fn drop(&mut self) {
        self.home.move_out();
    }
}

impl BackendVcpu for KvmPcVcpu {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(exit) = self.settle(entry) {
            return Ok(exit);
        }
        if self.prepare()? {
            return Ok(self.kicked());
        }
        let byte = &raw mut self.fd.get_kvm_run().immediate_exit;
        let Some(running) = Running::enter(byte) else { return Ok(self.kicked()) };
        let result = self.fd.run().map(drop);
        drop(running);
        self.look();
        match result {
            Ok(()) => self.exit(),
            Err(error) => self.error(error),
        }
    }
}

impl MachineVcpu for KvmPcVcpu {
    fn interruptible(&self) -> bool {
        self.interruptible
    }

    fn inject(&mut self, event: Event) {
        let result = match event {
            Event::Interrupt { vector } => ioctl::interrupt(&self.fd, vector),
            Event::Nmi => ioctl::nmi(&self.fd),
        };
        // Until KVM says otherwise.
        self.interruptible = false;
        self.note(result);
    }

    fn raise(&mut self, exception: Exception) -> Result<(), BackendError> {
        exception.check(arch::is_in_64_bit_code(&self.fd)?)?;
        let Exception { vector, error_code } = exception;
        let result = arch::queue_exception(&self.fd, vector, error_code);
        self.interruptible = false;
        self.note(result);
        Ok(())
    }

    fn request_window(&mut self, wanted: bool) {
        self.fd.get_kvm_run().request_interrupt_window = u8::from(wanted);
    }

    fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// The local APIC is KVM's own, and so is CR8.
    fn set_task_priority(&mut self, _: u8) {}

    fn set_deadline(&mut self, monotonic_ns: Option<u64>) {
        self.deadline.set(monotonic_ns);
    }

    fn cycles(&self) -> u64 {
        ioctl::msr(&self.fd, IA32_TIME_STAMP_COUNTER)
    }

    /// As it was made, then `state`. A vCPU but the first waits for its start-up message again.
    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        self.pending = Pending::Nothing;
        self.failed = None;
        self.request_window(false);
        self.birth.restore(&self.fd)?;
        arch::set_machine_state(&self.fd, state)
    }
}
