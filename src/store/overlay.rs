//! An overlay over a file that is only read: writes stay in memory. So a database can be opened as a server would open
//! it, including the recovery and the writes on closing, while the file stays as it is.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::store::disk::{BLOCK, Disk};

type Block = [u8; BLOCK];

/// The file, and the writes kept in memory.
#[derive(Debug)]
pub(in crate::store) struct Overlay {
    file: Disk,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// The blocks that were written, by number.
    blocks: BTreeMap<u64, Box<Block>>,
    length: u64,
    /// The length up to which the file's bytes count; bytes that were cut off do not come back.
    of_file: u64,
}

impl Written {
    /// Whether no byte of this range has changed from the file.
    fn is_of_file(&self, offset: u64, end: u64) -> bool {
        let touched = offset / BLOCK as u64..end.div_ceil(BLOCK as u64);
        end <= self.of_file && self.blocks.range(touched).next().is_none()
    }
}

impl Overlay {
    pub(in crate::store) fn new(file: Disk) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, written: Mutex::new(Written { blocks: BTreeMap::new(), length, of_file: length }) })
    }

    fn block(&self, written: &Written, number: u64) -> io::Result<Box<Block>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = Box::new([0; BLOCK]);
        let start = number * BLOCK as u64;
        let there = usize::try_from(written.of_file.saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK);
        if let Some(part) = block.get_mut(..there).filter(|part| !part.is_empty()) {
            self.file.read(start, part)?;
        }
        Ok(block)
    }
}

/// Splits a range into its blocks: each block's number, where the range begins in it, and its length there.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (offset, length);
    std::iter::from_fn(move || {
        let within = usize::try_from(at % BLOCK as u64).unwrap_or_default();
        let (number, taken) = (at / BLOCK as u64, left.min(BLOCK - within));
        (at, left) = (at + taken as u64, left - taken);
        (taken > 0).then_some((number, within, taken))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().length)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= written.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if written.is_of_file(offset, end) {
            drop(written);
            return self.file.read(offset, out);
        }
        for (number, within, length) in parts(offset, out.len()) {
            let block = self.block(&written, number)?;
            let (part, rest) = out.split_at_mut(length);
            part.copy_from_slice(block.get(within..within + length).unwrap_or_default());
            out = rest;
        }
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let end = offset + data.len() as u64;
        for (number, within, length) in parts(offset, data.len()) {
            let mut block = self.block(&written, number)?;
            let (part, rest) = data.split_at(length);
            block.get_mut(within..within + length).unwrap_or_default().copy_from_slice(part);
            written.blocks.insert(number, block);
            data = rest;
        }
        written.length = written.length.max(end);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        if length < written.length {
            let (last, kept) =
                (length / BLOCK as u64, usize::try_from(length % BLOCK as u64).unwrap_or_default());
            written.blocks.retain(|number, _| *number <= last);
            if let Some(block) = written.blocks.get_mut(&last) {
                block.get_mut(kept..).unwrap_or_default().fill(0);
            }
            written.of_file = written.of_file.min(length);
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::StorageBackend as _;

    use super::Overlay;
    use crate::store::disk::{BLOCK, Disk};

    /// Does the same to an overlay and to a plain list of bytes, again and again, by a fixed sequence of numbers.
    #[test]
    fn it_is_a_file_to_whoever_writes_it_and_the_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let whole: Vec<u8> = (0..3 * BLOCK + 100).map(|n| u8::try_from(n % 251).unwrap()).collect();
        fs::write(&path, &whole).unwrap();
        let overlay = Overlay::new(Disk::open_to_read(&path).unwrap()).unwrap();
        let mut expected = whole.clone();
        let mut state = 7_usize;
        let mut number = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..2000 {
            if round % 5 == 0 {
                let length = number(6 * BLOCK);
                overlay.set_len(length as u64).unwrap();
                expected.resize(length, 0);
            } else if !expected.is_empty() {
                let start = number(expected.len());
                let bytes = vec![u8::try_from(round % 256).unwrap(); number(expected.len() - start + 1)];
                overlay.write(start as u64, &bytes).unwrap();
                expected[start..start + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(overlay.len().unwrap(), expected.len() as u64);
            let mut found = vec![0; expected.len()];
            overlay.read(0, &mut found).unwrap();
            assert!(found == expected, "round {round}");
            if let Some(start) = expected.len().checked_sub(1 + number(expected.len().max(1))) {
                let mut found = vec![0; expected.len() - start];
                overlay.read(start as u64, &mut found).unwrap();
                assert!(found == expected[start..], "round {round}");
            }
            assert!(overlay.read(expected.len() as u64, &mut [0]).is_err());
        }
        assert!(fs::read(&path).unwrap() == whole, "the file was written");
    }
}
