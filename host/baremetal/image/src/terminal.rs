//! The serial port as a person's terminal: messages, what guests print, and the line that is
//! being typed, which is put back below whatever is printed meanwhile.

use crate::end;
use crate::serial::{Serial, send};
use core::fmt::{self, Write};
use host_baremetal::console::editor::{Editor, Event};
use host_baremetal::console::output::{Outputs, plain};
use hypervisor::sync::Mutex;

/// What a line is typed behind.
const PROMPT: &str = "hv> ";
/// Back to the line's beginning, and nothing right of it (ECMA-48 EL).
const WIPE: &str = "\r\x1b[K";
/// Ctrl-].
const DETACH: u8 = 0x1d;

struct Terminal {
    outputs: Outputs,
    editor: Editor,
    /// The prompt, and what was typed, is on the screen's last line.
    prompt: bool,
    /// No line is read any more.
    over: bool,
}

/// Taken with no other lock held but an output's, never while waiting.
static TERMINAL: Mutex<Terminal> = Mutex::new(Terminal {
    outputs: Outputs::new(),
    editor: Editor::new(),
    prompt: false,
    over: false,
});

impl Terminal {
    /// Prints something in lines of its own.
    fn print(&mut self, print: impl FnOnce(&mut Outputs)) {
        let attached = self.outputs.attached().is_some();
        if self.prompt && !attached {
            write(WIPE);
        }
        print(&mut self.outputs);
        self.show_prompt();
    }

    fn show_prompt(&mut self) {
        if self.prompt && self.outputs.attached().is_none() {
            write(PROMPT);
            write(self.editor.line());
        }
    }
}

fn write(text: &str) {
    let _ = Serial.write_str(text);
}

/// Prints a line. After a failure it does not wait for whoever was printing.
pub fn line(text: fmt::Arguments<'_>) {
    if end::has_failed() {
        let _ = writeln!(Serial, "{text}");
        return;
    }
    TERMINAL.lock().print(|_| {
        let _ = writeln!(Message, "{text}");
    });
}

/// A guest is there.
pub fn add_guest(vm: u32, name: &str) {
    TERMINAL.lock().outputs.add(vm, name);
}

/// The name of a guest.
pub fn name(vm: u32) -> alloc::string::String {
    TERMINAL.lock().outputs.name(vm).into()
}

/// A guest has ended, or is gone; `notice` is a line about it. The prompt comes once, after all.
pub fn finish_guest(vm: u32, gone: bool, notice: Option<fmt::Arguments<'_>>) {
    let mut terminal = TERMINAL.lock();
    let was_attached = terminal.outputs.attached() == Some(vm);
    if !was_attached && !terminal.outputs.has_begun(vm) && notice.is_none() {
        terminal.outputs.finish(vm, gone, &mut text);
        return;
    }
    terminal.print(|outputs| {
        if was_attached {
            outputs.attach(None);
            write("\n");
        }
        outputs.finish(vm, gone, &mut text);
        if let Some(notice) = notice {
            let _ = writeln!(Message, "{notice}");
        }
    });
}

/// A guest has printed something.
pub fn guest(vm: u32, bytes: &[u8]) {
    let mut terminal = TERMINAL.lock();
    if terminal.outputs.attached() == Some(vm) {
        bytes.iter().for_each(|byte| send(*byte));
    } else if bytes.contains(&b'\n') {
        terminal.print(|outputs| {
            outputs.write(vm, bytes, &mut text);
        });
    } else {
        // No line is whole yet; one that has become too long is shown all the same.
        terminal.outputs.write(vm, bytes, &mut text);
    }
}

/// A message, parts of which may be a stranger's words.
struct Message;

impl Write for Message {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        plain(words, &mut text);
        Ok(())
    }
}

/// Bytes of a line that is shown among others'.
fn text(bytes: &[u8]) {
    for byte in bytes {
        if *byte == b'\n' {
            send(b'\r');
        }
        send(*byte);
    }
}

/// What a typed byte led to.
pub enum Typed {
    /// For the line.
    Line(Event),
    /// For the guest that is attached.
    Guest(u32, u8),
}

/// Begins to read lines, unless they are over.
pub fn begin_lines() {
    let mut terminal = TERMINAL.lock();
    terminal.prompt = !terminal.over;
    terminal.show_prompt();
}

/// Reads no more lines, whoever wants to.
pub fn end_lines() {
    let mut terminal = TERMINAL.lock();
    if terminal.prompt && terminal.outputs.attached().is_none() {
        write(WIPE);
    }
    (terminal.prompt, terminal.over) = (false, true);
}

/// Takes a typed byte.
pub fn typed(byte: u8) -> Typed {
    let mut terminal = TERMINAL.lock();
    if let Some(vm) = terminal.outputs.attached() {
        if byte != DETACH {
            return Typed::Guest(vm, byte);
        }
        terminal.outputs.attach(None);
        write("\n");
        terminal.show_prompt();
        return Typed::Line(Event::None);
    }
    let event = terminal.editor.take(byte, &mut write);
    match event {
        // Until the command has been carried out.
        Event::Line(_) => terminal.prompt = false,
        Event::Abandoned => terminal.show_prompt(),
        Event::None | Event::Complete => {}
    }
    Typed::Line(event)
}

/// What has been typed so far.
pub fn so_far() -> alloc::string::String {
    TERMINAL.lock().editor.line().into()
}

/// Completes the line with one of these words, or shows them.
pub fn complete(words: &[&str]) {
    let mut terminal = TERMINAL.lock();
    let choice = terminal.editor.complete(words, &mut write);
    if !choice.is_empty() {
        write("\n");
        for word in choice {
            plain(word, &mut text);
            write("  ");
        }
        write("\n");
        terminal.show_prompt();
    }
}

/// Gives a guest the terminal.
pub fn attach(vm: u32) {
    TERMINAL.lock().outputs.attach(Some(vm));
}
