//! The clocks of a server's process, which a test can change while the server runs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The clocks of every process that is given [`Clocks::shown_to`].
pub struct Clocks {
    folder: TempDir,
    file: File,
    ahead: i64,
    passed: i64,
}

impl Clocks {
    /// Returns unchanged clocks. A C compiler builds what overrides the C library's clocks; every machine that builds
    /// wharf has one, because it links.
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

    /// Returns a change to a command that makes it run by these clocks.
    pub fn shown_to(&self) -> impl Fn(&mut Command) + Send + Sync + 'static + use<> {
        let (library, setting) = (library(self.folder.path()), setting(self.folder.path()));
        move |command| {
            command.env("LD_PRELOAD", &library).env("CLOCK_FILE", &setting);
        }
    }

    /// Sets the time of day, as a person would.
    pub fn set(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.write();
    }

    /// Sets the time of day right again, because signatures are dated by it.
    pub fn set_right(&mut self) {
        self.ahead = 0;
        self.write();
    }

    /// Lets time pass on all clocks.
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
