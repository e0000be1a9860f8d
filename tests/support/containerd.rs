//! A real containerd (Debian's `containerd`, of any release) with its CRI, in a directory of its own.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use wharf::engine::address::{EngineLocation, EngineUrl};
use wharf::engine::cri::Cri;
use wharf::engine::{Engine as _, EngineKind};

use super::daemon::{show_if_failed, sweep};
use super::process::{Outcome, Process, read, run};
use super::release::{Ground, Release};
use super::wait::until;

const START: Duration = Duration::from_mins(1);
const CALL: Duration = Duration::from_mins(1);

/// A running `containerd`.
pub struct RealContainerd {
    ground: Ground,
    release: Release,
    folder: TempDir,
    process: Option<Process>,
    /// Extra lines for its configuration.
    settings: String,
}

impl RealContainerd {
    /// Starts a fresh, empty one; `None` if that is not possible here (see [`super::missing`]).
    pub async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// Starts one with extra lines at the head of its configuration.
    pub async fn start_with(settings: &str) -> Option<Self> {
        Self::start_as(Release::Own, settings).await
    }

    /// Starts one of this release.
    pub async fn start_of(release: Release) -> Option<Self> {
        Self::start_as(release, "").await
    }

    async fn start_as(release: Release, settings: &str) -> Option<Self> {
        let ground = release.ground(&["containerd", "ctr"], "containerd").await?;
        let folder = tempfile::Builder::new().prefix("wc-").tempdir().expect("a directory");
        let mut containerd = Self { ground, release, folder, process: None, settings: settings.to_owned() };
        containerd.restart().await;
        Some(containerd)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    /// Returns `cri:///…/c.sock`.
    pub fn url(&self) -> String {
        format!("cri://{}", self.socket().display())
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// Returns wharf's client for it.
    pub fn engine(&self) -> Cri {
        let url = EngineUrl { kind: EngineKind::Containerd, place: EngineLocation::Socket(self.socket()) };
        Cri::new(&url).expect("an engine")
    }

    /// Runs `ctr` in the namespace that Kubernetes sees.
    pub async fn ctr(&self, arguments: &[&str]) -> Outcome {
        let process = self.process.as_ref().expect("a running containerd").id();
        let mut command = self.ground.beside(process, "ctr");
        command.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(arguments);
        run(&mut command, self.folder.path(), CALL).await
    }

    /// Runs `ctr`, which must succeed; returns its output.
    pub async fn ctr_ok(&self, arguments: &[&str]) -> String {
        let outcome = self.ctr(arguments).await;
        assert_eq!(outcome.code, 0, "ctr {arguments:?}: {}", outcome.text());
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
        self.process.as_ref().expect("a running containerd").signal(name);
    }

    /// Starts it again, after [`kill9`](Self::kill9) with the same data.
    pub async fn restart(&mut self) {
        self.kill9();
        let (file, log) = (self.folder.path().join("config.toml"), self.folder.path().join("log"));
        std::fs::write(&file, self.config()).expect("a configuration file");
        let mut command = self.ground.command(self.folder.path(), "containerd");
        command.arg("-c").arg(file);
        let mut process = Process::spawn(&mut command, &log, &log).expect("containerd runs");
        let engine = self.engine();
        let is_without_cri = self.settings.contains("disabled_plugins");
        until("containerd to answer", START, async || {
            assert!(process.ended().is_none(), "containerd ended:\n{}", read(&log));
            match engine.images().await {
                Ok(_) => Some(()),
                Err(fault) => (is_without_cri && fault.message.contains("disabled_plugins")).then_some(()),
            }
        })
        .await;
        self.process = Some(process);
    }

    /// Returns its configuration, in the form that its release reads.
    fn config(&self) -> String {
        let (folder, settings) = (self.folder.path().display(), &self.settings);
        let (version, cri) = match self.release {
            Release::Own | Release::Trixie => {
                let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
                let images = format!(
                    "[{cri}]\nstats_collect_period = 1\n[{cri}.containerd]\nsnapshotter = \"native\"\n"
                );
                (2, format!("{images}[{cri}.cni]\nconf_dir = \"{folder}/cni\"\n"))
            }
            // containerd 2 made two plugins of one. For "native" it would want to be told how to unpack, too.
            Release::Sid => {
                let cri = "plugins.\"io.containerd.cri.v1";
                let images = format!("[{cri}.images\"]\nstats_collect_period = 1\n");
                (3, format!("{images}[{cri}.runtime\".cni]\nconf_dir = \"{folder}/cni\"\n"))
            }
        };
        format!(
            "version = {version}\n\
             root = \"{folder}/root\"\n\
             state = \"{folder}/state\"\n\
             {settings}\n\
             [grpc]\n\
             address = \"{folder}/c.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = \"{folder}/opt\"\n\
             {cri}"
        )
    }
}

impl Drop for RealContainerd {
    fn drop(&mut self) {
        show_if_failed("containerd", &self.log());
        self.kill9();
    }
}
