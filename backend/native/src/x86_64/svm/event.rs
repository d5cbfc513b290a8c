//! EVENTINJ and EXITINTINFO (AMD APM vol. 2 §15.20, §15.7.2): events on their way into a guest.

use crate::x86_64::vendor::{Injection, Kind};

const VALID: u64 = 1 << 31;
const ERROR_CODE_VALID: u64 = 1 << 11;
const TYPE_SHIFT: u32 = 8;
const INTERRUPT: u64 = 0;
const NMI: u64 = 2;
const EXCEPTION: u64 = 3;

/// An event as EVENTINJ has it.
pub(super) fn encode(event: Injection) -> u64 {
    let kind = match event.kind {
        Kind::Interrupt => INTERRUPT,
        Kind::Nmi => NMI,
        Kind::Exception => EXCEPTION,
    };
    let code = event.error_code.map_or(0, |code| ERROR_CODE_VALID | u64::from(code) << 32);
    VALID | u64::from(event.vector) | kind << TYPE_SHIFT | code
}

/// The event in EXITINTINFO that has to be given again.
///
/// Not one that an instruction raises (INTn, INT3, INTO): the guest's RIP is at that instruction,
/// which will be executed again.
#[inline]
pub(super) fn interrupted(info: u64) -> Option<Injection> {
    if info & VALID == 0 {
        return None;
    }
    let [vector, ..] = info.to_le_bytes();
    let kind = match info >> TYPE_SHIFT & 7 {
        INTERRUPT => Kind::Interrupt,
        NMI => Kind::Nmi,
        EXCEPTION if vector != 3 && vector != 4 => Kind::Exception,
        _ => return None,
    };
    let [_, code] = crate::x86_64::processor::halves(info);
    let error_code = (info & ERROR_CODE_VALID != 0).then_some(code);
    Some(Injection { vector, kind, error_code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went_in() {
        for event in [
            Injection::UD,
            Injection::with_code(14, 0xffff_fffe),
            Injection::NMI,
            Injection { vector: 0xff, kind: Kind::Interrupt, error_code: None },
        ] {
            assert_eq!(interrupted(encode(event)), Some(event));
            assert_eq!(interrupted(encode(event) & !VALID), None);
        }
    }

    #[test]
    fn what_an_instruction_raised_is_not_given_again() {
        assert_eq!(interrupted(VALID | 4 << 8 | 0x80), None, "INT 0x80");
        assert_eq!(interrupted(VALID | 3 << 8 | 3), None, "INT3");
        assert_eq!(encode(Injection::GP), 0x8000_0b0d);
    }
}
