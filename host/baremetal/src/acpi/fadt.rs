//! The FADT: registers for power, reset and time (ACPI 6.5 §5.2.9).

use super::number;

/// Where a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// A port.
    Port(u16),
    /// A physical address.
    Memory(u64),
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fadt {
    /// Physical address of the DSDT.
    pub dsdt: u64,
    /// Port of the PM1a control block.
    pub control_a: u16,
    /// Port of the PM1b control block, if there is one.
    pub control_b: Option<u16>,
    /// Port and value that hand the hardware over to an operating system.
    pub enable: Option<(u16, u8)>,
    /// Port of the power management timer (3.579545 MHz, 24 bits at least).
    pub timer: Option<u16>,
    /// Register and value that reset the machine.
    pub reset: Option<(Register, u8)>,
    /// Register of the clock chip that holds the century, if there is one.
    pub century: Option<u8>,
}

/// Flag: the reset register is supported.
const RESET_SUPPORTED: u64 = 1 << 10;

pub(super) fn parse(table: &[u8]) -> Option<Fadt> {
    let port = |at| number::<4>(table, at).and_then(|port| u16::try_from(port).ok());
    let some_port = |at| port(at).filter(|port| *port != 0);
    let byte = |at| table.get(at).copied();
    let flags = number::<4>(table, 112)?;
    let reset = match (flags & RESET_SUPPORTED != 0, byte(116), number::<8>(table, 120)) {
        (true, Some(0), Some(address)) => Some(Register::Memory(address)),
        (true, Some(1), Some(address)) => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    };
    Some(Fadt {
        dsdt: number::<8>(table, 140).filter(|at| *at != 0).or(number::<4>(table, 40))?,
        control_a: port(64)?,
        control_b: some_port(68),
        enable: some_port(48).zip(byte(52)).filter(|(_, value)| *value != 0),
        timer: some_port(76),
        reset: reset.zip(byte(128)),
        century: byte(108).filter(|index| (1..128).contains(index)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;
    use std::vec;

    #[test]
    fn what_a_pc_says_is_read() {
        let mut body = vec![0; 208];
        let mut put =
            |at: usize, bytes: &[u8]| body[at - 36..at - 36 + bytes.len()].copy_from_slice(bytes);
        put(40, &0x7fe_0000u32.to_le_bytes());
        put(48, &0xb2u32.to_le_bytes());
        put(52, &[2]);
        put(64, &0x604u32.to_le_bytes());
        put(76, &0x608u32.to_le_bytes());
        put(108, &[0x32]);
        put(112, &(1u32 << 10).to_le_bytes());
        put(116, &[1, 8, 0, 1]);
        put(120, &0xcf9u64.to_le_bytes());
        put(128, &[0xf]);
        let bytes = table(b"FACP", &body);
        let fadt = parse(&bytes).unwrap();
        assert_eq!(fadt.dsdt, 0x7fe_0000);
        assert_eq!((fadt.control_a, fadt.control_b), (0x604, None));
        assert_eq!(fadt.enable, Some((0xb2, 2)));
        assert_eq!(fadt.timer, Some(0x608));
        assert_eq!(fadt.reset, Some((Register::Port(0xcf9), 0xf)));
        assert_eq!(fadt.century, Some(0x32));
        assert_eq!(parse(&bytes[..100]), None);
        // Version 1 ends before the reset register.
        assert_eq!(parse(&bytes[..116]).unwrap().reset, None);
    }
}
