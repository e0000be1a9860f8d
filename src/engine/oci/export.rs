//! The export of the directory: the parts of images that are whole.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::digest::Digest;
use crate::engine::{
    export::LocalExport,
    fault::Fault,
    oci::{contents::Contents, fetch::blocking, layout::broken},
};

/// The directory as a [`LocalExport`].
pub(crate) struct Kept(pub(crate) Arc<Contents>);

#[async_trait]
impl LocalExport for Kept {
    async fn parts(&self, image: &Digest) -> Result<HashMap<Digest, u64>, Fault> {
        let (contents, image) = (Arc::clone(&self.0), image.clone());
        blocking(move || contents.parts(&image)).await
    }

    async fn open(&self, part: &Digest) -> Result<Option<(File, u64)>, Fault> {
        let (contents, path) = (Arc::clone(&self.0), self.0.layout.blob(part));
        blocking(move || {
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
            match opened {
                Ok((about, file)) if about.is_file() => Ok(Some((file, about.len()))),
                Ok(_) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(broken(contents.layout.root(), &error)),
            }
        })
        .await
    }
}
