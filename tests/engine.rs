//! Container engines as wharf sees them, tested with real ones. This file has what only Docker Engine does.

mod containerd;
mod podman;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wharf::engine::address::EngineUrl;
use wharf::engine::docker::Docker;
use wharf::engine::fault::{Class, Fault};
use wharf::engine::pull::{Progress, Pull, Pulled};
use wharf::engine::{Engine, EngineKind};

use crate::support::dockerd::RealDocker;
use crate::support::image::{Built, Image};
use crate::support::missing;
use crate::support::process::on_path;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// Returns the pull of a pushed image through this host.
fn pull_of(host: &str, built: &Built) -> Pull {
    let part = built.part("x86_64");
    Pull {
        repository: format!("{host}/{}", built.repository),
        tag: built.tag.clone(),
        manifest: Some(part.manifest.parse().unwrap()),
        index: (built.digest() != part.manifest).then(|| built.digest().parse().unwrap()),
        config: part.config.parse().unwrap(),
        architecture: "x86_64".into(),
        platform: None,
        layers: Vec::new(),
        credentials: None,
        source: None,
        via: None,
    }
}

/// Pulls; returns the outcome with all reported progress, which must only go forward.
async fn run(engine: &dyn Engine, pull: &Pull) -> (Result<Pulled, Fault>, Vec<Progress>) {
    let seen = Mutex::new(Vec::new());
    let outcome = engine.pull(pull, &|now| seen.lock().push(now), &CancellationToken::new()).await;
    let seen: Vec<Progress> = seen.into_inner();
    for two in seen.windows(2) {
        assert!(
            two[0].bytes_done <= two[1].bytes_done && two[0].layers_done <= two[1].layers_done,
            "{two:?}"
        );
    }
    assert!(
        seen.iter().all(|p| p.bytes_done <= p.bytes_total && p.layers_done <= p.layers_total),
        "{seen:?}"
    );
    (outcome, seen)
}

fn lab_image(tag: &str) -> Image {
    Image::new("lab/python", tag).real_layers(2, 100_000)
}

#[tokio::test]
async fn docker_tells_its_id_and_its_labels() {
    let Some(node) = RealDocker::start_with(&["--label", "zone=a", "--label", "gpu="]).await else { return };
    let engine = node.engine();
    let about = engine.about().await.unwrap();
    assert_eq!((about.kind, about.os.as_str()), (EngineKind::Docker, "linux"));
    assert_eq!(about.architecture, std::env::consts::ARCH);
    assert!(about.id.as_ref().is_some_and(|id| id.len() > 10) && !about.hostname.is_empty(), "{about:?}");
    assert!(about.version.starts_with(|c: char| c.is_ascii_digit()), "{about:?}");
    let labels: Vec<_> = about.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("gpu", ""), ("zone", "a")]);

    let disk = engine.disk().await.unwrap();
    let (free, total) = (disk.free_bytes.unwrap(), disk.total_bytes.unwrap());
    assert!(0 < free && free < total && disk.images_bytes == 0, "{disk:?}");
    assert_eq!(engine.images().await.unwrap(), []);
}

