//! A client of one registry, and the requests it makes.

pub(crate) mod blob;
mod list;
pub(crate) mod probe;

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use url::Url;

use crate::{
    base::{
        digest::Digest,
        docker_hub,
        reference::{is_repository, is_tag},
        secret::Secret,
    },
    registry::{
        address::{Policy, Resolver, SystemResolver},
        ask::{Ask, Failing},
        auth::Auth,
        config::MAX_CONFIG,
        error::{Error, Reason, visible},
        limits::ClientLimits,
        manifest::{self, MAX_MANIFEST},
        manners::Manners,
        outbound::Outbound,
        silence::Silence,
        transport::{HttpAnswer, Settings, Transport, error_code},
    },
};

/// Requests in flight at one registry, unless set otherwise.
const DEFAULT_CONCURRENCY: usize = 8;
/// Requests in flight at Docker Hub, which limits by address and not only by account.
const DOCKER_HUB_CONCURRENCY: usize = 3;
/// Largest answer to a ping, in bytes; it is mostly `{}`.
const MAX_PING: usize = 64 * 1024;
/// Largest config or other blob read into memory.
pub(crate) const MAX_BLOB: usize = MAX_CONFIG;

/// What the client must know about one registry.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The registry's name in the catalog, `cr.example.org:5000`.
    pub(crate) host: String,
    /// The registry's address: `https://…`, or `http://…` if the admin who added it said so.
    pub(crate) url: Url,
    /// The account, for private repositories and a larger quota.
    pub(crate) credentials: Option<Credentials>,
    /// False accepts any certificate from the registry's host and `trusted_hosts`, but never from another host.
    pub(crate) ssl_verify: bool,
    /// Certificates in PEM that may sign for those hosts, besides the system's.
    pub(crate) ca_pem: Option<String>,
    /// Hosts (`host` or `host:port`) an administrator approved as token realm or as target of redirects into private
    /// networks.
    pub(crate) trusted_hosts: Vec<String>,
    /// The most requests in flight, at least 1.
    pub(crate) concurrency: usize,
    /// Through which proxies it is reached.
    pub(crate) outbound: Arc<Outbound>,
    /// What was learned about it earlier.
    pub(crate) manners: Manners,
}

impl Remote {
    /// The number of requests in flight that suits the registry at this URL.
    pub(crate) fn concurrency_at(url: &Url) -> usize {
        if url.host_str().is_some_and(docker_hub::is_host) {
            DOCKER_HUB_CONCURRENCY
        } else {
            DEFAULT_CONCURRENCY
        }
    }
}

/// The account to use at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user name: `AWS`, a robot's name, …; without a colon, which Basic can't carry.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// A verified manifest, as the registry served it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The digest of the bytes: the one requested, else the one the registry states, else SHA-256.
    pub(crate) digest: Digest,
    /// The media type as served, or the manifest's own where the served one was generic; without parameters. May be
    /// empty.
    pub(crate) media_type: String,
    /// The bytes exactly as served, at most 4 MiB.
    pub(crate) bytes: Vec<u8>,
}

/// The names a registry listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    /// The names that follow the grammar, each once, in the order they came.
    pub(crate) good: Vec<String>,
    /// The first hundred names that break the grammar, made fit to show, and why.
    pub(crate) refused: Vec<(String, &'static str)>,
    /// How many names break the grammar in all.
    pub(crate) refused_count: usize,
}

impl Names {
    /// How many names break the grammar beyond those in `refused`.
    pub(crate) fn refused_unnamed(&self) -> u64 {
        u64::try_from(self.refused_count.saturating_sub(self.refused.len())).unwrap_or(u64::MAX)
    }
}

/// A client of one registry. Clones share connections, tokens, pauses and what was learned.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    base: Url,
    net: Transport,
    auth: Auth,
    is_docker_hub: bool,
}

impl Client {
    /// A client of this registry. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Reason::Misconfigured`]: a URL that is not http(s) or carries user info, an unreadable CA, a colon in the
    /// user name.
    pub(crate) fn new(remote: Remote) -> Result<Self, Error> {
        Self::with_resolver(remote, Arc::new(SystemResolver))
    }

    /// A client of this registry that resolves names with `resolver`.
    pub(crate) fn with_resolver(remote: Remote, resolver: Arc<dyn Resolver>) -> Result<Self, Error> {
        Self::with_limits(remote, resolver, ClientLimits::default())
    }

    /// A client of this registry with this resolver and these limits.
    pub(crate) fn with_limits(
        remote: Remote,
        resolver: Arc<dyn Resolver>,
        limits: ClientLimits,
    ) -> Result<Self, Error> {
        let host = remote.host.clone();
        Self::build(remote, resolver, limits).map_err(|reason| Error::new(&host, "settings", reason))
    }

    /// A client of another wharf that hands out images. It sends Basic authentication without being asked for it.
    pub(crate) fn of_peer(remote: Remote, limits: ClientLimits) -> Result<Self, Error> {
        let client = Self::with_limits(remote, Arc::new(SystemResolver), limits)?;
        client.0.auth.assume_basic();
        Ok(client)
    }

