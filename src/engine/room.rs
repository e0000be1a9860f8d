//! Room on a disk of this machine.

use std::path::PathBuf;

/// Free and total bytes of the disk a folder is on; nothing if we can't see it.
pub(crate) async fn of(folder: PathBuf) -> Option<(u64, u64)> {
    // A disk behind a network may keep us waiting.
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(folder)).await;
    let disk = asked.ok()?.ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}
