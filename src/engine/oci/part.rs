//! A partly fetched blob: a file in wharf's own folder, with the digest of its bytes so far.
//!
//! The part moves to the thread that writes and comes back. The right to work on this blob moves with it. So if a pull
//! gives up in between, no other one can write into the same file before the last write has ended.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::base::digest::Hasher;
use crate::engine::{
    fault::{Class, Fault},
    oci::{
        fetch::Turn,
        layout::{broken, settle},
        manifest::Blob,
    },
};

/// How many bytes of an earlier attempt are read again at a time.
const STEP: usize = 8 * 1024 * 1024;

/// A blob that is being fetched.
pub(crate) struct Part {
    blob: Blob,
    path: PathBuf,
    file: File,
    /// The digest so far, of the first `known` bytes.
    hasher: Hasher,
    known: u64,
    length: u64,
    is_resumed: bool,
    _turn: Turn,
}

impl Part {
    /// Opens the part, with the bytes of an earlier attempt if there are any.
    pub(crate) fn open(path: &Path, blob: &Blob, turn: Turn) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let hasher = blob.digest.hasher();
        let mut part = Self {
            blob: blob.clone(),
            path: path.into(),
            file,
            hasher,
            known: 0,
            length,
            is_resumed: length > 0,
            _turn: turn,
        };
        if length > blob.size {
            part.restart()?;
        }
        Ok(part)
    }

    /// Begins anew, with no bytes.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher = self.blob.digest.hasher();
        (self.known, self.length, self.is_resumed) = (0, 0, false);
        Ok(())
    }

    /// Reads the next [`STEP`] of an earlier attempt's bytes into the digest; false once all are read.
    pub(crate) fn recall(&mut self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        let step = u64::try_from(STEP).unwrap_or(u64::MAX).min(self.length - self.known);
        (&self.file).take(step).read_to_end(&mut bytes)?;
        self.hasher.update(&bytes);
        self.known += u64::try_from(bytes.len()).unwrap_or(0);
        if bytes.is_empty() {
            // Another program made the file shorter.
            self.length = self.known;
        }
        Ok(self.known < self.length)
    }

    /// Runs `work` on the part and gives it back. On a full disk the part is removed, to free the room for others.
    pub(crate) fn take_through<T>(
        mut self,
        work: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<(Self, T), Fault> {
        match work(&mut self) {
            Ok(done) => Ok((self, done)),
            Err(error) => {
                let fault = broken(&self.path, &error);
                if fault.class == Class::NoSpace {
                    let _ = self.discard();
                }
                Err(fault)
            }
        }
    }

    /// How many bytes are there.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// How many of them are in the digest.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Whether some of them are from an earlier attempt.
    pub(crate) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Appends these bytes.
    pub(crate) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.file.write_all(piece)?;
            self.hasher.update(piece);
            self.length += u64::try_from(piece.len()).unwrap_or(0);
        }
        self.known = self.length;
        Ok(())
    }

    /// Moves the part to its place among the blobs if its digest is right, durably if that is wanted; otherwise begins
    /// anew.
    pub(crate) fn keep(&mut self, place: &Path, is_durable: bool) -> io::Result<bool> {
        if self.length != self.blob.size || !self.hasher.matches(&self.blob.digest) {
            self.restart()?;
            return Ok(false);
        }
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        if is_durable {
            settle(&self.file, &self.path, place)?;
        } else {
            fs::rename(&self.path, place)?;
        }
        Ok(true)
    }

    /// Removes the part.
    pub(crate) fn discard(&mut self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
