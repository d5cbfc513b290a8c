//! A decoded instruction.

/// How wide addresses and operands are by default: what the code segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Real mode, virtual-8086 mode, 16-bit protected mode.
    #[default]
    Bits16,
    /// 32-bit protected and compatibility mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// A segment register, as instructions number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// Where an operand in memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub base: Option<u8>,
    /// With the power of two that it is multiplied by.
    pub index: Option<(u8, u8)>,
    pub displacement: i64,
    /// Relative to the next instruction.
    pub rip_relative: bool,
}

/// What ModRM names besides a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Register(u8),
    Memory(Address),
}

/// Arithmetic of two operands, in the order of the opcode's bits 3 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

/// What the bit instructions do to their bit, in the order of the opcode's bits 3 and 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// The other operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// ModRM's register.
    Register,
    /// An immediate value.
    Immediate,
}

/// Instructions that leave a guest by themselves, of which only the length is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Cpuid,
    Hlt,
    Rdmsr,
    Wrmsr,
    Rdpmc,
    Vmmcall,
    Vmcall,
    Xsetbv,
    Invd,
    Wbinvd,
    /// NOP, PAUSE and prefetches.
    Nothing,
}

/// What an instruction does. "Memory" is [`Insn::place`], which may be a register all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// MOV from memory.
    Load,
    /// MOV (MOVNTI) to memory.
    Store(Source),
    /// MOVZX, MOVSX, MOVSXD from memory of [`Insn::size`] bytes to a register of `to`.
    Extend {
        to: u8,
        signed: bool,
    },
    /// Arithmetic with memory as destination.
    ToMemory(Alu, Source),
    /// Arithmetic with memory as source.
    FromMemory(Alu),
    Test(Source),
    Xchg,
    Xadd,
    CmpXchg,
    Bit(Bit, Source),
    Not,
    Neg,
    Inc,
    Dec,
    Movs,
    Cmps,
    Stos,
    Lods,
    Scas,
    Ins,
    Outs,
    /// MOV to or from a control register; the general register is [`Insn::place`].
    ToCr(u8),
    FromCr(u8),
    Plain(Plain),
}

/// A repeat prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rep {
    None,
    /// REP or REPE.
    Equal,
    /// REPNE.
    NotEqual,
}

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub op: Op,
    /// Bytes of the operand in memory: 1, 2, 4 or 8.
    pub size: u8,
    /// Bytes of the instruction.
    pub len: u8,
    /// Bytes of addresses: 2, 4 or 8.
    pub address_size: u8,
    pub place: Place,
    pub segment: Seg,
    pub register: u8,
    /// A REX prefix: byte registers 4 to 7 are SPL to DIL, not AH to BH.
    pub rex: bool,
    /// Sign-extended.
    pub immediate: u64,
    pub rep: Rep,
    pub lock: bool,
}

impl Default for Insn {
    /// Nothing, of no bytes.
    fn default() -> Self {
        Self {
            op: Op::Plain(Plain::Nothing),
            size: 0,
            len: 0,
            address_size: 8,
            place: Place::Register(0),
            segment: Seg::Ds,
            register: 0,
            rex: false,
            immediate: 0,
            rep: Rep::None,
            lock: false,
        }
    }
}
