//! An image layout on disk: its content, and what other programs read there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::Value;

use super::process::run;
use super::wait::PATIENCE;

/// Returns the digests of the blobs in a layout.
pub fn blobs(folder: &Path) -> BTreeSet<String> {
    let found = fs::read_dir(folder.join("blobs/sha256")).expect("blobs");
    found.map(|blob| format!("sha256:{}", blob.unwrap().file_name().into_string().unwrap())).collect()
}

/// Returns the sizes of the blobs that are being fetched, as far as they have come.
pub fn parts(folder: &Path) -> Vec<u64> {
    let found = fs::read_dir(folder.join(".wharf/parts")).expect("parts");
    found.filter_map(|part| Some(part.ok()?.metadata().ok()?.len())).collect()
}

/// Returns the head of a blob's answer, and its first bytes.
pub fn beginning(blob: &Bytes, length: usize) -> Bytes {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.len());
    [head.as_bytes(), &blob[..length]].concat().into()
}

/// The reference by which other programs find an image in a layout.
pub fn reference(folder: &Path, name: &str) -> String {
    format!("oci:{}:{name}", folder.display())
}

/// Returns skopeo's answer.
pub async fn skopeo(scratch: &Path, arguments: &[&str]) -> Value {
    let outcome = run(Command::new("skopeo").args(arguments), scratch, PATIENCE).await;
    assert_eq!(outcome.code, 0, "skopeo {arguments:?}: {}", outcome.text());
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stdout))
}
