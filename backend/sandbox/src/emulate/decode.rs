//! Decodes the instructions that trap in user mode, and no others.
//!
//! Encodings: Intel SDM vol. 2, appendix A (opcode maps) and chapter 2 (prefixes, ModRM, SIB) for
//! 64-bit mode. What is not in [`Op`] is left to the caller: it faulted for another reason.

use super::Regs;
use core::num::NonZeroU8;

/// Longest instruction in bytes.
pub const MAX_LEN: usize = 15;

/// A trapping instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `out` or `in` of `size` bytes; the port is immediate or in DX.
    PortIo {
        /// 1, 2 or 4.
        size: u8,
        /// `out`.
        write: bool,
        /// Immediate port.
        port: Option<u8>,
    },
    /// `ins` or `outs` of `size` bytes, repeated or not.
    StringIo {
        /// 1, 2 or 4.
        size: u8,
        /// `outs`.
        write: bool,
    },
    /// `lgdt`.
    Lgdt,
    /// `lidt`.
    Lidt,
    /// `ltr`.
    Ltr,
    /// `mov` of a selector to the segment register with this number.
    MovToSegment(u8),
    /// `mov crN, reg`.
    MovToCr(u8),
    /// `mov reg, crN`.
    MovFromCr(u8),
    /// `wrmsr`.
    Wrmsr,
    /// `rdmsr`.
    Rdmsr,
    /// `cli`.
    Cli,
    /// `sti`.
    Sti,
    /// `hlt`.
    Hlt,
    /// `iretq`.
    Iretq,
    /// Far return that drops this many bytes of the stack.
    LretQ(u16),
    /// `int n`.
    Int(u8),
    /// `clts`, `invlpg`, `invd`, `wbinvd`: nothing to do where there is nothing to flush.
    Nothing,
    /// `swapgs`.
    Swapgs,
    /// `xsetbv`.
    Xsetbv,
    /// A privileged instruction that the sandbox does not carry out, by name.
    Unsupported(&'static str),
}

/// A ModRM operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// General register.
    Register(u8),
    /// Memory.
    Memory {
        /// Base register; 16 stands for the address of the next instruction.
        base: Option<u8>,
        /// Index register and its scale's logarithm.
        index: Option<(u8, u8)>,
        /// Displacement.
        displacement: i32,
        /// Which base is added: FS, GS or none.
        segment: SegmentBase,
        /// 32-bit address size.
        address32: bool,
    },
}

/// Segment overrides that matter in 64-bit mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentBase {
    /// No base.
    Flat,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

const RIP: u8 = 16;

/// A decoded instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// What it does.
    pub op: Op,
    /// Length in bytes.
    pub len: NonZeroU8,
    /// ModRM.rm, where it has one.
    pub operand: Option<Operand>,
    /// ModRM.reg with REX.R.
    pub reg: u8,
}

impl Operand {
    /// Its linear address; `None` for a register. `next` is the address of the next instruction.
    pub fn address(&self, regs: &Regs, next: u64) -> Option<u64> {
        let Self::Memory { base, index, displacement, segment, address32 } = *self else {
            return None;
        };
        let value = |r: u8| if r == RIP { next } else { regs.gpr[usize::from(r & 15)] };
        let mut address = base.map_or(0, value).wrapping_add_signed(displacement.into());
        if let Some((register, scale)) = index {
            address = address.wrapping_add(value(register) << scale);
        }
        if address32 {
            address &= 0xffff_ffff;
        }
        Some(address.wrapping_add(match segment {
            SegmentBase::Flat => 0,
            SegmentBase::Fs => regs.fs_base,
            SegmentBase::Gs => regs.gs_base,
        }))
    }
}

/// Decodes the instruction at the start of `bytes`, if it is one of [`Op`].
pub fn decode(bytes: &[u8]) -> Option<Insn> {
    Decoder { bytes: &bytes[..bytes.len().min(MAX_LEN)], at: 0, ..Decoder::default() }.run()
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    rex: u8,
    operand16: bool,
    address32: bool,
    segment: SegmentBase,
    operand: Option<Operand>,
    reg: u8,
}

impl Default for Decoder<'_> {
    fn default() -> Self {
        Self {
            bytes: &[],
            at: 0,
            rex: 0,
            operand16: false,
            address32: false,
            segment: SegmentBase::Flat,
            operand: None,
            reg: 0,
        }
    }
}

