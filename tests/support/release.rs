//! Debian releases, each with container engines of its time: the machine's own, and others in roots that
//! `tests/tools/engines.sh` makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::daemon::{can_run, is_root};
use super::missing;
use super::process::run;

/// Making a root takes a minute, and the tests that want the same one wait for it.
const MAKE: Duration = Duration::from_mins(10);

/// Enters a root in a mount namespace, with a folder that keeps its path, and becomes a program there.
///
/// Layers are unpacked by programs that change their mounts, so the root must be a mount itself. It is shared by all
/// engines of its release, so none may write to it. Its devices are its own, so none can change the machine's. All
/// mounts end with the last process in the namespace.
const ENTER: &str = r#"set -eu
root=$1 folder=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t devpts -o newinstance,ptmxmode=666,gid=5,mode=620 devpts "$root/dev/pts"
for place in dev/shm run tmp var/tmp; do mount -t tmpfs tmpfs "$root/$place"; done
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@""#;

/// A Debian release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The machine's own, whichever it is.
    Own,
    /// Debian 13: Docker 26.1, Podman 5.4, containerd 1.7.
    Trixie,
    /// What Debian has today: at least Docker 28, Podman 5.8, containerd 2.1.
    Sid,
}

impl Release {
    /// Returns where these programs of a package run; `None` if they can't (see [`missing`]).
    pub async fn ground(self, programs: &[&str], package: &str) -> Option<Ground> {
        let name = match self {
            Self::Own => return can_run(programs, package).then_some(Ground(None)),
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        };
        let part = format!("a root of Debian {name} with its engines");
        if !is_root() {
            missing(&part, "run the tests as root");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/engines.sh");
        let scratch = tempfile::tempdir().expect("a directory");
        let made = run(Command::new(script).arg(name), scratch.path(), MAKE).await;
        if made.code != 0 {
            missing(&part, made.stderr.trim());
            return None;
        }
        Some(Ground(Some(PathBuf::from(made.stdout.trim()))))
    }
}

/// What a program runs on: the machine itself, or a root of another release.
#[derive(Clone, Debug)]
pub struct Ground(Option<PathBuf>);

impl Ground {
    /// Returns a command that becomes this program, on a root in a mount namespace of its own. There it finds this
    /// folder under the same path, and nothing else that it could write to.
    pub fn command(&self, folder: &Path, program: &str) -> Command {
        let Some(root) = &self.0 else { return Command::new(program) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(root).arg(folder).arg(program);
        command
    }

    /// Returns a command that runs this program where that process runs.
    pub fn beside(&self, process: u32, program: &str) -> Command {
        if self.0.is_none() {
            return Command::new(program);
        }
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--root", "--wd", "--target", &process.to_string(), program]);
        command
    }
}
