//! A child process that never outlives its test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::until;

/// A running child. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Returns both streams, for messages and for searching.
    pub fn text(&self) -> String {
        format!("exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Process {
    /// Starts it with both streams appended to files: a child that prints much would block on a pipe that is not
    /// read.
    pub fn spawn(command: &mut Command, stdout: &Path, stderr: &Path) -> std::io::Result<Self> {
        Self::spawn_fed(command, Stdio::null(), stdout, stderr)
    }

    fn spawn_fed(command: &mut Command, stdin: Stdio, stdout: &Path, stderr: &Path) -> std::io::Result<Self> {
        let child = command.stdin(stdin).stdout(append(stdout)).stderr(append(stderr)).spawn()?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends SIGKILL, and reaps it.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM. The shell sends it, because the standard library has no safe call for it.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends any signal by name (`STOP`, `CONT`, `INT`, …).
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status();
        assert!(status.expect("sh runs").success(), "SIG{name} could not be sent");
    }

    /// Waits for its end.
    pub async fn exit(&mut self, what: &str, limit: Duration) -> ExitStatus {
        until(&format!("{what} to end"), limit, async || self.ended()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Runs a command to its end, in a directory for its output files.
pub async fn run(command: &mut Command, scratch: &Path, limit: Duration) -> Outcome {
    run_fed(command, "", scratch, limit).await
}

/// Runs a command to its end, with text to read on stdin.
pub async fn run_fed(command: &mut Command, input: &str, scratch: &Path, limit: Duration) -> Outcome {
    let name = command.get_program().to_string_lossy().into_owned();
    let files = tempfile::tempdir_in(scratch).expect("a scratch directory");
    let [fed, out, err] = ["in", "out", "err"].map(|name| files.path().join(name));
    std::fs::write(&fed, input).expect("a file to read from");
    let stdin = File::open(&fed).expect("a file to read from").into();
    let mut process = Process::spawn_fed(command, stdin, &out, &err)
        .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
    let status = process.exit(&name, limit).await;
    Outcome { code: status.code().unwrap_or(-1), stdout: read(&out), stderr: read(&err) }
}

/// Returns a file as text; an empty text if there is none.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Whether a program is on the `PATH`.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("an output file")
}
