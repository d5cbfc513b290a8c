//! The console's commands.

use crate::options::Level;
use alloc::vec::Vec;
use hypervisor::config::nearest;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Nothing was typed.
    Nothing,
    /// What there is to type.
    Help,
    /// The VMs.
    List,
    /// The descriptions in the boot module.
    Configs,
    /// Makes a VM of a description.
    Create(&'a str),
    /// Lets a VM run.
    Start(&'a str),
    /// Ends its run.
    Stop(&'a str),
    /// Gives back what it has.
    Destroy(&'a str),
    /// What it used; all VMs, where none is named.
    Stats(Option<&'a str>),
    /// Shows its output alone, and sends it what is typed.
    Attach(&'a str),
    /// What this machine can do.
    Modes,
    /// Shows messages up to this level.
    Log(Level),
    /// Switches the machine off.
    PowerOff,
    /// Starts it anew.
    Reboot,
}

/// What a command wants after its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    Vm,
    MaybeVm,
    Config,
    Level,
}

struct Row {
    name: &'static str,
    wants: Wants,
    help: &'static str,
}

const fn row(name: &'static str, wants: Wants, help: &'static str) -> Row {
    Row { name, wants, help }
}

const ROWS: [Row; 14] = [
    row("help", Wants::Nothing, "this list"),
    row("list", Wants::Nothing, "the VMs, with their numbers and states"),
    row("configs", Wants::Nothing, "the descriptions in the boot module"),
    row("create", Wants::Config, "make a VM of a description"),
    row("start", Wants::Vm, "let a VM run"),
    row("stop", Wants::Vm, "end its run"),
    row("destroy", Wants::Vm, "give back what it has"),
    row("stats", Wants::MaybeVm, "what it used, or all of them"),
    row("attach", Wants::Vm, "show its output alone and type to it; Ctrl-] comes back"),
    row("modes", Wants::Nothing, "what this machine can do"),
    row("log", Wants::Level, "show messages up to error, warn, info or debug"),
    row("poweroff", Wants::Nothing, "switch the machine off"),
    row("reboot", Wants::Nothing, "start the machine anew"),
    row("exit", Wants::Nothing, "the same as poweroff"),
];

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError<'a> {
    /// There is none of that name.
    #[error("unknown command \"{0}\"{hint}: `help` lists them all", hint = Hint(.0))]
    Unknown(&'a str),
    /// Something is missing behind it.
    #[error("`{command}` wants {wants} behind it")]
    Missing {
        /// The command.
        command: &'static str,
        /// What.
        wants: &'static str,
    },
    /// There is more than it takes.
    #[error("`{command}` does not take \"{word}\"")]
    TooMuch {
        /// The command.
        command: &'static str,
        /// What is too much.
        word: &'a str,
    },
}

struct Hint<'a>(&'a str);

impl core::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        match nearest(self.0, names) {
            Some(name) => write!(f, " (did you mean `{name}`?)"),
            None => Ok(()),
        }
    }
}

/// Reads a line.
///
/// # Errors
/// [`CommandError`].
pub fn parse(line: &str) -> Result<Command<'_>, CommandError<'_>> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(Command::Nothing) };
    let row = ROWS.iter().find(|row| row.name == name).ok_or(CommandError::Unknown(name))?;
    let command = row.name;
    let missing = |wants| CommandError::Missing { command, wants };
    let word = if row.wants == Wants::Nothing { None } else { words.next() };
    if let Some(word) = words.next() {
        return Err(CommandError::TooMuch { command, word });
    }
    let vm = || word.ok_or(missing("a VM's name or number (`list` shows them)"));
    Ok(match command {
        "help" => Command::Help,
        "list" => Command::List,
        "configs" => Command::Configs,
        "create" => Command::Create(word.ok_or(missing("a description (`configs` lists them)"))?),
        "start" => Command::Start(vm()?),
        "stop" => Command::Stop(vm()?),
        "destroy" => Command::Destroy(vm()?),
        "stats" => Command::Stats(word),
        "attach" => Command::Attach(vm()?),
        "modes" => Command::Modes,
        "log" => {
            let level = word.and_then(Level::named);
            Command::Log(level.ok_or(missing("error, warn, info or debug"))?)
        }
        "reboot" => Command::Reboot,
        _ => Command::PowerOff,
    })
}

/// The lines of `help`.
pub fn help(line: &mut dyn FnMut(core::fmt::Arguments<'_>)) {
    for row in &ROWS {
        let wants = match row.wants {
            Wants::Nothing => "",
            Wants::Vm => "VM",
            Wants::MaybeVm => "[VM]",
            Wants::Config => "CONFIG",
            Wants::Level => "LEVEL",
        };
        line(format_args!("  {:9}{wants:8}{}", row.name, row.help));
    }
}

/// What may come next in a line: words to complete with.
pub fn completions<'a>(line: &str, vms: &[&'a str], configs: &[&'a str]) -> Vec<&'a str> {
    let Some((name, rest)) = line.split_once(' ') else {
        return ROWS.iter().map(|row| row.name).collect();
    };
    let wants = ROWS.iter().find(|row| row.name == name).map(|row| row.wants);
    match wants.filter(|_| !rest.contains(' ')) {
        Some(Wants::Vm | Wants::MaybeVm) => vms.to_vec(),
        Some(Wants::Config) => configs.to_vec(),
        Some(Wants::Level) => ["error", "warn", "info", "debug"].to_vec(),
        Some(Wants::Nothing) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_row_is_a_command() {
        for row in &ROWS {
            let line = match row.wants {
                Wants::Nothing | Wants::MaybeVm => row.name.to_string(),
                Wants::Level => std::format!("{} debug", row.name),
                Wants::Vm | Wants::Config => std::format!("{} x", row.name),
            };
            let command = parse(&line).unwrap();
            let off = matches!(row.name, "poweroff" | "exit");
            assert_eq!(command == Command::PowerOff, off, "{line}");
            assert!(parse(&std::format!("{line} x y")).is_err());
        }
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(parse("  "), Ok(Command::Nothing));
        assert_eq!(parse(" start  web "), Ok(Command::Start("web")));
        assert_eq!(parse("stats"), Ok(Command::Stats(None)));
        assert_eq!(parse("log warn"), Ok(Command::Log(Level::Warn)));
    }

    #[test]
    fn mistakes_say_what_helps() {
        let error = |line| parse(line).unwrap_err().to_string();
        assert_eq!(
            error("strat x"),
            "unknown command \"strat\" (did you mean `start`?): `help` lists them all"
        );
        assert_eq!(
            error("attach"),
            "`attach` wants a VM's name or number (`list` shows them) behind it"
        );
        assert_eq!(error("list all"), "`list` does not take \"all\"");
        assert_eq!(error("log loud"), "`log` wants error, warn, info or debug behind it");
    }

    #[test]
    fn what_may_come_next_is_known() {
        assert!(completions("st", &["a"], &[]).contains(&"stats"));
        assert_eq!(completions("start a", &["a", "b"], &["c"]), ["a", "b"]);
        assert_eq!(completions("create ", &["a"], &["c"]), ["c"]);
        assert!(completions("list ", &["a"], &["c"]).is_empty());
        assert!(completions("start a b", &["a"], &["c"]).is_empty());
    }
}
