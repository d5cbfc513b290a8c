//! What is on every board, at its ports and addresses.

use crate::config::Type1Console;
use crate::device::{BusError, Device, DeviceRef, Effects, Trigger, WorkRef};
use crate::host::Console;
use crate::modes::type1::board::{Board, Timed, TimerSlot};
use crate::modes::type1::devices::{
    DebugExit, DebugPort, Flush, Keyboard, KeyboardCommand, Pit, Pm, Port92, PowerButton, Rtc,
    SerialInput, SystemControl, Uart, UartLink,
};
use crate::modes::type1::interrupts::{Controllers, IoApicPage, PicPorts};
use crate::modes::type1::layout::{
    COM1, COM1_LINE, IO_APIC, PM1_EVENT, RTC_LINE, SCI_LINE, TIMER_LINE,
};
use crate::modes::type1::pci;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// What of it depends on the description.
pub(super) struct Spec {
    pub console: Type1Console,
    pub debug: bool,
    /// RAM in bytes.
    pub memory: u64,
    pub firmware: bool,
}

/// The parts that a reset resets.
pub struct Parts {
    pit: Arc<Mutex<Pit>>,
    rtc: Arc<Mutex<Rtc>>,
    pm: Arc<Mutex<Pm>>,
    keyboard: Arc<Mutex<Keyboard>>,
    port_92: Arc<Mutex<Port92>>,
    uart: Option<Arc<Mutex<Uart>>>,
    link: Arc<UartLink>,
    input: Arc<SerialInput>,
    /// PCI with its bridges.
    pub pci: pci::Machine,
}

/// Makes a device with a timer and registers it.
fn timed<D: Timed + 'static>(board: &Board, make: impl FnOnce(TimerSlot) -> D) -> Arc<Mutex<D>> {
    let slot = board.timers.slot();
    let device = Arc::new(Mutex::new(make(slot.clone())));
    board.timers.add(slot, device.clone());
    device
}

fn shared<D: Device + 'static>(device: &Arc<Mutex<D>>) -> DeviceRef {
    DeviceRef::shared(device.clone())
}

impl Parts {
    pub(super) fn attach(
        board: &Arc<Board>,
        controllers: &Arc<Controllers>,
        console: Box<dyn Console>,
        input: Arc<SerialInput>,
        spec: &Spec,
    ) -> Result<Self, BusError> {
        let devices = &board.devices;
        let level = |line| devices.lines.source(line, Trigger::Level);
        let clock = || board.clock.clone();
        let port = |port: u16, count: u64, device: DeviceRef| {
            devices.pio.insert(u64::from(port)..u64::from(port) + count, device)
        };
        let edge = devices.lines.source(TIMER_LINE, Trigger::Edge);
        let pit = timed(board, |slot| Pit::new(clock(), slot, edge));
        let rtc = timed(board, |slot| Rtc::new(clock(), slot, level(RTC_LINE), spec.memory));
        let pm = timed(board, |slot| Pm::new(clock(), slot, level(SCI_LINE)));
        let slot = board.timers.slot();
        let link = Arc::new(UartLink::new(console, clock(), slot.clone()));
        board.timers.add(slot, Arc::new(Mutex::new(Flush(link.clone()))));
        let keyboard = Arc::new(Mutex::new(Keyboard::default()));

        devices.mmio.insert(IO_APIC, DeviceRef::new(IoApicPage(controllers.clone())))?;
        for (base, count) in [(0x20, 2), (0xa0, 2), (0x4d0, 2)] {
            let controllers = controllers.clone();
            port(base, count, DeviceRef::new(PicPorts { controllers, base }))?;
        }
        port(0x40, 4, shared(&pit))?;
        port(0x61, 1, DeviceRef::new(SystemControl(pit.clone())))?;
        port(0x60, 1, shared(&keyboard))?;
        port(0x64, 1, DeviceRef::new(KeyboardCommand(keyboard.clone())))?;
        port(0x70, 2, shared(&rtc))?;
        let port_92 = Arc::new(Mutex::new(Port92::default()));
        port(0x92, 1, shared(&port_92))?;
        port(PM1_EVENT, 12, shared(&pm))?;
        if spec.debug {
            port(0x402, 1, DeviceRef::new(DebugPort(link.clone())))?;
            port(0xe9, 1, DeviceRef::new(DebugPort(link.clone())))?;
            port(0xf4, 4, DeviceRef::new(DebugExit(board.power.clone())))?;
        }
        let mut uart = None;
        if spec.console == Type1Console::Serial {
            let line = Uart::new(level(COM1_LINE), link.clone(), WorkRef::new(input.clone()));
            let line = Arc::new(Mutex::new(line));
            port(COM1, 8, shared(&line))?;
            input.connect(line.clone(), board.clone());
            link.connect(&line, board);
            uart = Some(line);
        }
        let pci = pci::attach(devices, spec.firmware)?;
        Ok(Self { pit, rtc, pm, keyboard, port_92, uart, link, input, pci })
    }

    /// Everything as after power-up. The lines have been lowered.
    pub(super) fn reset(&self) -> Effects {
        self.pit.lock().reset();
        self.rtc.lock().reset();
        self.pm.lock().reset();
        *self.keyboard.lock() = Keyboard::default();
        *self.port_92.lock() = Port92::default();
        self.uart.iter().for_each(|uart| uart.lock().reset());
        self.pci.reset()
    }

    pub(super) fn power_button(&self) -> PowerButton {
        PowerButton(self.pm.clone())
    }

    /// Writes what the guest has said last. It may block.
    pub fn flush(&self) {
        self.link.flush();
    }

    pub(super) fn disconnect(&self) {
        self.input.disconnect();
    }
}
