//! Where a tag points, asked by the cheapest request that the registry answers. Each cheaper request has a plainer one
//! behind it, which decides where the cheaper one is refused, in whatever way.

use reqwest::{
    Method, StatusCode,
    header::{ETAG, HeaderMap, HeaderValue},
};

use crate::{
    base::digest::Digest,
    registry::{
        ask::Failing,
        client::{Client, Fetched, pull, stated_digest},
        error::{Error, Reason},
        manners::{Cheaper, ProbeMode},
        transport::HttpAnswer,
    },
};

/// The result of [`Client::probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The tag points to the same digest as before.
    Unchanged,
    /// The tag now points to this digest.
    Moved(Digest),
    /// The tag now points to this manifest.
    Fetched(Fetched),
}

impl Client {
    /// Asks with one cheap request whether a tag still points to `known`. The answers show which request is cheapest
    /// here. [`Reason::NotFound`] is the answer to a plain GET.
    pub(crate) async fn probe(&self, repository: &str, tag: &str, known: &Digest) -> Result<Probe, Error> {
        match self.probe_mode() {
            ProbeMode::Head => self.probe_by_head(repository, tag, known).await,
            ProbeMode::Get => self.probe_by_get(repository, tag, known).await,
            ProbeMode::Unknown | ProbeMode::Conditional => {
                self.probe_conditionally(repository, tag, known).await
            }
        }
    }

    /// The cheapest way to probe tags here, as far as it is known. Whether a 304 counts as a pull at Docker Hub is not
    /// documented; HEAD is documented not to.
    pub(in crate::registry) fn probe_mode(&self) -> ProbeMode {
        if self.0.is_docker_hub { ProbeMode::Head } else { self.0.net.manners.lock().known.probe }
    }

    async fn probe_conditionally(&self, repository: &str, tag: &str, known: &Digest) -> Result<Probe, Error> {
        let mut ask = self.manifest_ask(repository, tag)?;
        // One value only: `distribution` compares the whole line.
        ask.if_none_match = HeaderValue::from_str(&format!("\"{known}\"")).ok();
        ask.failing = Failing::Plainer;
        let Some(answer) = unless_refused(self.send(&ask, &pull(repository)).await)? else {
            let probe = self.probe_by_get(repository, tag, known).await?;
            self.doubt(ProbeMode::Head);
            return Ok(probe);
        };
        if answer.status == StatusCode::NOT_MODIFIED {
            self.learn(ProbeMode::Conditional);
            return Ok(Probe::Unchanged);
        }
        let fetched = self.accept_manifest(&ask, tag, answer)?;
        if fetched.digest == *known {
            // The registry ignores conditions. Any other method is cheaper.
            self.learn(ProbeMode::Head);
            return Ok(Probe::Unchanged);
        }
        Ok(Probe::Fetched(fetched))
    }

    async fn probe_by_head(&self, repository: &str, tag: &str, known: &Digest) -> Result<Probe, Error> {
        let mut ask = self.manifest_ask(repository, tag)?;
        ask.method = Method::HEAD;
        ask.counted = false;
        ask.failing = Failing::Plainer;
        let answer = unless_refused(self.send(&ask, &pull(repository)).await)?;
        let is_refused = answer.is_none();
        let stated = answer.and_then(|answer| stated_digest(&answer.headers));
        if let Some(digest) = stated {
            self.0.net.manners.lock().was_answered(Cheaper::Probe);
            return Ok(if digest == *known { Probe::Unchanged } else { Probe::Moved(digest) });
        }
        let probe = self.probe_by_get(repository, tag, known).await?;
        if is_refused {
            self.doubt(ProbeMode::Get);
        } else {
            self.learn(ProbeMode::Get);
        }
        Ok(probe)
    }

    async fn probe_by_get(&self, repository: &str, tag: &str, known: &Digest) -> Result<Probe, Error> {
        let fetched = self.manifest(repository, tag).await?;
        // The registry may name the same bytes by a different algorithm.
        let same = fetched.digest == *known || known.matches(&fetched.bytes);
        Ok(if same { Probe::Unchanged } else { Probe::Fetched(fetched) })
    }

    /// Probes so from now on, for this is how an answer came.
    fn learn(&self, mode: ProbeMode) {
        let mut manners = self.0.net.manners.lock();
        manners.was_answered(Cheaper::Probe);
        manners.known.probe = mode;
    }

    /// Probes so from now on if a cheaper request is refused once more, as it was now.
    fn doubt(&self, plainer: ProbeMode) {
        let mut manners = self.0.net.manners.lock();
        if manners.was_refused(Cheaper::Probe) {
            manners.known.probe = plainer;
        }
    }

    /// Notes that a registry whose `ETag` is the digest promises to answer conditional requests.
    pub(in crate::registry) fn note_tag(&self, headers: &HeaderMap, digest: &Digest) {
        let tag = headers.get(ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.probe_mode() == ProbeMode::Unknown
            && tag.trim_start_matches("W/").trim_matches('"') == digest.as_str()
        {
            self.learn(ProbeMode::Conditional);
        }
    }
}

/// The answer to a request that a registry need not know; `None` where it is refused. A refusal says nothing about the
/// tag: some registries answer 404 to every HEAD.
fn unless_refused(outcome: Result<HttpAnswer, Error>) -> Result<Option<HttpAnswer>, Error> {
    match outcome {
        Ok(answer) => {
            Ok(Some(answer).filter(|a| matches!(a.status, StatusCode::OK | StatusCode::NOT_MODIFIED)))
        }
        Err(Error { reason: Reason::Unauthorized(_) | Reason::Forbidden, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
