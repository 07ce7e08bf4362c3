//! Runs programs as a user does.

use std::ffi::OsStr;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How a program has ended.
pub(crate) struct Ended {
    /// Its exit code, if no signal has ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program to its end. Returns both its outputs, or an error that contains them.
pub(crate) async fn run(command: Command, input: &str) -> Result<String> {
    let line = line(&command);
    let ended = end_of(command, input).await?;
    let said = ended.out + &ended.err;
    if ended.code != Some(0) {
        bail!("{line}: {}", said.trim());
    }
    Ok(said)
}

/// Runs a program to its end, with whichever exit code.
pub(crate) async fn end_of(mut command: Command, input: &str) -> Result<Ended> {
    let line = line(&command);
    let output = output(&mut command, input).await.context(line)?;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Ok(Ended { code: output.status.code(), out, err })
}

async fn output(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program that does not read its input may end before we have written it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    Ok(child.wait_with_output().await?)
}

fn line(command: &Command) -> String {
    let command = command.as_std();
    let program = command.get_program().display().to_string();
    let words = command.get_args().map(OsStr::display).map(|word| format!(" {word}"));
    std::iter::once(program).chain(words).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
