//! The clocks of a server's process, which a test moves while it runs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What every process sees that is given [`Clocks::shown_to`].
pub struct Clocks {
    folder: TempDir,
    file: File,
    ahead: i64,
    passed: i64,
}

impl Clocks {
    /// As they are. A C compiler makes what stands before the C library's; whoever builds wharf has one, for it links.
    pub fn real() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clock/clock.c");
        let library = library(folder.path());
        let made =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(made.expect("cc runs").success(), "the clocks do not compile");
        fs::write(setting(folder.path()), [0; 16]).expect("a file");
        let file = File::options().write(true).open(setting(folder.path())).expect("a file");
        Self { folder, file, ahead: 0, passed: 0 }
    }

    /// A change that makes a command run by these clocks.
    pub fn shown_to(&self) -> impl Fn(&mut Command) + Send + Sync + 'static + use<> {
        let (library, setting) = (library(self.folder.path()), setting(self.folder.path()));
        move |command| {
            command.env("LD_PRELOAD", &library).env("CLOCK_FILE", &setting);
        }
    }

    /// Somebody sets the time of day.
    pub fn set(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.write();
    }

    /// The time of day is right again: what is signed is dated by that.
    pub fn set_right(&mut self) {
        self.ahead = 0;
        self.write();
    }

    /// Time passes, by all clocks.
    pub fn pass(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.passed += seconds;
        self.write();
    }

    fn write(&self) {
        let both = [self.ahead.to_ne_bytes(), self.passed.to_ne_bytes()].concat();
        self.file.write_all_at(&both, 0).expect("a file that can be written");
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("clock.so")
}

fn setting(folder: &Path) -> PathBuf {
    folder.join("clock")
}
