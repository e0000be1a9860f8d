//! What all container engines under test share: a folder of their own, and a clean-up that leaves nothing behind.

use std::path::Path;
use std::process::Command;

use super::missing;
use super::process::on_path;

/// Whether these programs can run as an engine's daemon; reports what is missing.
pub fn can_run(programs: &[&str], package: &str) -> bool {
    for program in programs {
        if !on_path(program) {
            missing(program, &format!("apt-get install {package}"));
            return false;
        }
    }
    if !is_root() {
        missing(&format!("the right to run {}", programs[0]), "run the tests as root");
        return false;
    }
    true
}

/// Ends what a killed daemon leaves: processes with its folder in their command lines, and mounts below it.
pub fn sweep(folder: &Path) {
    for process in processes_below(folder) {
        let _ = Command::new("kill").args(["-9", &process]).status();
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The last mount must go first.
    let ours: Vec<_> = ours.filter(|place| Path::new(place).starts_with(folder)).collect();
    for place in ours.into_iter().rev() {
        let _ = Command::new("umount").args(["-l", place]).status();
    }
}

/// Shows the end of a daemon's log if the test has failed.
pub fn show_if_failed(name: &str, log: &str) {
    if std::thread::panicking() {
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        eprintln!("the end of {name}'s log, last line first:\n{}", tail.join("\n"));
    }
}

/// Whether an HTTP server behind a socket answers a ping with 200.
pub async fn pings(socket: &Path) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::UnixStream::connect(socket).await?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(std::time::Duration::from_secs(5), ask).await, Ok(Ok(true)))
}

/// Returns the IDs of processes whose command line names a path below this directory, which only our processes do,
/// except wharf, which is told where the socket is.
fn processes_below(folder: &Path) -> Vec<String> {
    let needle = format!("{}/", folder.display());
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().into_string().ok());
    ids.filter(|id| id.bytes().all(|b| b.is_ascii_digit()))
        .filter(|id| id.parse() != Ok(std::process::id()))
        .filter(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            line.contains(&needle) && program != env!("CARGO_BIN_EXE_wharf")
        })
        .collect()
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