    fn build(remote: Remote, resolver: Arc<dyn Resolver>, limits: ClientLimits) -> Result<Self, Reason> {
        let base = base_url(&remote.url)?;
        let is_docker_hub = base.host_str().is_some_and(docker_hub::is_host);
        let net = Transport::new(Settings {
            host: &remote.host,
            policy: Arc::new(Policy::new(&base, &remote.trusted_hosts)),
            resolver,
            ssl_verify: remote.ssl_verify,
            ca_pem: remote.ca_pem.as_deref(),
            concurrency: remote.concurrency,
            outbound: remote.outbound,
            manners: remote.manners,
            limits,
        })?;
        let auth = Auth::new(remote.credentials)?;
        Ok(Self(Arc::new(Inner { base, net, auth, is_docker_hub })))
    }

    /// Asks whether this is a registry and accepts our credentials (`GET /v2/`).
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        let ask = self.ask("", MAX_PING, "ping".into())?;
        let answer = self.send(&ask, "").await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => {
                Err(self.fail(&ask, Reason::Invalid("there is no registry of version 2 at this URL".into())))
            }
            _ => Err(self.refusal(&ask, &answer)),
        }
    }

    /// Whether the registry answers at all, with whatever status.
    pub(crate) async fn answers(&self) -> bool {
        let Ok(mut ask) = self.ask("", MAX_PING, "ping".into()) else { return false };
        ask.failing = Failing::Nothing;
        let outcome = self.0.net.exchange(&ask, None).await;
        !matches!(outcome, Err(Error { reason: Reason::Unreachable(_) | Reason::Timeout(_), .. }))
    }

    /// Fetches the manifest of a tag or digest and verifies it.
    pub(crate) async fn manifest(&self, repository: &str, reference: &str) -> Result<Fetched, Error> {
        let ask = self.manifest_ask(repository, reference)?;
        let answer = self.send(&ask, &pull(repository)).await?;
        self.accept_manifest(&ask, reference, answer)
    }

    /// Removes a tag, and only the tag: what it points to stays, because other tags may point there too. Many
    /// registries can't do it (OCI distribution-spec, "Deleting tags": 400 or 405); nothing is deleted by digest
    /// instead.
    pub(crate) async fn untag(&self, repository: &str, tag: &str) -> Result<(), Error> {
        let mut ask = self.manifest_ask(repository, tag)?;
        ask.doing = format!("taking away {repository}:{}", visible(tag));
        if !is_tag(tag) {
            return Err(self.fail(&ask, Reason::Invalid("not a tag".into())));
        }
        ask.method = Method::DELETE;
        ask.accept = None;
        ask.counted = false;
        // A redirect of a deletion leads nowhere good, so none is followed.
        ask.redirects = 0;
        let answer = self.send(&ask, &format!("repository:{repository}:pull,push,delete")).await?;
        match answer.status {
            // Not found: an earlier attempt may have deleted the tag and its answer been lost.
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => {}
            _ => return Err(self.refusal(&ask, &answer)),
        }
        match self.manifest(repository, tag).await {
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                Err(self
                    .fail(&ask, Reason::Invalid("it was said to be done, and the tag is still there".into())))
            }
        }
    }

    /// Fetches a blob into memory: `size` bytes as its descriptor says, at most `cap` and [`MAX_BLOB`].
    pub(crate) async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        cap: usize,
    ) -> Result<Vec<u8>, Error> {
        self.check_repository(repository)?;
        let cap = cap.min(MAX_BLOB);
        let doing = format!("blob {} of {repository}", short(digest));
        let expected = usize::try_from(size).unwrap_or(usize::MAX);
        let ask = self.ask(&format!("{repository}/blobs/{digest}"), expected, doing)?;
        if expected > cap {
            let limit = u64::try_from(cap).unwrap_or(u64::MAX);
            return Err(self.fail(&ask, Reason::TooLarge { limit, what: "bytes" }));
        }
        let answer = self.send(&ask, &pull(repository)).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&ask, &answer));
        }
        if answer.body.len() != expected || !digest.matches(&answer.body) {
            let why = Reason::Invalid("the bytes are not what the digest and size say".into());
            return Err(self.fail(&ask, HttpAnswer::explained(&answer.headers, why)));
        }
        Ok(answer.body)
    }

    /// What the registry was found to take; worth storing for the next [`Remote`].
    pub(crate) fn manners(&self) -> Manners {
        self.0.net.manners.lock().known
    }

    /// Forgets what was learned a day ago or earlier.
    pub(crate) fn renew_manners(&self, now: Timestamp) {
        let known = &mut self.0.net.manners.lock().known;
        *known = known.at(now);
    }

    /// The request that has waited longest for an answer, if any waits.
    pub(crate) fn silence(&self) -> Option<Silence> {
        self.0.net.silence()
    }

    pub(in crate::registry) fn manifest_ask(&self, repository: &str, reference: &str) -> Result<Ask, Error> {
        self.check_repository(repository)?;
        let is_digest = reference.parse::<Digest>().is_ok();
        let separator = if is_digest { '@' } else { ':' };
        let doing = format!("manifest of {repository}{separator}{}", visible(reference));
        if !is_digest && !is_tag(reference) {
            return Err(self.0.net.error(&doing, Reason::Invalid("neither a tag nor a digest".into())));
        }
        let mut ask = self.ask(&format!("{repository}/manifests/{reference}"), MAX_MANIFEST, doing)?;
        ask.accept = Some(manifest::ACCEPT);
        ask.counted = true;
        Ok(ask)
    }

    pub(in crate::registry) fn accept_manifest(
        &self,
        ask: &Ask,
        reference: &str,
        answer: HttpAnswer,
    ) -> Result<Fetched, Error> {
        if answer.status != StatusCode::OK {
            return Err(self.refusal(ask, &answer));
        }
        let fetched = verify(reference, answer.body, &answer.headers)
            .map_err(|reason| self.fail(ask, HttpAnswer::explained(&answer.headers, reason)))?;
        self.note_tag(&answer.headers, &fetched.digest);
        Ok(fetched)
    }

    /// Sends a request with the authorization its scope needs. After a 401 it tries once more with fresh
    /// authorization.
    async fn send(&self, ask: &Ask, scope: &str) -> Result<HttpAnswer, Error> {
        let Inner { net, auth, .. } = &*self.0;
        let shown = auth.show(net, scope).await?;
        let answer = net.exchange(ask, shown.header()).await?;
        // Only the registry itself may ask for credentials; a host it redirects to may not.
        if answer.status != StatusCode::UNAUTHORIZED || !net.policy.is_home(&answer.url) {
            return auth.trust(shown, answer.status, answer);
        }
        let fresh = auth.answer(net, &ask.doing, &answer.headers, scope, shown).await?;
        net.exchange(ask, Some(&fresh)).await
    }

    fn ask(&self, path: &str, cap: usize, doing: String) -> Result<Ask, Error> {
        let url = self.0.base.join("v2/").and_then(|v2| v2.join(path));
        let url = url.map_err(|_| self.0.net.error(&doing, Reason::Invalid("it makes no URL".into())))?;
        Ok(Ask {
            method: Method::GET,
            url,
            accept: None,
            if_none_match: None,
            from: None,
            cap,
            redirects: self.0.net.limits.redirects,
            failing: Failing::Again,
            within: false,
            form: None,
            header_deadline: self.0.net.limits.headers,
            counted: false,
            doing,
        })
    }

    fn check_repository(&self, repository: &str) -> Result<(), Error> {
        if is_repository(repository) {
            return Ok(());
        }
        let doing = format!("repository {}", visible(repository));
        Err(self.0.net.error(&doing, Reason::Invalid("not a repository name".into())))
    }

    fn fail(&self, ask: &Ask, reason: Reason) -> Error {
        self.0.net.error(&ask.doing, reason)
    }

    /// Turns an unwelcome status into an error.
    fn refusal(&self, ask: &Ask, answer: &HttpAnswer) -> Error {
        // The body of an answer from another host is never used.
        let code = if self.0.net.policy.is_home(&answer.url) { error_code(&answer.body) } else { None };
        let reason = match (answer.status.as_u16(), code) {
            (401, _) => Reason::Unauthorized("it may need other credentials, or not exist"),
            (403, _) => Reason::Forbidden,
            // Where the registry sends us elsewhere for something, it has it.
            (404, _) if self.0.net.policy.is_home(&answer.url) => Reason::NotFound,
            (status, code) => Reason::Status { status, code },
        };
        self.fail(ask, reason)
    }
}

