//! The directory: an OCI image layout (image-spec v1.1, image-layout.md), and `.wharf` in it for data of wharf alone.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};
use crate::engine::oci::index::Index;

/// The file that marks a directory as a layout, and says of which version.
const MARK: &str = "oci-layout";
const VERSION: &str = "1.0.0";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs";
/// The folder of wharf alone: the lock, the directory's identity, and the blobs that are being fetched.
const OURS: &str = ".wharf";
const PARTS: &str = "parts";
/// The largest `index.json` that is read, in bytes. A name takes half a kilobyte.
const MAX_INDEX: u64 = 64 * 1024 * 1024;
/// The largest manifest that is read, in bytes: as large as registries accept.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// The directory, locked for this process alone.
pub(crate) struct Layout {
    root: PathBuf,
    /// The directory's identity, whatever path it has now.
    pub(crate) identity: Identity,
    _lock: File,
}

/// The identity of the directory, kept in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Made once, and never changed.
    pub(crate) id: Uuid,
    /// The name that the directory had when it was made.
    pub(crate) name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

impl Layout {
    /// Locks the directory, and makes a layout of it if it is new or empty.
    ///
    /// # Errors
    /// A path that is no directory, or one that belongs to another program, can't be written to, or is in use. The
    /// message says what to do about it.
    pub(crate) fn open(root: &Path) -> Result<Self, Fault> {
        let fail = |why: &str| Fault::new(Class::Other, format!("{}: {why}", root.display()));
        match fs::metadata(root) {
            Ok(found) if !found.is_dir() => return Err(fail("not a directory; name one, or a new one")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Images are only for users who may see them. An operator who wants other programs to read them changes
                // the mode.
                let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
                made.map_err(|error| unwritable(root, &error))?;
            }
            Err(error) => return Err(broken(root, &error)),
        }
        let is_layout = match fs::read(root.join(MARK)) {
            Ok(bytes) => {
                let mark: Option<Mark> = serde_json::from_slice(&bytes).ok();
                if mark.is_none_or(|mark| mark.image_layout_version != VERSION) {
                    return Err(fail(
                        "an OCI image layout of another version than 1.0.0; name another directory",
                    ));
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(broken(&root.join(MARK), &error)),
        };
        if !is_layout && holds_others(root)? {
            return Err(fail("not an OCI image layout, and not empty; name an empty or a new directory"));
        }
        let ours = root.join(OURS);
        fs::create_dir_all(ours.join(PARTS)).map_err(|error| unwritable(root, &error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(ours.join("lock"))
            .map_err(|error| unwritable(root, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(fail(
                    "another wharf uses this directory, or it was named twice; name another one",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(broken(&ours.join("lock"), &error)),
        }
        let identity = identity(root)?;
        let layout = Self { root: root.into(), identity, _lock: lock };
        layout.complete().map_err(|error| unwritable(root, &error))?;
        // Reported now, not at the first pull.
        layout.index()?;
        Ok(layout)
    }

    /// Makes what a layout must have and this one lacks. The mark comes last, since it says that the rest is there.
    fn complete(&self) -> io::Result<()> {
        fs::create_dir_all(self.root.join(BLOBS).join("sha256"))?;
        if !self.root.join(INDEX).try_exists()? {
            self.put_index(&Index::default())?;
        }
        if !self.root.join(MARK).try_exists()? {
            let mark = Mark { image_layout_version: VERSION.into() };
            self.put(&self.root.join(MARK), &serde_json::to_vec(&mark)?)?;
        }
        Ok(())
    }

    /// The path of the directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The names in this layout, read from disk each time, since other programs may write to it too.
    pub(crate) fn index(&self) -> Result<Index, Fault> {
        let path = self.root.join(INDEX);
        let bytes = read_bounded(&path, MAX_INDEX).map_err(|error| broken(&path, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            let why = "mend it, or move the directory away to start anew";
            Fault::new(Class::Other, format!("{}: no index of images, at {place}; {why}", path.display()))
        })
    }

    /// Writes the names.
    pub(crate) fn put_index(&self, index: &Index) -> io::Result<()> {
        self.put(&self.root.join(INDEX), &serde_json::to_vec(index)?)
    }

    /// The path of a blob, whether it exists or not.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.algorithm()).join(digest.hex())
    }

    /// The path of a blob while it is being fetched.
    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.parts().join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// Whether a blob of this size is here. Its digest was checked before it got its name.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> bool {
        self.size_of(digest) == Some(size)
    }

    /// The size of a blob in bytes, if it is here.
    pub(crate) fn size_of(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob(digest)).ok().filter(fs::Metadata::is_file).map(|found| found.len())
    }

    /// Reads a blob that is a document.
    pub(crate) fn document(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        read_bounded(&self.blob(digest), MAX_MANIFEST)
    }

    /// Writes a small blob.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let place = self.blob(digest);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        self.put(&place, bytes)
    }

    /// Writes a file so that it is there whole or not at all, even after a power cut.
    fn put(&self, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let beside = self.root.join(OURS).join(format!("{}.new", Uuid::new_v4()));
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            settle(&file, &beside, place)
        });
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Every blob: its digest, its size in bytes, and when it was written.
    pub(crate) fn blobs(&self) -> io::Result<Vec<(Digest, u64, SystemTime)>> {
        let mut found = Vec::new();
        for algorithm in fs::read_dir(self.root.join(BLOBS))? {
            let algorithm = algorithm?;
            if !algorithm.file_type()?.is_dir() {
                continue;
            }
            let named = algorithm.file_name();
            for (hex, size, written) in files(&algorithm.path())? {
                // Files with other names belong to other programs and stay.
                if let Ok(digest) = format!("{}:{hex}", named.to_string_lossy()).parse() {
                    found.push((digest, size, written));
                }
            }
        }
        Ok(found)
    }

    /// Every partly fetched blob: its digest, the bytes that are there, and when the last of them came.
    pub(crate) fn begun(&self) -> io::Result<Vec<(Digest, u64, SystemTime)>> {
        let parts = files(&self.parts())?.into_iter();
        Ok(parts
            .filter_map(|(name, size, written)| {
                Some((name.replacen('-', ":", 1).parse().ok()?, size, written))
            })
            .collect())
    }

    fn parts(&self) -> PathBuf {
        self.root.join(OURS).join(PARTS)
    }

    /// The free and the total bytes of the disk that it is on.
    pub(crate) fn room(&self) -> io::Result<(u64, u64)> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }
}

/// Moves a finished file to its place durably: first the bytes, then the name.
pub(crate) fn settle(file: &File, from: &Path, place: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, place)?;
    place.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A fault for an error of the file system, with the path.
pub(crate) fn broken(path: &Path, error: &io::Error) -> Fault {
    let class = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::NoSpace,
        _ => Class::Other,
    };
    Fault::new(class, format!("{}: {error}", path.display()))
}

