//! Repositories of registries, as sources for the engine that fetches by itself.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{Document, Flow, Source};
use crate::registry::client::Client;
use crate::registry::error::{Error, Reason};

/// One repository of this client's registry.
pub(crate) struct Repository {
    client: Client,
    name: String,
}

impl Repository {
    /// The repository of this name, without the registry's host.
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Self { client, name: name.into() }
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

#[async_trait]
impl Source for Repository {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        let fetched = self.client.manifest(&self.name, reference).await.map_err(|error| fault(&error))?;
        Ok(Document { media_type: fetched.media_type, bytes: fetched.bytes })
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        let opened = self.client.open_blob(&self.name, digest, size, from).await;
        let body = opened.map_err(|error| fault(&error))?;
        let from = body.from();
        let pieces = stream::unfold(Some(body), async |body| {
            let mut body = body?;
            match body.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(body))),
                Ok(None) => None,
                Err(error) => Some((Err(fault(&error)), None)),
            }
        });
        Ok(Flow { from, is_verified: false, pieces: pieces.boxed() })
    }
}

fn fault(error: &Error) -> Fault {
    let class = match error.reason {
        Reason::Unauthorized(_) | Reason::Forbidden => Class::Unauthorized,
        Reason::NotFound => Class::NotFound,
        _ if error.is_transient() => Class::Network,
        _ => Class::Other,
    };
    Fault::new(class, error.to_string())
}
