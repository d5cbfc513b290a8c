//! Prefixes, ModRM, SIB, displacement, immediates.

use super::insn::{Address, Mode, Place, Rep, Seg};
use super::{Failure, MAX_LEN};

const W: u8 = 8;
const R: u8 = 4;
const X: u8 = 2;
const B: u8 = 1;

/// A place in an instruction, with the prefixes that have been read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub at: usize,
    pub mode: Mode,
    rex: u8,
    operand_prefix: bool,
    address_prefix: bool,
    override_: Option<Seg>,
    pub rep: Rep,
    pub lock: bool,
    pub opcode: u8,
}

impl<'a> Cursor<'a> {
    /// Reads prefixes and the first byte of the opcode.
    pub fn new(mode: Mode, bytes: &'a [u8]) -> Result<Self, Failure> {
        let bytes = bytes.get(..MAX_LEN).unwrap_or(bytes);
        let mut c = Self {
            bytes,
            at: 0,
            mode,
            rex: 0,
            operand_prefix: false,
            address_prefix: false,
            override_: None,
            rep: Rep::None,
            lock: false,
            opcode: 0,
        };
        loop {
            let byte = c.byte()?;
            if c.prefix(byte) {
                continue;
            }
            if mode == Mode::Bits64 && byte & 0xf0 == 0x40 {
                // Only the one directly before the opcode counts.
                c.rex = byte;
                continue;
            }
            c.opcode = byte;
            return Ok(c);
        }
    }

    fn prefix(&mut self, byte: u8) -> bool {
        let wide = self.mode == Mode::Bits64;
        match byte {
            0x66 => self.operand_prefix = true,
            0x67 => self.address_prefix = true,
            0xf0 => self.lock = true,
            0xf2 => self.rep = Rep::NotEqual,
            0xf3 => self.rep = Rep::Equal,
            0x64 => self.override_ = Some(Seg::Fs),
            0x65 => self.override_ = Some(Seg::Gs),
            // In 64-bit mode these are read and mean nothing.
            0x26 if !wide => self.override_ = Some(Seg::Es),
            0x2e if !wide => self.override_ = Some(Seg::Cs),
            0x36 if !wide => self.override_ = Some(Seg::Ss),
            0x3e if !wide => self.override_ = Some(Seg::Ds),
            0x26 | 0x2e | 0x36 | 0x3e => {}
            _ => return false,
        }
        self.rex = 0;
        true
    }

    pub fn byte(&mut self) -> Result<u8, Failure> {
        let byte = *self.bytes.get(self.at).ok_or(Failure::Short)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte, which stays where it is.
    pub fn peek(&self) -> Result<u8, Failure> {
        self.bytes.get(self.at).copied().ok_or(Failure::Short)
    }

    /// A value of `size` bytes, sign-extended.
    pub fn signed(&mut self, size: u8) -> Result<i64, Failure> {
        let mut raw = [0u8; 8];
        for slot in raw.iter_mut().take(usize::from(size)) {
            *slot = self.byte()?;
        }
        let unused = 64 - 8 * u32::from(size);
        Ok(i64::from_le_bytes(raw) << unused >> unused)
    }

    /// An immediate operand of an instruction of `size` bytes: 4 at most.
    pub fn immediate(&mut self, size: u8) -> Result<u64, Failure> {
        Ok(self.signed(size.min(4))?.cast_unsigned())
    }

    pub fn has_rex(&self) -> bool {
        self.rex != 0
    }

    fn rex_bit(&self, bit: u8) -> u8 {
        u8::from(self.rex & bit != 0) << 3
    }

    /// Operand size of instructions that are not about bytes.
    pub fn operand_size(&self) -> u8 {
        match (self.mode, self.operand_prefix) {
            _ if self.rex & W != 0 => 8,
            (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => 2,
            _ => 4,
        }
    }

    pub fn address_size(&self) -> u8 {
        match (self.mode, self.address_prefix) {
            (Mode::Bits64, false) => 8,
            (Mode::Bits64, true) | (Mode::Bits32, false) | (Mode::Bits16, true) => 4,
            _ => 2,
        }
    }

    /// The segment of an operand: the prefix's, or what its base implies.
    pub fn segment(&self, place: &Place) -> Seg {
        let stack = match place {
            // RSP and RBP; in 16-bit forms only BP is ever a base.
            Place::Memory(address) => matches!(address.base, Some(4 | 5)),
            Place::Register(_) => false,
        };
        self.override_.unwrap_or(if stack { Seg::Ss } else { Seg::Ds })
    }

    /// ModRM and all that follows it: its register, and its place.
    pub fn modrm(&mut self) -> Result<(u8, Place), Failure> {
        let modrm = self.byte()?;
        let (kind, rm) = (modrm >> 6, modrm & 7);
        let register = modrm >> 3 & 7 | self.rex_bit(R);
        if kind == 3 {
            return Ok((register, Place::Register(rm | self.rex_bit(B))));
        }
        let address = if self.address_size() == 2 {
            self.memory16(kind, rm)?
        } else {
            self.memory(kind, rm)?
        };
        Ok((register, Place::Memory(address)))
    }

    /// ModRM of MOV to and from control registers: registers whatever its upper bits say.
    pub fn modrm_registers(&mut self) -> Result<(u8, Place), Failure> {
        let modrm = self.byte()?;
        let rm = modrm & 7 | self.rex_bit(B);
        Ok((modrm >> 3 & 7 | self.rex_bit(R), Place::Register(rm)))
    }

    fn memory(&mut self, kind: u8, rm: u8) -> Result<Address, Failure> {
        let mut address = Address { base: None, index: None, displacement: 0, rip_relative: false };
        let mut displacement = match kind {
            0 => 0,
            1 => 1,
            _ => 4,
        };
        if rm == 4 {
            let sib = self.byte()?;
            let index = sib >> 3 & 7 | self.rex_bit(X);
            address.index = (index != 4).then_some((index, sib >> 6));
            if sib & 7 == 5 && kind == 0 {
                displacement = 4;
            } else {
                address.base = Some(sib & 7 | self.rex_bit(B));
            }
        } else if rm == 5 && kind == 0 {
            displacement = 4;
            address.rip_relative = self.mode == Mode::Bits64;
        } else {
            address.base = Some(rm | self.rex_bit(B));
        }
        address.displacement = self.signed_or_zero(displacement)?;
        Ok(address)
    }

    /// The forms of 16-bit addresses: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP, BX.
    fn memory16(&mut self, kind: u8, rm: u8) -> Result<Address, Failure> {
        const BX: u8 = 3;
        const BP: u8 = 5;
        const SI: u8 = 6;
        const DI: u8 = 7;
        let (mut base, index) = match rm {
            0 => (Some(BX), Some((SI, 0))),
            1 => (Some(BX), Some((DI, 0))),
            2 => (Some(BP), Some((SI, 0))),
            3 => (Some(BP), Some((DI, 0))),
            4 => (Some(SI), None),
            5 => (Some(DI), None),
            6 => (Some(BP), None),
            _ => (Some(BX), None),
        };
        let mut size = kind;
        if rm == 6 && kind == 0 {
            base = None;
            size = 2;
        }
        let displacement = self.signed_or_zero(size)?;
        Ok(Address { base, index, displacement, rip_relative: false })
    }

    fn signed_or_zero(&mut self, size: u8) -> Result<i64, Failure> {
        if size == 0 { Ok(0) } else { self.signed(size) }
    }
}