/// Returns the number of entries in a folder; 0 if there is no such folder.
fn entries(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test]
async fn stopping_a_pull_leaves_nothing_in_docker() {
    let (Some(registry), Some(node)) = (RealRegistry::open().await, RealDocker::start().await) else {
        return;
    };
    let image = Image::new("lab/big", "1").real_layers(8, 4_000_000);
    let built = registry.push(&image).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let (engine, pull) = (Arc::new(node.engine()), pull_of(&proxy.host(), &built));
    // All but the layers pass.
    let stop = CancellationToken::new();
    let run = {
        let (engine, pull, stop) = (Arc::clone(&engine), pull.clone(), stop.clone());
        let seen = Arc::new(Mutex::new(Progress::default()));
        let told = Arc::clone(&seen);
        let task = tokio::spawn(async move { engine.pull(&pull, &|now| *told.lock() = now, &stop).await });
        (task, seen)
    };
    proxy.delay(Duration::from_millis(300));
    let layers = || proxy.log().iter().filter(|exchange| exchange.is_blob()).count();
    until("the first layers", PATIENCE, async || (layers() >= 4).then_some(())).await;
    proxy.hold();
    until("progress", PATIENCE, async || (run.1.lock().bytes_done > 0).then_some(())).await;
    assert!(!run.0.is_finished() && entries(&node.data().join("tmp")) > 0);
    stop.cancel();
    let fault = run.0.await.unwrap().unwrap_err();
    assert_eq!(fault.class, Class::Stopped);

    until("dockerd to give up", PATIENCE, async || node.log().contains("context canceled").then_some(()))
        .await;
    // Docker still requests the layers in its queue, but discards them and those it had.
    proxy.behave();
    let leftovers =
        || entries(&node.data().join("tmp")) + entries(&node.data().join("image/vfs/layerdb/sha256"));
    until("no download and no layer to be left, and none to come", PATIENCE, async || {
        if leftovers() > 0 {
            return None;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        (leftovers() == 0).then_some(())
    })
    .await;
    assert_eq!(engine.images().await.unwrap(), [], "the engine goes on pulling");
    // The image can be pulled again.
    assert_eq!(
        engine.pull(&pull, &|_| (), &CancellationToken::new()).await.unwrap().held.digest,
        pull.config
    );
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full() {
    let (Some(registry), Some(disk)) = (RealRegistry::open().await, small_disk()) else { return };
    let Some(node) = RealDocker::start_with(&["--data-root", disk.path()]).await else { return };
    let built = registry.push(&Image::new("lab/big", "1").real_layers(1, 40_000_000)).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    let room = engine.disk().await.unwrap();
    assert!(room.total_bytes.unwrap() <= 32_000_000, "{room:?}");
    let fault = run(&engine, &pull).await.0.unwrap_err();
    assert_eq!(fault.class, Class::NoSpace, "{fault}");
    assert_eq!(engine.images().await.unwrap(), []);
}

/// Returns 30 MB of memory as a disk; `None` if mounting is not allowed.
fn small_disk() -> Option<SmallDisk> {
    let folder = tempfile::Builder::new().prefix("wm-").tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=30m", "tmpfs"])
        .arg(folder.path())
        .status();
    if mount.is_ok_and(|status| status.success()) {
        return Some(SmallDisk(folder));
    }
    missing("the right to mount", "run the tests as root");
    None
}

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn two_engines_on_a_machine_are_two() {
    let Some(registry) = RealRegistry::open().await else { return };
    let (Some(one), Some(other)) = tokio::join!(RealDocker::start(), RealDocker::start()) else { return };
    let built = registry.push(&lab_image("1")).await;
    let pull = pull_of(registry.host(), &built);
    let (one, other) = (one.engine(), other.engine());
    assert_ne!(one.about().await.unwrap().id, other.about().await.unwrap().id);
    run(&one, &pull).await.0.unwrap();
    assert_eq!(one.images().await.unwrap().len(), 1);
    assert_eq!(other.images().await.unwrap(), []);
}

/// Makes a CA, and certificates from it for an engine and for a client, as in Docker's manual.
fn certificates(folder: &std::path::Path) {
    let script = r#"set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem
        issue() {
            openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$2key.pem" -out csr.pem
            printf "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=$3\n" > ext
            openssl x509 -req -days 2 -in csr.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial \
                -extfile ext -out "$2cert.pem"
        }
        issue engine server- serverAuth
        issue client "" clientAuth"#;
    let made = std::process::Command::new("sh").arg("-c").arg(script).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn an_engine_behind_tls_wants_our_certificate() {
    if !on_path("openssl") {
        missing("openssl", "apt-get install openssl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    // dockerd can't choose a port itself. This range is below that of ports the system assigns.
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let from = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let port = (from..32_000).find(is_free).expect("a free port");
    let host = format!("tcp://127.0.0.1:{port}");
    let (ca, cert, key) = (file("ca.pem"), file("server-cert.pem"), file("server-key.pem"));
    let arguments = ["-H", &host, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]
        .map(String::from);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let Some(_node) = RealDocker::start_with(&arguments).await else { return };

    let url = EngineUrl::parse(&host, Some(folder.path())).unwrap();
    let engine = Docker::new(&url).unwrap();
    assert_eq!(engine.about().await.unwrap().kind, EngineKind::Docker);
    let disk = engine.disk().await.unwrap();
    assert_eq!(disk.free_bytes, None, "another machine's disk can't be seen from here");
    let mut events = engine.events().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), events.next()).await.is_err());

    let plain = Docker::new(&EngineUrl::parse(&host, None).unwrap()).unwrap();
    assert!(plain.about().await.is_err());
    let empty = tempfile::tempdir().unwrap();
    let url = EngineUrl::parse(&host, Some(empty.path())).unwrap();
    let fault = Docker::new(&url).err().unwrap();
    assert!(fault.message.contains("ca.pem"), "{fault}");
    // A CA that did not sign the engine's certificate.
    certificates(empty.path());
    let fault = Docker::new(&url).unwrap().about().await.unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.message.contains("certificate"), "{fault}");
}
