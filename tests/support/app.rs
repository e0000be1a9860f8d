//! The server under test: the real binary, with its own data directory, on a port of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::api::Api;
use super::process::{Outcome, Process, read, run};
use super::sign::Keypair;
use super::wait::PATIENCE;

pub const ADMIN_EMAIL: &str = "admin@test.invalid";
pub const ADMIN_PASSWORD: &str = "planted-password-of-the-admin";
pub const ADMIN_ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
pub const ADMIN_SECRET_KEY: &str = "planted-secret-key-of-the-admin-0123456789";

/// The line that `serve` prints once, on stdout, when it accepts requests.
const ANNOUNCEMENT: &str = "listening on http://";

type Change = Arc<dyn Fn(&mut Command) + Send + Sync>;

/// How a server is started: its directory and what a test changed in the command line or the environment.
#[derive(Clone)]
pub struct Launch {
    /// The directory that holds everything of this server: data, logs, home.
    root: Arc<TempDir>,
    change: Change,
}

impl Launch {
    pub fn new(change: impl Fn(&mut Command) + Send + Sync + 'static) -> Self {
        let root = tempfile::Builder::new().prefix("wharf-test-").tempdir().expect("a temporary directory");
        Self { root: Arc::new(root), change: Arc::new(change) }
    }

    /// Returns a fresh directory with an unchanged command line and environment.
    pub fn plain() -> Self {
        Self::new(|_| ())
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Returns a `wharf` command, with an environment free of this machine's settings.
    pub fn wharf(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .args(arguments)
            .current_dir(self.root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root())
            .env("RUST_BACKTRACE", "1");
        command
    }

    /// Returns a `wharf` command on a terminal, which `script` (util-linux) makes. The command's stdout is what the
    /// terminal shows, and the terminal closes when the command dies.
    pub fn on_terminal(&self, arguments: &str) -> Command {
        let line = format!("exec {} {arguments}", self.wharf(&[]).get_program().display());
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).current_dir(self.root()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.root());
        command
    }

    fn serve(&self, listen: &str) -> Command {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().expect("a readable path");
        let mut command = self.wharf(&["serve", "--data-dir", data_dir, "--listen", listen]);
        command
            .env("WHARF_ADMIN_EMAIL", ADMIN_EMAIL)
            .env("WHARF_ADMIN_PASSWORD", ADMIN_PASSWORD)
            .env("WHARF_ADMIN_ACCESS_KEY", ADMIN_ACCESS_KEY)
            .env("WHARF_ADMIN_SECRET_KEY", ADMIN_SECRET_KEY);
        (self.change)(&mut command);
        // Never use the machine's own engine, unless a test names one.
        if !command.get_args().any(|argument| argument == "--engine") {
            command.args(["--engine", "none"]);
        }
        command
    }

    /// Starts a server that must come up.
    pub async fn start(self) -> App {
        match self.spawn("127.0.0.1:0").await {
            Ok((process, url)) => App { launch: self, process, url },
            Err(status) => panic!("wharf did not start ({status})\n{}", self.tail(100)),
        }
    }

    /// Starts a server that must refuse to start, and returns its outcome.
    pub async fn refused(&self) -> Outcome {
        run(&mut self.serve("127.0.0.1:0"), self.root(), PATIENCE).await
    }

    /// Whether a server starts on this directory; it is stopped again.
    pub async fn starts(&self) -> bool {
        match self.spawn("127.0.0.1:0").await {
            Ok((process, _)) => {
                process.terminate();
                let mut process = process;
                process.exit("a server that was told to stop", PATIENCE).await;
                true
            }
            Err(_) => false,
        }
    }

    async fn spawn(&self, listen: &str) -> Result<(Process, String), ExitStatus> {
        let (stdout, stderr) = (self.root().join("stdout.log"), self.root().join("stderr.log"));
        let said = read(&stdout).len();
        let mut process = Process::spawn(&mut self.serve(listen), &stdout, &stderr).expect("the binary runs");
        let started = Instant::now();
        loop {
            let ended = process.ended();
            let fresh = read(&stdout).split_off(said);
            // Only a whole line counts: the port may not be written yet.
            let mut lines = fresh.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let url = lines.find_map(|line| line.trim().strip_prefix(ANNOUNCEMENT));
            if let Some(host) = url {
                return Ok((process, format!("http://{}", host.trim_end_matches('/'))));
            }
            if let Some(status) = ended {
                return Err(status);
            }
            assert!(started.elapsed() < PATIENCE, "wharf announces no address\n{}", self.tail(100));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns all of both output streams.
    pub fn logs(&self) -> String {
        read(&self.root().join("stdout.log")) + &read(&self.root().join("stderr.log"))
    }

    fn tail(&self, lines: usize) -> String {
        let logs = self.logs();
        let all: Vec<&str> = logs.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A running server.
pub struct App {
    launch: Launch,
    process: Process,
    url: String,
}

impl App {
    pub async fn start() -> Self {
        Launch::plain().start().await
    }

    /// Starts a server with a changed command line or environment; every restart makes the same change.
    pub async fn start_with(change: impl Fn(&mut Command) + Send + Sync + 'static) -> Self {
        Launch::new(change).start().await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    pub fn data_dir(&self) -> PathBuf {
        self.launch.data_dir()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the most memory it has used at once since its start, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Returns the memory it uses for itself now, in bytes, without the program, which the system reads from disk on
    /// demand.
    pub fn own_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.process_id())));
        let line = status.lines().find_map(|line| line.strip_prefix(which));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.unwrap_or_else(|| panic!("no {which} in {status:?}")) * 1024
    }

    /// Returns everything it has printed, over all its restarts.
    pub fn logs(&self) -> String {
        self.launch.logs()
    }

    /// Returns the super-admin created at the first start.
    pub fn admin(&self) -> Api {
        Api::new(&self.url, Some(Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY)))
    }

    /// Returns a caller without credentials.
    pub fn anonymous(&self) -> Api {
        Api::new(&self.url, None)
    }

    /// Sends SIGKILL, which is to a process what a power cut is.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Sends SIGTERM; returns how the server ended and how long that took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.process.terminate();
        let status = self.process.exit("wharf after SIGTERM", PATIENCE).await;
        (status, asked.elapsed())
    }

    /// Sends SIGABRT, as if it failed badly; returns how it ended.
    pub async fn crash(&mut self) -> ExitStatus {
        self.process.signal("ABRT");
        self.process.exit("wharf after SIGABRT", PATIENCE).await
    }

    /// Starts it again on the same directory and port, after a [`kill9`](Self::kill9) if it still runs.
    pub async fn restart(&mut self) {
        self.process.kill9();
        let listen = self.url.trim_start_matches("http://").to_owned();
        let started = Instant::now();
        loop {
            match self.launch.spawn(&listen).await {
                Ok((process, _)) => {
                    self.process = process;
                    return;
                }
                // Another test's outgoing connection may hold the port for a moment.
                Err(_) if started.elapsed() < PATIENCE && self.launch.tail(3).contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("wharf did not start again ({status})"),
            }
        }
    }

    /// Returns a `wharf` command for this server, with its admin's keypair.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.launch.wharf(arguments);
        command
            .env("WHARF_ENDPOINT", &self.url)
            .env("WHARF_ACCESS_KEY", ADMIN_ACCESS_KEY)
            .env("WHARF_SECRET_KEY", ADMIN_SECRET_KEY);
        command
    }

    /// Runs a `wharf` command for this server to its end.
    pub async fn wharf(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments), self.launch.root(), PATIENCE).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of this server's log\n{}\n---", self.launch.tail(60));
        }
    }
}
