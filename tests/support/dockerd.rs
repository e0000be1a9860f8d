//! A real Docker Engine (Debian's `docker.io`, of any release) in a directory of its own, beside any other on the
//! machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use wharf::engine::address::{EngineLocation, EngineUrl};
use wharf::engine::{EngineKind, docker::Docker};

use super::daemon::{pings, show_if_failed, sweep};
use super::process::{Outcome, Process, read, run};
use super::release::{Ground, Release};
use super::wait::until;

/// How long `dockerd` may take to start: it takes seconds, and several of them share two cores.
const START: Duration = Duration::from_mins(2);
/// How long one call of the command line may take.
const CALL: Duration = Duration::from_mins(2);

/// Docker up to 20.10 keeps its ID in `/etc/docker`, wherever its data is, so all daemons on a machine would share
/// one ID. This gives each a folder of its own there, in a mount namespace that ends with it.
const OWN_ETC: &str = r#"mkdir -p /etc/docker && mount --bind "$0" /etc/docker && exec dockerd "$@""#;

/// Where Docker keeps its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In its own store, the default up to release 28.
    Docker,
    /// In containerd's, the default of new installs from 29 on.
    Containerd,
}

/// A running `dockerd` with its own containerd. It has no bridge and no firewall rules, so its containers have no
/// network; images work as usual.
pub struct RealDocker {
    ground: Ground,
    release: Release,
    folder: TempDir,
    process: Option<Process>,
    arguments: Vec<String>,
}

impl RealDocker {
    /// Starts a fresh, empty one; `None` if that is not possible here (see [`missing`](super::missing)).
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with extra arguments.
    pub async fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::start_as(Release::Own, Store::Docker, arguments).await
    }

    /// Starts one of this release, with this store.
    pub async fn start_of(release: Release, store: Store) -> Option<Self> {
        Self::start_as(release, store, &[]).await
    }

    async fn start_as(release: Release, store: Store, arguments: &[&str]) -> Option<Self> {
        let ground = release.ground(&["dockerd", "docker", "containerd"], "docker.io").await?;
        // A socket's path may have 107 bytes, so the name is short.
        let folder = tempfile::Builder::new().prefix("wd-").tempdir().expect("a directory");
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        match store {
            Store::Docker => arguments.extend(["--storage-driver", "vfs"].map(String::from)),
            Store::Containerd => {
                let file = folder.path().join("daemon.json");
                let settings = r#"{"features": {"containerd-snapshotter": true}}"#;
                std::fs::write(&file, settings).expect("a configuration file");
                arguments.extend(["--config-file".to_owned(), file.display().to_string()]);
            }
        }
        let mut docker = Self { ground, release, folder, process: None, arguments };
        docker.restart().await;
        Some(docker)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Returns `unix:///…/docker.sock`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Returns the directory of its images.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// Returns wharf's client for it.
    pub fn engine(&self) -> Docker {
        Docker::new(&EngineUrl { kind: EngineKind::Docker, place: EngineLocation::Socket(self.socket()) })
            .expect("an engine")
    }

    /// Runs the `docker` command line on it.
    pub async fn docker(&self, arguments: &[&str]) -> Outcome {
        let process = self.process.as_ref().expect("a running dockerd").id();
        let mut command = self.ground.beside(process, "docker");
        command.args(["-H", &self.url()]).args(arguments);
        // Use neither the user's context nor the user's credentials.
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command.env("DOCKER_CONFIG", self.folder.path().join("config"));
        run(&mut command, self.folder.path(), CALL).await
    }

    /// Runs `docker`, which must succeed; returns its output.
    pub async fn docker_ok(&self, arguments: &[&str]) -> String {
        let outcome = self.docker(arguments).await;
        assert_eq!(outcome.code, 0, "docker {arguments:?}: {}", outcome.text());
        outcome.stdout
    }

    /// Returns the names in its containerd, which has them all with the store there, and none with Docker's own.
    pub async fn in_containerd(&self) -> Vec<String> {
        let process = self.process.as_ref().expect("a running dockerd").id();
        let mut command = self.ground.beside(process, "ctr");
        command.arg("-a").arg(self.folder.path().join("exec/containerd/containerd.sock"));
        let outcome = run(command.args(["-n", "moby", "images", "ls", "-q"]), self.folder.path(), CALL).await;
        assert_eq!(outcome.code, 0, "ctr: {}", outcome.text());
        outcome.stdout.lines().map(str::to_owned).collect()
    }

    /// Sends SIGKILL, as the kernel does when memory is short, to its containerd too: nothing of it stays behind.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        self.sweep();
    }

    /// Stops it as systemd does.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate();
            process.exit("dockerd", START).await;
        }
        self.sweep();
    }

    /// Starts it again, after [`kill9`](Self::kill9) or [`stop`](Self::stop) with the same data.
    pub async fn restart(&mut self) {
        self.kill9();
        let folder = self.folder.path();
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_file(folder.join("docker.pid"));
        // Where no process reaps it, a killed containerd stays a zombie, and dockerd would wait for it in vain.
        let _ = std::fs::remove_file(folder.join("exec/containerd/containerd.pid"));
        let mut command = self.command();
        command
            .arg("--data-root")
            .arg(self.data())
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("-p")
            .arg(folder.join("docker.pid"))
            .args(["-H", &self.url()])
            .args(["--iptables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false"])
            .args(&self.arguments);
        let log = folder.join("log");
        let mut process = Process::spawn(&mut command, &log, &log).expect("dockerd runs");
        let socket = self.socket();
        until("dockerd to answer", START, async || {
            assert!(process.ended().is_none(), "dockerd ended:\n{}", read(&log));
            pings(&socket).await.then_some(())
        })
        .await;
        self.process = Some(process);
    }

    /// Returns a command that becomes `dockerd`.
    fn command(&self) -> Command {
        let folder = self.folder.path();
        if self.release == Release::Own {
            let etc = folder.join("etc");
            std::fs::create_dir_all(&etc).expect("a directory");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", OWN_ETC]).arg(etc);
            return command;
        }
        let mut command = self.ground.command(folder, "dockerd");
        // It is on by default from release 27 on.
        command.arg("--ip6tables=false");
        command
    }

    /// Ends what a killed daemon leaves: its containerd and shims, and mounts below its directory.
    fn sweep(&self) {
        let folder = self.folder.path();
        sweep(folder);
        let namespaces = folder.join("exec/netns");
        for entry in std::fs::read_dir(namespaces).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg("-l").arg(entry.path()).status();
        }
    }
}

impl Drop for RealDocker {
    fn drop(&mut self) {
        show_if_failed("dockerd", &self.log());
        self.kill9();
    }
}
