//! The room on a disk of this machine.

use std::path::PathBuf;

/// The free and the total bytes of the disk that a folder is on; `None` if we can't see it.
pub(crate) async fn of(folder: PathBuf) -> Option<(u64, u64)> {
    // A network disk may block for a while.
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(folder)).await;
    let disk = asked.ok()?.ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}
