//! Exits of a hostile guest, answered by the service: nothing panics, and memory that the guest
//! may not use is neither written nor read.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::host::{Stop, resources};
use fuzz::ram::Ram;
use fuzz::values::Word;
use hypervisor::memory::{Gpa, Gva, Perms};
use hypervisor::modes::hvt::service::Service;
use hypervisor::modes::hvt::solo5_abi::{HALT_COOKIE_MAX, HYPERCALL_PIO_BASE};
use hypervisor::vcpu::{Answer, Ending, ExitHandler, VmExit};
use libfuzzer_sys::fuzz_target;

const START: u64 = 0x10_0000;
const END: u64 = START + 0x8000;
/// Read-only, and out of reach.
const INPUT: std::ops::Range<u64> = START + 0x2000..START + 0x3000;
const CLOSED: std::ops::Range<u64> = START + 0x4000..START + 0x5000;

#[derive(Debug, Arbitrary)]
enum Action {
    /// Writes an argument structure, then makes the call.
    Call {
        number: u8,
        at: Word,
        words: [Word; 5],
    },
    /// Any port access.
    Port {
        port: u16,
        size: u8,
        write: Option<u32>,
    },
    /// Any other exit.
    Mmio {
        gpa: Word,
        size: u8,
        write: Option<u64>,
    },
    Halt,
    Shutdown(Word),
    Fault(Word, Option<Word>),
    Interrupted,
}

fuzz_target!(|actions: Vec<Action>| {
    let mut ram = Ram::new(START..END);
    ram.close(INPUT, 0xa5, Perms::READ);
    ram.close(CLOSED, 0xc3, Perms::empty());
    let service = Service::new(resources(), std::sync::Arc::new(Stop), None);
    for action in actions.iter().take(16) {
        let answer = service.handle(exit(action, &ram), &ram.memory);
        check(&answer, &ram);
    }
    assert!(ram.is_filled(INPUT, 0xa5) && ram.is_filled(CLOSED, 0xc3));
});

fn exit(action: &Action, ram: &Ram) -> VmExit {
    let word = |word: Word| word.get(START, END);
    match *action {
        Action::Call { number, at, words } => {
            for (i, value) in words.into_iter().enumerate() {
                let at = word(at).wrapping_add(i as u64 * 8);
                // Where the guest itself could not write, the structure is what is there.
                let _ = ram.memory.write_obj(Gpa(at), &word(value));
            }
            let port = HYPERCALL_PIO_BASE + u16::from(number % 10);
            VmExit::Io { port, size: 4, write: Some(word(at) as u32) }
        }
        Action::Port { port, size, write } => VmExit::Io { port, size, write },
        Action::Mmio { gpa, size, write } => VmExit::Mmio { gpa: Gpa(word(gpa)), size, write },
        Action::Halt => VmExit::Halt,
        Action::Shutdown(rip) => VmExit::Shutdown { rip: Some(Gva(word(rip))) },
        Action::Fault(rip, address) => VmExit::MemoryFault {
            rip: Gva(word(rip)),
            address: address.map(|address| Gpa(word(address))),
        },
        Action::Interrupted => VmExit::Interrupted,
    }
}

fn check(answer: &Answer, ram: &Ram) {
    match answer {
        Answer::End(Ending::Exit { cookie: Some(cookie), .. }) => {
            assert!(ram.memory.slice(*cookie, HALT_COOKIE_MAX, Perms::READ).is_ok());
        }
        Answer::End(Ending::Fault(text)) => assert!(!text.is_empty()),
        _ => {}
    }
}
