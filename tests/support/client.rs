//! The official clients, run as a person runs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, App};
use super::missing;
use super::process::{Outcome, run, run_fed};

/// Installing one takes a minute on a machine that has nothing yet.
const INSTALL: Duration = Duration::from_mins(10);
const COMMAND: Duration = Duration::from_mins(3);

/// One release of `backend.ai-client`, with a home of its own.
pub struct Client {
    executable: PathBuf,
    home: TempDir,
}

impl Client {
    /// Installs it if need be. Nothing if that can't be done here (see [`missing`]).
    pub async fn find(version: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/clients.sh");
        let home = tempfile::Builder::new().prefix("wharf-client-").tempdir().expect("a directory");
        let installed = run(Command::new(script).arg(version), home.path(), INSTALL).await;
        if installed.code != 0 {
            missing(&format!("backend.ai-client {version}"), installed.stderr.trim());
            return None;
        }
        Some(Self { executable: PathBuf::from(installed.stdout.trim()), home })
    }

    /// Runs `backend.ai ARGUMENTS…` against this server, as its admin.
    pub async fn run(&self, app: &App, arguments: &[&str]) -> Outcome {
        self.run_at(app.url(), arguments).await
    }

    /// The same against whatever answers at this URL.
    pub async fn run_at(&self, url: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.command(url, "api");
        command
            .args(arguments)
            .env("BACKEND_ACCESS_KEY", ADMIN_ACCESS_KEY)
            .env("BACKEND_SECRET_KEY", ADMIN_SECRET_KEY);
        run(&mut command, self.home.path(), COMMAND).await
    }

    /// Runs it in session mode, with something to answer its questions.
    pub async fn in_session(&self, app: &App, arguments: &[&str], answers: &str) -> Outcome {
        let client = self.command(app.url(), "session");
        // Without a terminal of its own, or it would ask for the password there.
        let mut command = Command::new("setsid");
        command
            .arg("--wait")
            .arg(client.get_program())
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear();
        for (name, value) in client.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        run_fed(&mut command, answers, self.home.path(), COMMAND).await
    }

    fn command(&self, url: &str, kind: &str) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8")
            .env("COLUMNS", "200")
            .env("BACKEND_ENDPOINT", url)
            .env("BACKEND_ENDPOINT_TYPE", kind);
        command
    }
}
