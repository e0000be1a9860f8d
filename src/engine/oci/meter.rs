//! The progress of a pull, blob by blob.

use std::collections::HashMap;

use crate::base::digest::Digest;
use crate::engine::oci::manifest::{Blob, Manifest};
use crate::engine::pull::Progress;

/// Adds up the bytes that are there. No number decreases, even if a blob has to be begun anew.
pub(crate) struct Meter {
    blobs: HashMap<Digest, Row>,
    shown: Progress,
}

struct Row {
    size: u64,
    done: u64,
    is_layer: bool,
    is_whole: bool,
}

impl Meter {
    /// The meter at the start. The config counts in bytes, but not as a layer.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let row = |blob: &Blob, is_layer| {
            (blob.digest.clone(), Row { size: blob.size, done: 0, is_layer, is_whole: false })
        };
        let config = std::iter::once(row(&manifest.config, false));
        let blobs: HashMap<_, _> =
            config.chain(manifest.layers.iter().map(|layer| row(layer, true))).collect();
        let layers = blobs.values().filter(|row| row.is_layer).count();
        let shown = Progress {
            bytes_total: blobs.values().fold(0, |sum, row| sum.saturating_add(row.size)),
            layers_total: u32::try_from(layers).unwrap_or(u32::MAX),
            ..Progress::default()
        };
        Self { blobs, shown }
    }

    /// Records that this many bytes of a blob are there, and whether it is whole.
    pub(crate) fn at(&mut self, blob: &Digest, done: u64, is_whole: bool) -> Progress {
        if let Some(row) = self.blobs.get_mut(blob) {
            row.done = row.done.max(done).min(row.size);
            row.is_whole |= is_whole;
        }
        let shown = &mut self.shown;
        shown.bytes_done = self.blobs.values().fold(0, |sum, row| sum.saturating_add(row.done));
        let whole = self.blobs.values().filter(|row| row.is_layer && row.is_whole).count();
        shown.layers_done = u32::try_from(whole).unwrap_or(u32::MAX);
        shown.message = format!("{} of {} layers", shown.layers_done, shown.layers_total);
        shown.clone()
    }

    /// The progress when all bytes are there.
    pub(crate) fn finish(mut self, message: &str) -> Progress {
        self.shown.bytes_done = self.shown.bytes_total;
        self.shown.layers_done = self.shown.layers_total;
        message.clone_into(&mut self.shown.message);
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;
    use crate::base::digest::Digest;
    use crate::engine::oci::manifest::{Blob, Manifest};

    #[test]
    fn a_layer_that_is_there_twice_counts_once_and_no_number_goes_back() {
        let blob = |name: &str, size| Blob { digest: Digest::sha256_of(name.as_bytes()), size };
        let (base, top) = (blob("base", 100), blob("top", 50));
        let manifest =
            Manifest { config: blob("config", 10), layers: vec![base.clone(), top.clone(), base.clone()] };
        let mut meter = Meter::new(&manifest);
        let begun = meter.at(&base.digest, 60, false);
        assert_eq!((begun.bytes_done, begun.bytes_total), (60, 160));
        assert_eq!((begun.layers_done, begun.layers_total), (0, 2));
        assert_eq!(meter.at(&base.digest, 0, false).bytes_done, 60, "begun anew");
        assert_eq!(meter.at(&base.digest, 1000, true).bytes_done, 100);
        assert_eq!(meter.at(&top.digest, 50, true).layers_done, 2);
        assert_eq!(meter.finish("done").bytes_done, 160);
    }
}
