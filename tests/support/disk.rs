//! A disk that is soon full.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A small file system, which is removed when this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a small file system; `None` if mounting is not allowed.
    pub fn mount(place: PathBuf, mebibytes: usize) -> Option<Self> {
        fs::create_dir(&place).expect("a place to mount");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "wharf-test"])
            .arg(&place)
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(place))
    }

    /// Fills all the room.
    pub fn fill(&self) {
        let filler = fs::File::create(self.0.join("filler")).expect("a file");
        let block = vec![0; 4096];
        while std::io::Write::write_all(&mut &filler, &block).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
