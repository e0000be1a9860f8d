//! The official clients, run as a person runs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, App};
use super::missing;
use super::process::{Outcome, run};

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
        let mut command = Command::new(&self.executable);
        command
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8")
            .env("COLUMNS", "200")
            .env("BACKEND_ENDPOINT", url)
            .env("BACKEND_ENDPOINT_TYPE", "api")
            .env("BACKEND_ACCESS_KEY", ADMIN_ACCESS_KEY)
            .env("BACKEND_SECRET_KEY", ADMIN_SECRET_KEY);
        run(&mut command, self.home.path(), COMMAND).await
    }
}
