//! A real Podman (Debian's `podman`, of any release) behind its Docker-compatible API, in a directory of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::{pings, show_if_failed, sweep};
use super::process::{Outcome, Process, read, run};
use super::release::{Ground, Release};
use super::wait::until;

const START: Duration = Duration::from_mins(1);
const CALL: Duration = Duration::from_mins(1);

/// Registries on this machine have no certificates.
const REGISTRIES: &str = "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n";
/// By default every Podman on the machine would share the locks.
const SETTINGS: &str = "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\n";

/// A running `podman system service`.
pub struct RealPodman {
    ground: Ground,
    folder: TempDir,
    process: Option<Process>,
}

impl RealPodman {
    /// Starts a fresh, empty one; `None` if that is not possible here (see [`super::missing`]).
    pub async fn start() -> Option<Self> {
        Self::start_of(Release::Own).await
    }

    /// Starts one of this release.
    pub async fn start_of(release: Release) -> Option<Self> {
        let ground = release.ground(&["podman", "crun"], "podman crun").await?;
        let folder = tempfile::Builder::new().prefix("wp-").tempdir().expect("a directory");
        std::fs::write(folder.path().join("registries.conf"), REGISTRIES).expect("a configuration file");
        std::fs::write(folder.path().join("containers.conf"), SETTINGS).expect("a configuration file");
        std::fs::write(folder.path().join("auth.json"), "{}").expect("a file of credentials");
        let mut podman = Self { ground, folder, process: None };
        podman.restart().await;
        Some(podman)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    /// Returns `podman+unix:///…/podman.sock`.
    pub fn url(&self) -> String {
        format!("podman+unix://{}", self.socket().display())
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// Adds to a command that runs `podman` where its store is and how it works.
    fn on_its_store(&self, mut command: Command) -> Command {
        let folder = self.folder.path();
        for (option, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(folder.join(name));
        }
        command
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .env("CONTAINERS_REGISTRIES_CONF", folder.join("registries.conf"))
            .env("CONTAINERS_CONF", folder.join("containers.conf"))
            // Use neither the user's credentials nor the user's settings.
            .env("HOME", folder)
            .env("REGISTRY_AUTH_FILE", folder.join("auth.json"));
        command
    }

    /// Runs the `podman` command line on its store.
    pub async fn podman(&self, arguments: &[&str]) -> Outcome {
        let process = self.process.as_ref().expect("a running podman").id();
        let mut command = self.on_its_store(self.ground.beside(process, "podman"));
        run(command.args(arguments), self.folder.path(), CALL).await
    }

    /// Runs `podman`, which must succeed; returns its output.
    pub async fn podman_ok(&self, arguments: &[&str]) -> String {
        let outcome = self.podman(arguments).await;
        assert_eq!(outcome.code, 0, "podman {arguments:?}: {}", outcome.text());
        outcome.stdout
    }

    /// Sends SIGKILL, as the kernel does when memory is short.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        sweep(self.folder.path());
    }

    /// Sends any signal by name.
    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("a running podman").signal(name);
    }

    /// Starts it again, after [`kill9`](Self::kill9) with the same data.
    pub async fn restart(&mut self) {
        self.kill9();
        let _ = std::fs::remove_file(self.socket());
        let log = self.folder.path().join("log");
        let address = format!("unix://{}", self.socket().display());
        let mut command = self.on_its_store(self.ground.command(self.folder.path(), "podman"));
        command.args(["system", "service", "--time=0", &address]);
        let mut process = Process::spawn(&mut command, &log, &log).expect("podman runs");
        let socket = self.socket();
        until("podman to answer", START, async || {
            assert!(process.ended().is_none(), "podman ended:\n{}", read(&log));
            pings(&socket).await.then_some(())
        })
        .await;
        self.process = Some(process);
    }
}

impl Drop for RealPodman {
    fn drop(&mut self) {
        show_if_failed("podman", &self.log());
        self.kill9();
    }
}
