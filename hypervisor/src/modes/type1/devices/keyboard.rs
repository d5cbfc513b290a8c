//! The keyboard controller (8042) of a PC without keyboard and mouse, at ports 0x60 and 0x64: it
//! answers its own commands, resets the machine by 0xfe, and has nothing behind it. What is sent to a
//! keyboard or mouse times out: the answer is RESEND, and the status says why (IBM PS/2 Hardware
//! Interface Technical Reference, "Keyboard and Auxiliary Device Controller"). So nobody waits long
//! for an answer that never comes.
//!
//! ACPI tells systems that there is none (FADT IAPC_BOOT_ARCH); what is here is for firmware and
//! for systems that use it without asking.

use crate::device::{Access, Device, Effect, Effects};

/// Status: a byte is to be read.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the self-test has passed.
const SYSTEM: u8 = 1 << 2;
/// Status: the last write was a command.
const COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const UNLOCKED: u8 = 1 << 4;
/// Status: the byte is the second port's.
const SECOND: u8 = 1 << 5;
/// Status: what was sent to a device was not taken.
const TIMED_OUT: u8 = 1 << 6;
/// What the controller gives in place of a device's answer.
const RESEND: u8 = 0xfe;
/// Configuration: this port's clock is off.
const FIRST_OFF: u8 = 1 << 4;
const SECOND_OFF: u8 = 1 << 5;
/// Output port after power-up: no reset, A20 on.
const OUTPUT_PORT: u8 = 0b11;

/// The controller. On the bus it is port 0x60; port 0x64 is [`KeyboardCommand`].
#[derive(Debug, Clone, Default)]
pub struct Keyboard {
    configuration: u8,
    /// What port 0x60 gives, if anything waits.
    answer: Option<u8>,
    /// What the status says of it: [`SECOND`] and [`TIMED_OUT`].
    origin: u8,
    last: u8,
    /// The command that waits for a byte at port 0x60; 0: none.
    awaits: u8,
    last_was_command: bool,
}

impl Keyboard {
    fn status(&self) -> u8 {
        let full = if self.answer.is_some() { OUTPUT_FULL | self.origin } else { 0 };
        let command = if self.last_was_command { COMMAND } else { 0 };
        full | command | SYSTEM | UNLOCKED
    }

    fn command(&mut self, value: u8, effects: &mut Effects) {
        self.last_was_command = true;
        self.awaits = 0;
        match value {
            0x20 => self.give(self.configuration, 0),
            0xa7 => self.configuration |= SECOND_OFF,
            0xa8 => self.configuration &= !SECOND_OFF,
            0xad => self.configuration |= FIRST_OFF,
            0xae => self.configuration &= !FIRST_OFF,
            0x60 | 0xd1..=0xd4 => self.awaits = value,
            // Self-test passed; test of the second port, then of the first: lines fine.
            0xaa => self.give(0x55, 0),
            0xa9 | 0xab => self.give(0, 0),
            0xc0 => self.give(0, 0),
            0xd0 => self.give(OUTPUT_PORT, 0),
            // Pulses of output lines; line 0 is the processor's reset.
            0xf0..=0xff if value & 1 == 0 => effects.push(Effect::Reset),
            _ => {}
        }
    }

    fn data(&mut self, value: u8, effects: &mut Effects) {
        self.last_was_command = false;
        match core::mem::take(&mut self.awaits) {
            0x60 => self.configuration = value,
            0xd1 if value & 1 == 0 => effects.push(Effect::Reset),
            0xd1 => {}
            0xd2 => self.give(value, 0),
            0xd3 => self.give(value, SECOND),
            0xd4 => self.give(RESEND, SECOND | TIMED_OUT),
            _ => self.give(RESEND, TIMED_OUT),
        }
    }

    fn give(&mut self, answer: u8, origin: u8) {
        (self.answer, self.origin) = (Some(answer), origin);
    }
}

impl Device for Keyboard {
    fn name(&self) -> &str {
        "8042 data"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        if let Some(answer) = self.answer.take() {
            self.last = answer;
        }
        self.last.into()
    }

    fn write(&mut self, _: Access, value: u64, effects: &mut Effects) {
        self.data(value.to_le_bytes()[0], effects);
    }
}

/// Port 0x64 of a [`Keyboard`], for the bus, where port 0x60 is the keyboard itself.
pub struct KeyboardCommand(
    /// The controller.
    pub alloc::sync::Arc<crate::sync::Mutex<Keyboard>>,
);

impl Device for KeyboardCommand {
    fn name(&self) -> &str {
        "8042 command"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        self.0.lock().status().into()
    }

    fn write(&mut self, _: Access, value: u64, effects: &mut Effects) {
        self.0.lock().command(value.to_le_bytes()[0], effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Width;
    use crate::sync::Mutex;
    use alloc::sync::Arc;

    #[test]
    fn what_is_sent_to_a_device_that_is_not_there_times_out() {
        let keyboard = Arc::new(Mutex::new(Keyboard::default()));
        let mut commands = KeyboardCommand(keyboard.clone());
        let mut effects = Effects::new();
        let at = Access { offset: 0, width: Width::Byte };
        // A keyboard's reset.
        keyboard.lock().write(at, 0xff, &mut effects);
        assert_eq!(commands.read(at, &mut effects), 0x55, "full, timed out");
        assert_eq!(keyboard.lock().read(at, &mut effects), 0xfe);
        assert_eq!(commands.read(at, &mut effects), 0x14);
        // A mouse's.
        commands.write(at, 0xd4, &mut effects);
        keyboard.lock().write(at, 0xff, &mut effects);
        assert_eq!(commands.read(at, &mut effects), 0x75, "and of the second port");
        assert_eq!(keyboard.lock().read(at, &mut effects), 0xfe);
        // Tests of the controller itself go well, and its ports can be turned off.
        for (command, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0), (0xd0, 3)] {
            commands.write(at, command, &mut effects);
            assert_eq!(commands.read(at, &mut effects) & 0x61, 1, "{command:#x}");
            assert_eq!(keyboard.lock().read(at, &mut effects), answer, "{command:#x}");
        }
        for (command, configuration) in [(0xad, 0x10), (0xa7, 0x30), (0xae, 0x20), (0xa8, 0)] {
            commands.write(at, command, &mut effects);
            commands.write(at, 0x20, &mut effects);
            let found = keyboard.lock().read(at, &mut effects);
            assert_eq!(found, configuration, "{command:#x}");
        }
        assert!(effects.is_empty());
    }

    #[test]
    fn it_tests_itself_and_resets_the_machine() {
        let keyboard = Arc::new(Mutex::new(Keyboard::default()));
        let mut commands = KeyboardCommand(keyboard.clone());
        let mut effects = Effects::new();
        let at = Access { offset: 0, width: Width::Byte };
        assert_eq!(commands.read(at, &mut effects), 0x14);
        commands.write(at, 0xaa, &mut effects);
        assert_eq!(commands.read(at, &mut effects) & 1, 1);
        assert_eq!(keyboard.lock().read(at, &mut effects), 0x55);
        commands.write(at, 0x60, &mut effects);
        keyboard.lock().write(at, 0x47, &mut effects);
        commands.write(at, 0x20, &mut effects);
        assert_eq!(keyboard.lock().read(at, &mut effects), 0x47);
        assert!(effects.is_empty());
        commands.write(at, 0xfe, &mut effects);
        assert!(!effects.is_empty());
    }
}
