//! The source tree stands on its own: no tracked file is a symbolic link to a place outside of it.
//!
//! Such a link works on one machine only, and hands whoever owns its target a say in the build.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::tally::Tally;
use crate::{paths, process};

/// Every symbolic link that git tracks stays inside the tree.
pub fn links() -> Result<Tally> {
    let mut git = std::process::Command::new("git");
    git.current_dir(paths::root()).args(["ls-files", "-s", "-z"]);
    let listing = process::capture(&mut git)?;
    let mut outside = Vec::new();
    for path in listing.split('\0').filter_map(tracked_link) {
        let target = paths::root().join(path).read_link();
        let target = target.with_context(|| format!("cannot read the link {path}"))?;
        if leaves_tree(Path::new(path), &target) {
            outside.push(format!("{path} -> {}", target.display()));
        }
    }
    if !outside.is_empty() {
        bail!("symbolic links lead out of the tree; remove them: {}", outside.join(", "));
    }
    Ok(Tally::success())
}

/// The path in a line of `git ls-files -s` that stands for a symbolic link (mode 120000).
fn tracked_link(line: &str) -> Option<&str> {
    line.strip_prefix("120000 ").and_then(|rest| rest.split_once('\t')).map(|(_, path)| path)
}

/// Whether `target`, read from the link at `path` (relative to the root), leads above the root.
fn leaves_tree(path: &Path, target: &Path) -> bool {
    let mut place = path.parent().map(PathBuf::from).unwrap_or_default();
    for part in target.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_inside_the_tree_are_allowed() {
        let leaves = |path: &str, target: &str| leaves_tree(Path::new(path), Path::new(target));
        assert!(!leaves("docs/a", "b"));
        assert!(!leaves("docs/a", "../README.md"));
        assert!(leaves("a", "/tmp/b"));
        assert!(leaves("docs/a", "../../b"));
        assert!(leaves("docs/a", "../x/../../b"));
    }

    #[test]
    fn a_link_is_told_from_a_file_by_its_mode() {
        assert_eq!(tracked_link("120000 abc 0\tdocs/a"), Some("docs/a"));
        assert_eq!(tracked_link("100644 abc 0\tdocs/a"), None);
    }
}