fn base_url(url: &Url) -> Result<Url, Reason> {
    let misconfigured = |why: &str| Err(Reason::Misconfigured(why.into()));
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return misconfigured("the URL must be http://… or https://…");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return misconfigured("leave user name and password out of the URL");
    }
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", url.path()));
    }
    Ok(base)
}

/// The scope of all reads in a repository.
fn pull(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

fn short(digest: &Digest) -> &str {
    digest.as_str().get(..19).unwrap_or(digest.as_str())
}

/// The `Docker-Content-Digest`, if the answer has one that can be compared. A header that is empty or names no digest
/// counts as missing.
fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

/// Checks a manifest against everything that was stated about it.
fn verify(reference: &str, bytes: Vec<u8>, headers: &HeaderMap) -> Result<Fetched, Reason> {
    let stated = stated_digest(headers);
    let requested = reference.parse::<Digest>().ok();
    let says = |digest: &Option<Digest>| digest.as_ref().is_none_or(|digest| digest.matches(&bytes));
    if !says(&requested) {
        return Err(Reason::Invalid("the bytes are not what the requested digest says".into()));
    }
    if !says(&stated) {
        return Err(Reason::Invalid("the bytes are not what Docker-Content-Digest says".into()));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type =
        manifest::type_of(content_type, &bytes).map_err(|error| Reason::Invalid(error.to_string()))?;
    let digest = requested.or(stated).unwrap_or_else(|| Digest::sha256_of(&bytes));
    Ok(Fetched { digest, media_type, bytes })
}
