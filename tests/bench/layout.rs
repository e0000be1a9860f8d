//! Copies a large image into a directory: with skopeo, and with a preload.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::report::{check, heading, median, milliseconds, note};
use super::support::app::App;
use super::support::image::{Built, Manifest, sha256};
use super::support::process::{on_path, run};
use super::support::registry::RealRegistry;

const LAYERS: usize = 4;
const LAYER_BYTES: usize = 256 * 1024 * 1024;
const ROUNDS: usize = 5;
/// Longest time for a copy; one that takes longer has stopped.
const COPY: Duration = Duration::from_mins(2);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub async fn measure() {
    heading(&format!(
        "layout: {LAYERS} layers of {} MiB of random bytes into a directory",
        LAYER_BYTES / 1024 / 1024
    ));
    if !on_path("skopeo") {
        return note("left out", "no skopeo");
    }
    let Some(registry) = RealRegistry::open().await else { return note("left out", "no registry") };
    registry.upload(&large(LAYERS, LAYER_BYTES)).await;
    let reference = format!("{}/lab/large:1", registry.host());
    let app = App::start_with(|command| {
        command.args(["--engine", "oci:images"]);
    })
    .await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    admin.agents_alive(1).await;
    let idle = app.peak_memory();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let times = if round % 2 == 0 {
            let skopeo = copy(app.launch().root(), &reference).await;
            (skopeo, preload(&app, &reference).await)
        } else {
            let wharf = preload(&app, &reference).await;
            (copy(app.launch().root(), &reference).await, wharf)
        };
        // The first round only brings the registry's files into the cache.
        if round > 0 {
            theirs.push(times.0);
            ours.push(times.1);
        }
    }
    note("skopeo copy", &milliseconds(median(&theirs)));
    note("preload_image, until its last event", &milliseconds(median(&ours)));
    let mut ratios: Vec<f64> =
        ours.iter().zip(&theirs).map(|(ours, theirs)| ours.div_duration_f64(*theirs)).collect();
    let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    note("ratio of each round", &shown.join(" "));
    ratios.sort_by(f64::total_cmp);
    check("preload over skopeo copy, median of the rounds", ratios[ROUNDS / 2], 1.0, "x");
    note("resident at most, before the first preload", &format!("{:.1} MiB", mebibytes(idle)));
    check("resident at most, ever", mebibytes(app.peak_memory()), 64.0, " MiB");
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).expect("less than 4 TiB")) / 1024.0
}

/// Copies the image with skopeo into a directory that is removed afterwards.
async fn copy(scratch: &Path, reference: &str) -> Duration {
    let folder = tempfile::tempdir_in(scratch).expect("a directory");
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{reference}")]);
    command.arg(format!("oci:{}:{reference}", folder.path().join("copy").display()));
    let started = Instant::now();
    let outcome = run(&mut command, scratch, COPY).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    started.elapsed()
}

/// Loads the image with a preload, and removes it afterwards.
async fn preload(app: &App, reference: &str) -> Duration {
    let admin = app.admin();
    let started = Instant::now();
    let (event, task) = admin.transfer_to_end("preload_image", reference, "*").await;
    let taken = started.elapsed();
    assert_eq!(event, "bgtask_done", "{task:#}");
    let (event, task) = admin.transfer_to_end("unload_image", reference, "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    taken
}

/// An image whose layers are gzip files already, and can't be made smaller: skopeo compresses layers that are not
/// compressed.
pub fn large(count: usize, bytes: usize) -> Built {
    let mut blobs: Vec<Bytes> = Vec::new();
    let mut diff_ids = Vec::new();
    for seed in 1..=count {
        let content = random(seed as u64, bytes);
        diff_ids.push(sha256(&content));
        blobs.push(gzip(&content));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"ai.backend.kernelspec": "1"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = Bytes::from(config.to_string());
    let descriptor = |kind: &str, blob: &Bytes| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(blob), "size": blob.len()});
    let layers: Vec<_> = blobs.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", &config), "layers": layers,
    });
    blobs.push(config);
    Built {
        repository: "lab/large".into(),
        tag: "1".into(),
        blobs,
        manifests: vec![Manifest::new(MANIFEST, &manifest)],
        parts: Vec::new(),
    }
}

/// Xorshift: each run gives the same bytes for a seed, but no byte follows from the one before.
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A gzip file of stored blocks (RFC 1951, 3.2.4; RFC 1952).
fn gzip(content: &[u8]) -> Bytes {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let last = content.len().div_ceil(65_535) - 1;
    for (position, block) in content.chunks(65_535).enumerate() {
        let length = u16::try_from(block.len()).expect("a block is short");
        file.push(u8::from(position == last));
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(block);
    }
    file.extend(crc32(content).to_le_bytes());
    file.extend(u32::try_from(content.len()).expect("less than 4 GiB").to_le_bytes());
    file.into()
}

fn crc32(content: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| (0..8).fold(byte, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }))
        .collect();
    !content.iter().fold(!0_u32, |crc, byte| table[((crc ^ u32::from(*byte)) & 255) as usize] ^ crc >> 8)
}
