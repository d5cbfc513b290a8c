//! Running other programs: without standard input, with errors that name the command.
//!
//! Progress goes to standard error; standard output belongs to what the person asked for.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths;

/// One line of progress.
pub fn say(text: &str) {
    eprintln!("==> {text}");
}

/// This toolchain's cargo, working in the source tree.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).stdin(Stdio::null());
    command
}

/// Lets a command end when this program does, however that happens.
#[allow(unsafe_code)]
pub fn tie(command: &mut Command) -> &mut Command {
    // SAFETY: the child makes one system call, which touches no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// Runs a command whose output the person sees; a failure is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| start_failed(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command whose output the person sees, and returns its status.
pub fn status(command: &mut Command) -> Result<i32> {
    let status = command.stdin(Stdio::null()).status().with_context(|| start_failed(command))?;
    status.code().with_context(|| format!("`{}` ended with {status}", shown(command)))
}

/// Runs a command and returns its standard output; a failure is an error with its standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| start_failed(command))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}:\n{}", shown(command), output.status, why.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, hands each line of its standard output to `line` as it comes, and returns
/// whether it succeeded.
pub fn stream(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| start_failed(command))?;
    if let Some(output) = child.stdout.take() {
        each_line(BufReader::new(output), &mut line)?;
    }
    Ok(child.wait()?.success())
}

/// Hands over each line, whatever bytes it holds.
pub fn each_line(mut source: impl BufRead, line: &mut dyn FnMut(&str)) -> Result<()> {
    let mut bytes = Vec::new();
    while source.read_until(b'\n', &mut bytes)? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    Ok(())
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        let _ = write!(text, " {argument}");
    }
    text
}

fn start_failed(command: &Command) -> String {
    format!(
        "cannot start `{}`: is it installed and on PATH?",
        command.get_program().to_string_lossy()
    )
}
