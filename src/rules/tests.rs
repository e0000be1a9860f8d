//! Helpers that the tests of rules share.

use std::sync::Arc;

use crate::access::visibility::Subject;
use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::catalog::image::{Config, ConfigRecord, Image, ImageRecord};
use crate::catalog::labels::{LabelKeys, Labels};

/// The set of these numbers.
pub(in crate::rules) fn bits(numbers: &[usize]) -> Bits {
    let mut bits = Bits::default();
    for number in numbers {
        bits.insert(*number);
    }
    bits
}

/// The image `cr.lab/NAME:TAG` of 100 bytes; its digest is made from that name and the architecture.
pub(in crate::rules) fn image(name: &str, architecture: &str) -> Arc<Image> {
    let (name, tag) = name.split_once(':').unwrap();
    let digest = |of: &str| Digest::sha256_of(format!("{of} {name}:{tag} {architecture}").as_bytes());
    let record = ImageRecord {
        registry: "cr.lab".into(),
        name: name.into(),
        tag: tag.into(),
        architecture: architecture.into(),
        digest: digest("config"),
        manifest: digest("manifest"),
        target: digest("manifest"),
        size_bytes: 100,
    };
    let config = ConfigRecord {
        architecture: architecture.into(),
        os: "linux".into(),
        created: None,
        labels: Labels::default(),
        diff_ids: Vec::new(),
    };
    let subject = Subject { registry: 0, number: 0, is_operation: false, owner: None };
    Arc::new(Image::new(record, Arc::new(Config::new(config, &LabelKeys::default())), subject, Vec::new()))
}
