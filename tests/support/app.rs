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

/// What `serve` says, once, on stdout, when it takes requests.
const ANNOUNCEMENT: &str = "listening on http://";

type Change = Arc<dyn Fn(&mut Command) + Send + Sync>;

/// How a server is started: its directory and what a test changed in the command line or the environment.
#[derive(Clone)]
pub struct Launch {
    /// Everything of this server is below it: data, logs, home.
    root: Arc<TempDir>,
    change: Change,
}

impl Launch {
    pub fn new(change: impl Fn(&mut Command) + Send + Sync + 'static) -> Self {
        let root = tempfile::Builder::new().prefix("wharf-test-").tempdir().expect("a temporary directory");
        Self { root: Arc::new(root), change: Arc::new(change) }
    }

    /// A fresh directory and nothing changed.
    pub fn plain() -> Self {
        Self::new(|_| ())
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Any `wharf` command, with an environment that holds nothing of this machine's settings.
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

    /// The same on a terminal, which `script` (util-linux) makes. What the terminal shows is the command's stdout, and
    /// it closes when the command dies.
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
        // Never the machine's own engine, unless a test names one.
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

    /// Starts a server that must refuse to, and returns how it did.
    pub async fn refused(&self) -> Outcome {
        run(&mut self.serve("127.0.0.1:0"), self.root(), PATIENCE).await
    }

    /// Whether a server comes up on this directory, which is stopped again.
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
            // Only a whole line counts: the port may still be on its way.
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

    /// Both output streams, whole.
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

    /// With a changed command line or environment; the change is made again at every restart.
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

    /// The most memory it has had at once since it was started, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory it has now for itself, in bytes: not the program, which the system reads from the disk as it is needed.
    pub fn own_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.process_id())));
        let line = status.lines().find_map(|line| line.strip_prefix(which));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.unwrap_or_else(|| panic!("no {which} in {status:?}")) * 1024
    }

    /// Everything it has printed, over all its restarts.
    pub fn logs(&self) -> String {
        self.launch.logs()
    }

    /// The super-admin made at the first start.
    pub fn admin(&self) -> Api {
        Api::new(&self.url, Some(Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY)))
    }

    /// Nobody in particular.
    pub fn anonymous(&self) -> Api {
        Api::new(&self.url, None)
    }

    /// SIGKILL: what a power cut is to a process.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM; returns how it ended and how long that took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.process.terminate();
        let status = self.process.exit("wharf after SIGTERM", PATIENCE).await;
        (status, asked.elapsed())
    }

    /// SIGABRT, as when it fails badly; returns how it ended.
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
                // Some other test's outgoing connection may hold the port for a moment.
                Err(_) if started.elapsed() < PATIENCE && self.launch.tail(3).contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("wharf did not start again ({status})"),
            }
        }
    }

    /// A `wharf` command beside the server, as its admin.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.launch.wharf(arguments);
        command
            .env("WHARF_ENDPOINT", &self.url)
            .env("WHARF_ACCESS_KEY", ADMIN_ACCESS_KEY)
            .env("WHARF_SECRET_KEY", ADMIN_SECRET_KEY);
        command
    }

    /// Runs it to its end.
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
