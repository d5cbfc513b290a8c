//! What is wrong with a description, where, and what to write instead.

use super::size::SizeError;
use crate::mode::ModeKind;
use alloc::string::String;
use core::fmt;

/// A place in a configuration file. Both count from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A description that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, if it came from a file.
    pub place: Option<Place>,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The text is not TOML; the parser's words.
    Syntax(String),
    /// The text is longer than this many bytes.
    TooLong(usize),
    /// Arrays, tables or dotted keys are nested more deeply than this.
    TooDeep(usize),
    /// A key is given twice.
    Duplicate(String),
    /// A key that the table does not have.
    UnknownKey {
        /// The key.
        key: String,
        /// The table, such as `vm.hvt`; empty for the file itself.
        table: String,
        /// The keys that it has.
        valid: &'static [&'static str],
    },
    /// A key that must be there.
    Missing {
        /// The key.
        key: &'static str,
        /// The table.
        table: String,
        /// What to write, after the key and `=`.
        example: &'static str,
    },
    /// A value of another type.
    Type {
        /// The key.
        key: String,
        /// The type found.
        found: &'static str,
        /// The type wanted.
        wanted: &'static str,
    },
    /// A value that is none of a few.
    Choice {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The values that there are.
        valid: &'static [&'static str],
    },
    /// A size that is none.
    Size {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// Why.
        why: SizeError,
    },
    /// A value that is too small or too large.
    Range {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The range, such as `1 to 255`.
        range: String,
    },
    /// A value that breaks another rule.
    Value {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The rule, as an order to the writer.
        rule: String,
    },
    /// Two things that cannot both be there.
    Conflict {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
    /// A key that belongs to another type of the same list.
    Foreign {
        /// The key.
        key: String,
        /// The type of the entry that it was found in.
        of: &'static str,
    },
    /// A CPU to pin a vCPU to that the machine does not have.
    NoCpu {
        /// The CPU.
        cpu: u32,
        /// What there is, as a sentence.
        there: String,
    },
    /// A mode's own table in a VM of another mode.
    WrongMode {
        /// The mode whose table it is.
        table: ModeKind,
        /// The VM's mode.
        mode: ModeKind,
    },
}

impl ConfigError {
    /// An error without a place.
    pub fn new(problem: Problem) -> Self {
        Self { place: None, problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.what(f)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, " at line {line}, column {column}")?;
        }
        f.write_str(": ")?;
        self.problem.remedy(f)
    }
}

impl core::error::Error for ConfigError {}

impl Problem {
    fn what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(_) => write!(f, "not TOML"),
            Self::TooLong(_) => write!(f, "the description is too long"),
            Self::TooDeep(_) => write!(f, "the description is nested too deeply"),
            Self::Duplicate(key) => write!(f, "duplicate key `{}`", Shown(key)),
            Self::UnknownKey { key, .. } => write!(f, "unknown key `{}`", Shown(key)),
            Self::Missing { key, table, .. } => write!(f, "missing key `{key}` in [{table}]"),
            Self::Type { key, found, .. } => write!(f, "`{key}` is {found}"),
            Self::Choice { key, found, .. } => write!(f, "unknown `{key}` \"{}\"", Shown(found)),
            Self::Range { key, found, .. } => {
                write!(f, "`{key}` of {} is out of range", Shown(found))
            }
            Self::Size { key, found, .. } | Self::Value { key, found, .. } => {
                write!(f, "bad value \"{}\" for `{key}`", Shown(found))
            }
            Self::Foreign { key, of } => write!(f, "\"{of}\" has no `{key}`"),
            Self::Conflict { one, other } => write!(f, "both {one} and {other} are given"),
            Self::NoCpu { cpu, .. } => write!(f, "`cpus` names CPU {cpu}, which is not there"),
            Self::WrongMode { table, mode } => {
                write!(f, "[vm.{table}] does not belong to a VM of mode \"{mode}\"")
            }
        }
    }

    fn remedy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(f, "{}", Shown(text)),
            Self::TooLong(limit) => write!(f, "at most {limit} bytes are read"),
            Self::TooDeep(limit) => write!(f, "at most {limit} levels are read"),
            Self::Duplicate(_) => write!(f, "remove one of them"),
            Self::UnknownKey { key, table, valid } => {
                suggest(f, key, valid, '`', format_args!("{} has", Owner(table)))
            }
            Self::Missing { key, example, .. } => write!(f, "add {key} = {example}"),
            Self::Type { wanted, .. } => write!(f, "write {wanted}"),
            Self::Choice { found, valid, .. } => {
                suggest(f, found, valid, '"', format_args!("use one of"))
            }
            Self::Size { why, .. } => write!(f, "{why}"),
            Self::Range { range, .. } => write!(f, "allowed is {range}"),
            Self::Value { rule, .. } => write!(f, "{rule}"),
            Self::NoCpu { there, .. } => write!(f, "{}", Shown(there)),
            Self::Foreign { .. } => write!(f, "remove it, or give the entry another type"),
            Self::Conflict { .. } => write!(f, "remove one of them"),
            Self::WrongMode { table, mode } => {
                write!(f, "remove that table, or write mode = \"{table}\" instead of \"{mode}\"")
            }
        }
    }
}

/// Whose keys are meant: a table's, or the file's own, where people leave `[vm]` out.
struct Owner<'a>(&'a str);

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("a VM's keys stand under [vm], and the file"),
            table => write!(f, "{table}"),
        }
    }
}

/// "did you mean …?", or all that there is to choose from.
fn suggest(
    f: &mut fmt::Formatter<'_>,
    found: &str,
    valid: &'static [&'static str],
    quote: char,
    lead: fmt::Arguments<'_>,
) -> fmt::Result {
    if let Some(name) = super::nearest(found, valid.iter().copied()) {
        return write!(f, "did you mean {quote}{name}{quote}?");
    }
    write!(f, "{lead}")?;
    for (i, name) in valid.iter().enumerate() {
        let comma = if i == 0 { " " } else { ", " };
        write!(f, "{comma}{quote}{name}{quote}")?;
    }
    Ok(())
}

/// A text of a stranger's, cut and without control characters, fit for a terminal.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        for c in self.0.chars().take(LONGEST) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_str("…") } else { Ok(()) }
    }
}