fn unwritable(root: &Path, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Fault::new(
            Class::Other,
            format!(
                "{}: can't be written to ({error}); let wharf's user write there, or name another directory",
                root.display()
            ),
        ),
        _ => broken(root, error),
    }
}

/// Whether there is anything here but wharf's own folder and what file systems put into theirs.
fn holds_others(root: &Path) -> Result<bool, Fault> {
    let entries = fs::read_dir(root).map_err(|error| broken(root, &error))?;
    let is_ours = |name: &OsStr| name == OURS || name == "lost+found";
    // A first start that was cut short leaves an index alone.
    let is_begun = root.join(OURS).is_dir();
    let begun = |name: &OsStr| is_begun && (name == INDEX || name == BLOBS);
    for entry in entries {
        let name = entry.map_err(|error| broken(root, &error))?.file_name();
        if !is_ours(&name) && !begun(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the directory's identity, or makes it the first time. Its name is the directory's own, so that several on one
/// machine can be told apart, or the machine's if the directory has none.
fn identity(root: &Path) -> Result<Identity, Fault> {
    let path = root.join(OURS).join("engine.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
            let why = "it does not say who keeps this directory; remove it to be a new agent";
            Fault::new(Class::Other, format!("{}: {why}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_else(hostname);
            let identity = Identity { id: Uuid::new_v4(), name };
            let beside = path.with_extension("json.new");
            let bytes = serde_json::to_vec(&identity).unwrap_or_default();
            fs::write(&beside, bytes)
                .and_then(|()| settle(&File::open(&beside)?, &beside, &path))
                .map_err(|error| unwritable(root, &error))?;
            Ok(identity)
        }
        Err(error) => Err(broken(&path, &error)),
    }
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn files(folder: &Path) -> io::Result<Vec<(String, u64, SystemTime)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The file may have been moved to its place since the listing.
        if let Ok(about) = entry.metadata()
            && about.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, about.len(), about.modified()?));
        }
    }
    Ok(found)
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large to be what it should"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
