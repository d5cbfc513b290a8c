//! Both ends of a serial line: output to the host's console, input from it.

use super::Uart;
use crate::device::{Effect, Effects, Work, WorkRef};
use crate::host::{Clock, Console};
use crate::memory::GuestSlice;
use crate::modes::type1::board::{Board, Timed, TimerSlot};
use crate::modes::type1::host::{Arrival, ConsoleInput};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};

/// Bytes that wait for the console at most.
const OUTPUT: usize = 4096;
/// What a driver may write once the transmitter is empty: its FIFO.
const FIFO: usize = 16;
/// So many go at once, without waiting for the end of a line.
const ENOUGH: usize = 128;
/// What is no whole line goes after this time, in nanoseconds.
const PATIENCE: u64 = 3_000_000;

/// Output on its way to the console, a line at a time: a guest writes it byte by byte.
///
/// `buffer` and `line` are leaf locks; neither is held while the console is written to.
pub struct UartLink {
    buffer: Mutex<Buffer>,
    line: Mutex<Option<Line>>,
    console: Box<dyn Console>,
    clock: Arc<dyn Clock>,
    slot: TimerSlot,
}

/// A line, and the board to which the effects of its interrupts go.
type Line = (Weak<Mutex<Uart>>, Weak<Board>);

struct Buffer {
    bytes: VecDeque<u8>,
    /// Somebody is writing.
    busy: bool,
    /// The line waits to be told that there is room.
    starved: bool,
}

impl Buffer {
    fn has_room(&self) -> bool {
        self.bytes.len() + FIFO <= OUTPUT
    }
}

impl UartLink {
    /// To this console. `slot` is to be registered with a [`Flush`] of it.
    pub fn new(console: Box<dyn Console>, clock: Arc<dyn Clock>, slot: TimerSlot) -> Self {
        let bytes = VecDeque::with_capacity(OUTPUT);
        let buffer = Buffer { bytes, busy: false, starved: false };
        Self { buffer: Mutex::new(buffer), line: Mutex::new(None), console, clock, slot }
    }

    /// Names the line that is told when there is room again.
    pub fn connect(&self, uart: &Arc<Mutex<Uart>>, board: &Arc<Board>) {
        *self.line.lock() = Some((Arc::downgrade(uart), Arc::downgrade(board)));
    }

    /// Whether it takes a whole FIFO.
    pub fn has_room(&self) -> bool {
        self.buffer.lock().has_room()
    }

    /// Whether it takes a whole FIFO. If not, the line is told as soon as it does.
    pub fn has_room_or_tells(&self) -> bool {
        let mut buffer = self.buffer.lock();
        let room = buffer.has_room();
        buffer.starved |= !room;
        room
    }

    fn tell(&self) {
        let line = self.line.lock().clone();
        let line = line.and_then(|(uart, board)| Some((uart.upgrade()?, board.upgrade()?)));
        if let Some((uart, board)) = line {
            let mut effects = Effects::new();
            uart.lock().emptied(&mut effects);
            board.apply(effects);
        }
    }

    /// Takes a byte; one for which there is no room is lost: its driver has not waited until the
    /// transmitter was empty.
    pub fn put(self: &Arc<Self>, byte: u8, effects: &mut Effects) {
        let waiting = {
            let mut buffer = self.buffer.lock();
            if buffer.bytes.len() < OUTPUT {
                buffer.bytes.push_back(byte);
            }
            buffer.bytes.len()
        };
        if byte == b'\n' || waiting >= ENOUGH {
            effects.push(Effect::Work(WorkRef::new(self.clone())));
        } else if waiting == 1 {
            self.slot.set(Some(self.clock.monotonic_ns().saturating_add(PATIENCE)));
        }
    }

    /// Writes everything that waits, unless somebody does already. It may block.
    pub fn flush(&self) {
        if core::mem::replace(&mut self.buffer.lock().busy, true) {
            return;
        }
        let mut chunk = [0; 256];
        loop {
            let (count, told) = {
                let mut buffer = self.buffer.lock();
                let count = buffer.bytes.len().min(chunk.len());
                buffer.busy = count != 0;
                let bytes = buffer.bytes.drain(..count);
                chunk.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
                let told = buffer.starved && buffer.has_room();
                buffer.starved &= !told;
                (count, told)
            };
            if told {
                self.tell();
            }
            if count == 0 {
                return;
            }
            // A console that cannot be written to is a line that leads nowhere.
            let _ = self.console.write(GuestSlice::from_host(&mut chunk[..count]));
        }
    }
}

impl Work for UartLink {
    fn run(self: Arc<Self>) -> Effects {
        self.flush();
        Effects::new()
    }
}

/// The timer of a [`UartLink`].
pub struct Flush(
    /// The link.
    pub Arc<UartLink>,
);

impl Timed for Flush {
    fn expire(&mut self, _: u64, effects: &mut Effects) {
        self.0.slot.set(None);
        effects.push(Effect::Work(WorkRef::new(self.0.clone())));
    }
}

/// Input from the host's side. It exists before its machine does: until it is connected there is
/// no room.
///
/// Both locks are leaves: what they hold is copied out before it is used.
#[derive(Default)]
pub struct SerialInput {
    line: Mutex<Option<Connection>>,
    room: Mutex<Option<Arc<dyn Arrival>>>,
}

type Connection = (Arc<Mutex<Uart>>, Arc<Board>);

impl SerialInput {
    /// Connects it to a line of a board.
    pub fn connect(&self, uart: Arc<Mutex<Uart>>, board: Arc<Board>) {
        *self.line.lock() = Some((uart, board));
        self.tell();
    }

    /// Takes it off again: the machine is gone.
    pub fn disconnect(&self) {
        let line = self.line.lock().take();
        drop(line);
    }

    fn tell(&self) {
        let room = self.room.lock().clone();
        if let Some(room) = room {
            room.arrived();
        }
    }
}

impl ConsoleInput for SerialInput {
    fn type_in(&self, bytes: &[u8]) -> usize {
        let Some((uart, board)) = self.line.lock().clone() else { return 0 };
        let mut effects = Effects::new();
        let taken = uart.lock().type_in(bytes, &mut effects);
        board.apply(effects);
        taken
    }

    fn on_room(&self, room: Arc<dyn Arrival>) {
        *self.room.lock() = Some(room);
    }
}

impl Work for SerialInput {
    fn run(self: Arc<Self>) -> Effects {
        self.tell();
        Effects::new()
    }
}