impl Decoder<'_> {
    fn run(mut self) -> Option<Insn> {
        let opcode = self.prefixes()?;
        let op = if opcode == 0x0f { self.two_byte()? } else { self.one_byte(opcode)? };
        let len = NonZeroU8::new(u8::try_from(self.at).ok()?)?;
        Some(Insn { op, len, operand: self.operand, reg: self.reg })
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Consumes legacy prefixes and REX, which counts only right before the opcode.
    fn prefixes(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            match byte {
                0x66 => self.operand16 = true,
                0x67 => self.address32 = true,
                0x64 => self.segment = SegmentBase::Fs,
                0x65 => self.segment = SegmentBase::Gs,
                0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0xf2 | 0xf3 => {}
                0x40..=0x4f => {
                    self.rex = byte;
                    let opcode = self.byte()?;
                    // A prefix after REX voids it: start again from that prefix.
                    if !is_prefix(opcode) {
                        return Some(opcode);
                    }
                    self.rex = 0;
                    self.at -= 1;
                }
                _ => return Some(byte),
            }
        }
    }

    fn io_size(&self, opcode: u8) -> u8 {
        match (opcode & 1, self.operand16) {
            (0, _) => 1,
            (_, true) => 2,
            (_, false) => 4,
        }
    }

    fn one_byte(&mut self, opcode: u8) -> Option<Op> {
        let size = self.io_size(opcode);
        let write = opcode & 2 != 0;
        Some(match opcode {
            0xe4..=0xe7 => Op::PortIo { size, write, port: Some(self.byte()?) },
            0xec..=0xef => Op::PortIo { size, write, port: None },
            0x6c..=0x6f => Op::StringIo { size, write },
            0xfa => Op::Cli,
            0xfb => Op::Sti,
            0xf4 => Op::Hlt,
            0xcd => Op::Int(self.byte()?),
            0xcf if self.rex & 8 != 0 => Op::Iretq,
            0xcf => Op::Unsupported("iret to other than 64-bit code"),
            0xcb if self.rex & 8 != 0 => Op::LretQ(0),
            0xca if self.rex & 8 != 0 => {
                Op::LretQ(u16::from_le_bytes([self.byte()?, self.byte()?]))
            }
            0xca | 0xcb => Op::Unsupported("a far return with 32-bit operands"),
            0x8e => {
                self.modrm()?;
                Op::MovToSegment(self.reg & 7)
            }
            0xff => {
                self.modrm()?;
                match self.reg & 7 {
                    3 => Op::Unsupported("a far call"),
                    5 => Op::Unsupported("a far jump"),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    fn two_byte(&mut self) -> Option<Op> {
        Some(match self.byte()? {
            0x00 => {
                self.modrm()?;
                match self.reg & 7 {
                    2 => Op::Unsupported("lldt"),
                    3 => Op::Ltr,
                    _ => return None,
                }
            }
            0x01 => return self.group7(),
            0x06 | 0x08 | 0x09 => Op::Nothing,
            0x20 => self.control_register(Op::MovFromCr)?,
            0x22 => self.control_register(Op::MovToCr)?,
            0x21 | 0x23 => Op::Unsupported("mov to or from a debug register"),
            0x30 => Op::Wrmsr,
            0x32 => Op::Rdmsr,
            0x33 => Op::Unsupported("rdpmc"),
            0x07 | 0x35 => Op::Unsupported("sysret or sysexit"),
            _ => return None,
        })
    }

    /// `mov` to and from control registers has a register operand whatever ModRM.mod says.
    fn control_register(&mut self, op: fn(u8) -> Op) -> Option<Op> {
        let modrm = self.byte()?;
        self.operand = Some(Operand::Register(modrm & 7 | (self.rex & 1) << 3));
        self.reg = modrm >> 3 & 7 | (self.rex & 4) << 1;
        Some(op(self.reg))
    }

    fn group7(&mut self) -> Option<Op> {
        let modrm = *self.bytes.get(self.at)?;
        let memory = modrm < 0xc0;
        let op = match (modrm >> 3 & 7, modrm) {
            (2, _) if memory => Op::Lgdt,
            (3, _) if memory => Op::Lidt,
            (7, _) if memory => Op::Nothing,
            (6, _) => Op::Unsupported("lmsw"),
            (_, 0xf8) => Op::Swapgs,
            (_, 0xd1) => Op::Xsetbv,
            (_, 0xc8 | 0xc9 | 0xd8..=0xdf) => Op::Unsupported("a monitor or SVM instruction"),
            _ => return None,
        };
        self.modrm()?;
        Some(op)
    }

    fn modrm(&mut self) -> Option<()> {
        let modrm = self.byte()?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        self.reg = modrm >> 3 & 7 | (self.rex & 4) << 1;
        self.operand = Some(match (mode, rm) {
            (3, _) => Operand::Register(rm | (self.rex & 1) << 3),
            (_, 4) => self.sib(mode)?,
            (0, 5) => self.memory(Some(RIP), None, 4)?,
            _ => self.memory(Some(rm | (self.rex & 1) << 3), None, displacement_size(mode))?,
        });
        Some(())
    }

    fn sib(&mut self, mode: u8) -> Option<Operand> {
        let sib = self.byte()?;
        let index = sib >> 3 & 7 | (self.rex & 2) << 2;
        let index = (index != 4).then_some((index, sib >> 6));
        if mode == 0 && sib & 7 == 5 {
            return self.memory(None, index, 4);
        }
        self.memory(Some(sib & 7 | (self.rex & 1) << 3), index, displacement_size(mode))
    }

    fn memory(&mut self, base: Option<u8>, index: Option<(u8, u8)>, size: u8) -> Option<Operand> {
        let displacement = match size {
            0 => 0,
            1 => i32::from(self.byte()?.cast_signed()),
            _ => i32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]),
        };
        let (segment, address32) = (self.segment, self.address32);
        Some(Operand::Memory { base, index, displacement, segment, address32 })
    }
}

const fn displacement_size(mode: u8) -> u8 {
    match mode {
        0 => 0,
        1 => 1,
        _ => 4,
    }
}

const fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x66 | 0x67 | 0x64 | 0x65 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)
        || byte & 0xf0 == 0x40
}
