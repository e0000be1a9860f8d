//! The official clients, run as a user runs them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, App};
use super::missing;
use super::process::{Outcome, read, run};
use super::sign::Keypair;

/// Installing a client takes a minute on a machine that has nothing yet.
const INSTALL: Duration = Duration::from_mins(10);
const COMMAND: Duration = Duration::from_mins(3);

/// One release of `backend.ai-client`, with a home of its own.
pub struct Client {
    executable: PathBuf,
    home: TempDir,
    driver: Arc<Mutex<Option<Driver>>>,
}

/// How a command of the client proves its user.
pub enum Entry {
    /// With signed requests, by this keypair.
    Keypair(Keypair),
    /// With the session that `login` opened.
    Session,
}

impl Client {
    /// Returns this release, installing it if need be; `None` if that is not possible here (see [`missing`]).
    pub async fn find(version: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/clients.sh");
        let home = tempfile::Builder::new().prefix("wharf-client-").tempdir().expect("a directory");
        let installed = run(Command::new(script).arg(version), home.path(), INSTALL).await;
        if installed.code != 0 {
            missing(&format!("backend.ai-client {version}"), installed.stderr.trim());
            return None;
        }
        let executable = PathBuf::from(installed.stdout.trim());
        Some(Self { executable, home, driver: Arc::default() })
    }

    /// Runs `backend.ai ARGUMENTS…` against this server, as its admin.
    pub async fn run(&self, app: &App, arguments: &[&str]) -> Outcome {
        self.run_at(app.url(), arguments).await
    }

    /// Runs `backend.ai ARGUMENTS…` against the server at this URL.
    pub async fn run_at(&self, url: &str, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(&self.executable);
        command.args(arguments).current_dir(self.home.path()).env_clear();
        command.envs(self.environment(url, &admin()));
        run(&mut command, self.home.path(), COMMAND).await
    }

    /// Runs a command without loading the client anew (`tests/tools/client.py`), with something to read.
    pub async fn enter(&self, url: &str, entry: &Entry, arguments: &[&str], input: &str) -> Outcome {
        self.drive(url, entry, input, &json!({ "arguments": arguments })).await
    }

    /// Runs a command in session mode, with something to answer its questions.
    pub async fn in_session(&self, app: &App, arguments: &[&str], answers: &str) -> Outcome {
        self.enter(app.url(), &Entry::Session, arguments, answers).await
    }

    /// Runs lines of Python with the client's library.
    pub async fn script(&self, url: &str, script: &str) -> Outcome {
        self.drive(url, &admin(), "", &json!({ "arguments": [], "script": script })).await
    }

    async fn drive(&self, url: &str, entry: &Entry, input: &str, command: &Value) -> Outcome {
        let files = tempfile::tempdir_in(self.home.path()).expect("a scratch directory");
        let [fed, out, err] = ["in", "out", "err"].map(|name| files.path().join(name));
        std::fs::write(&fed, input).expect("a file to read from");
        let mut command = command.clone();
        command["environment"] = json!(self.environment(url, entry));
        for (name, path) in [("stdin", &fed), ("stdout", &out), ("stderr", &err)] {
            command[name] = path.to_str().expect("a readable path").into();
        }
        let (driver, python) = (Arc::clone(&self.driver), self.executable.with_file_name("python"));
        let home = self.home.path().to_owned();
        let code = tokio::task::spawn_blocking(move || {
            let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
            driver.get_or_insert_with(|| Driver::start(&python, &home)).run(&command)
        });
        let code =
            tokio::time::timeout(COMMAND, code).await.expect("the client ends").expect("its exit code");
        Outcome { code, stdout: read(&out), stderr: read(&err) }
    }

    fn environment(&self, url: &str, entry: &Entry) -> BTreeMap<&'static str, String> {
        let home = self.home.path().to_str().expect("a readable path").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut variables = BTreeMap::from([
            ("PATH", path),
            ("HOME", home),
            ("LANG", "C.UTF-8".to_owned()),
            ("COLUMNS", "200".to_owned()),
            ("BACKEND_ENDPOINT", url.to_owned()),
        ]);
        match entry {
            Entry::Keypair(keypair) => variables.extend([
                ("BACKEND_ENDPOINT_TYPE", "api".to_owned()),
                ("BACKEND_ACCESS_KEY", keypair.access.clone()),
                ("BACKEND_SECRET_KEY", keypair.secret.clone()),
            ]),
            Entry::Session => variables.extend([("BACKEND_ENDPOINT_TYPE", "session".to_owned())]),
        }
        variables
    }
}

/// Returns the entry of the server's first admin, by keypair.
pub fn admin() -> Entry {
    Entry::Keypair(Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY))
}

/// The process that has the client loaded.
struct Driver {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Driver {
    fn start(python: &Path, home: &Path) -> Self {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/client.py");
        let mut process = Command::new(python)
            .arg(driver)
            .current_dir(home)
            .env_clear()
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let answers = BufReader::new(process.stdout.take().expect("its stdout"));
        Self { process, answers }
    }

    fn run(&mut self, command: &Value) -> i32 {
        let commands = self.process.stdin.as_mut().expect("its stdin");
        writeln!(commands, "{command}").and_then(|()| commands.flush()).expect("the driver listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the driver answers");
        line.trim().parse().unwrap_or_else(|_| panic!("the driver ended"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
