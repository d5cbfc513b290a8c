//! The TOML form of a description (TOML 1.1; the keys are in docs/config.md).
//!
//! [`ConfigFile::parse`] is the only call. The file is read whole: nothing is taken from a file
//! that has one mistake anywhere in what is looked at. The text may be a stranger's: its length,
//! nesting and every value are bounded.

mod depth;
mod modes;
mod reader;
mod vm;

use super::{ConfigError, HypervisorConfig, Problem, VmConfig};
use crate::mode::ModeKind;
use ::toml::de::DeTable;
use reader::{Reader, Text};

pub use depth::MAX_DEPTH;

/// Longest file that is read, in bytes. The parser takes some sixty times as much memory, in one piece.
pub const MAX_LENGTH: usize = 64 << 10;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// `[hypervisor]`.
    pub hypervisor: HypervisorConfig,
    /// `[vm]`.
    pub vm: Option<VmConfig>,
}

impl ConfigFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first mistake in the file, with its place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_LENGTH {
            return Err(ConfigError::new(Problem::TooLong(MAX_LENGTH)));
        }
        if depth::is_too_deep(text) {
            return Err(ConfigError::new(Problem::TooDeep(MAX_DEPTH)));
        }
        let text = Text::new(text);
        let table = DeTable::parse(text.as_str()).map_err(|error| text.syntax(&error))?;
        let root = Reader::new(&text, "", table.get_ref(), 0, &["hypervisor", "vm"])?;
        let hypervisor = match root.table("hypervisor", &["default_mode"])? {
            Some(table) => hypervisor(&table)?,
            None => HypervisorConfig::default(),
        };
        Ok(Self { hypervisor, vm: vm::read(&root)? })
    }
}

fn hypervisor(table: &Reader<'_, '_>) -> Result<HypervisorConfig, ConfigError> {
    let mut config = HypervisorConfig::default();
    if let Some(mode) = mode(table, "default_mode")? {
        config.default_mode = mode;
    }
    Ok(config)
}

/// A key whose value names a mode.
fn mode(table: &Reader<'_, '_>, key: &'static str) -> Result<Option<ModeKind>, ConfigError> {
    const NAMES: [&str; 3] =
        [ModeKind::Type1.name(), ModeKind::VirtIO.name(), ModeKind::Hvt.name()];
    let Some((text, at)) = table.string(key)? else { return Ok(None) };
    let unknown = |_| Problem::Choice { key: key.into(), found: text.into(), valid: &NAMES };
    text.parse().map(Some).map_err(|error| table.error(at, unknown(error)))
}

impl VmConfig {
    /// Reads the description of one VM from a file's text.
    ///
    /// # Errors
    /// The first mistake in the file; a file without `[vm]` is one.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let missing = || Problem::Missing {
            key: "name",
            table: "vm".into(),
            example: "\"my-vm\", after a line [vm]",
        };
        ConfigFile::parse(text)?.vm.ok_or_else(|| ConfigError::new(missing()))
    }
}

#[cfg(test)]
mod tests;
