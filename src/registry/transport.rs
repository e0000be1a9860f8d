//! One request to a registry: deadlines, redirects, size limits, pauses and retries.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{
    Method, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
        IF_NONE_MATCH, LOCATION, RANGE,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use url::Url;

use crate::base::error::find_cause;
use crate::registry::{
    address::{Filtered, Policy, Refused, Resolver, same_origin},
    ask::{Ask, Failing},
    error::{Error, Reason, is_transient_status, visible},
    limits::ClientLimits,
    manners::{Learning, Manners},
    outbound::Outbound,
    pace::{Pace, Pause},
    retry,
    silence::{Silence, Waits},
    tls,
};

/// The names of content codings that compress (RFC 9110, 8.4.1, and their registry).
const CODINGS: [&str; 8] = ["gzip", "x-gzip", "deflate", "br", "compress", "x-compress", "zstd", "dcb"];
/// How many bytes of an error's body are read to find its OCI code.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// Bodies larger than this are held one at a time. Few honest answers are this large besides pages of many thousand
/// names.
const LARGE: usize = 1024 * 1024;
/// Idle connections are closed after this long; a scan's connections are never idle this long.
const POOL_IDLE: Duration = Duration::from_mins(1);
/// The answer to a request.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The URL the answer came from, after redirects.
    pub(crate) url: Url,
    /// The permit to hold a large body. Its holder must drop it before sending another request.
    pub(crate) _turn: Option<OwnedSemaphorePermit>,
}

/// An answer whose body is still to come, if it is a success; any other answer is complete.
pub(crate) enum Opened {
    Coming { status: StatusCode, response: reqwest::Response, url: Url },
    Whole(HttpAnswer),
}

impl Opened {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Coming { status, .. } | Self::Whole(HttpAnswer { status, .. }) => *status,
        }
    }
}

/// The connections to one registry, and the rules on where it may redirect us.
pub(crate) struct Transport {
    http: reqwest::Client,
    pub(crate) policy: Arc<Policy>,
    pub(crate) limits: ClientLimits,
    pub(crate) pace: Pace,
    /// What the registry was found to take.
    pub(crate) manners: Mutex<Learning>,
    host: String,
    slots: Semaphore,
    /// Held with a body larger than [`LARGE`] until the body is parsed, so that memory holds one such body in all
    /// rather than one per slot.
    large: Arc<Semaphore>,
    waits: Waits,
}

/// The head of an answer did not arrive in time.
const NO_ANSWER: Reason = Reason::Timeout("no response headers");

/// A try that failed, and what it says about the next one.
struct FailedTry {
    reason: Reason,
    again: Again,
}

enum Again {
    Never,
    AfterBackoff,
    /// The registry asked all clients to wait.
    AfterPause(Option<Duration>),
}

impl FailedTry {
    fn final_(reason: Reason) -> Self {
        Self { reason, again: Again::Never }
    }
}

/// The settings of a [`Transport`].
pub(crate) struct Settings<'a> {
    pub(crate) host: &'a str,
    pub(crate) policy: Arc<Policy>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) ssl_verify: bool,
    pub(crate) ca_pem: Option<&'a str>,
    pub(crate) concurrency: usize,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) manners: Manners,
    pub(crate) limits: ClientLimits,
}

impl Transport {
    /// Makes a transport. It opens no connection yet.
    ///
    /// # Errors
    /// [`Reason::Misconfigured`] for a CA that can't be read.
    pub(crate) fn new(settings: Settings<'_>) -> Result<Self, Reason> {
        let Settings { host, policy, resolver, ssl_verify, ca_pem, concurrency, outbound, manners, limits } =
            settings;
        let tls = tls::client_config(policy.own_names(), ssl_verify, ca_pem)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(Filtered { policy: policy.clone(), resolver, outbound: outbound.clone() }))
            // Redirects are followed by hand, so that each hop is checked.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // The HTTP library's own reading of the environment would send requests for this machine to a proxy.
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| outbound.of(url)))
            .retry(reqwest::retry::never())
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(concurrency.max(1))
            .build()
            .map_err(|error| Reason::Misconfigured(root_cause(&error)))?;
        Ok(Self {
            http,
            policy,
            limits,
            pace: Pace::default(),
            host: host.into(),
            slots: Semaphore::new(concurrency.max(1)),
            large: Arc::new(Semaphore::new(1)),
            manners: Mutex::new(Learning::new(manners)),
            waits: Waits::default(),
        })
    }

    /// Makes an error about this registry.
    pub(crate) fn error(&self, doing: &str, reason: Reason) -> Error {
        Error::new(&self.host, doing, reason)
    }

    /// The request that has waited longest for an answer, if any waits.
    pub(crate) fn silence(&self) -> Option<Silence> {
        self.waits.longest(self.limits.silent)
    }

    /// Sends the request, with retries if necessary, and reads the answer. `authorization` goes only to the request's
    /// own origin. Every status counts as an answer, except one that means passing trouble.
    pub(crate) async fn exchange(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<HttpAnswer, Error> {
        self.with_retries(ask, || self.attempt(ask, authorization)).await
    }

    /// Sends the request as [`Transport::exchange`] does, but leaves the body of a success to the caller, who may
    /// read it for as long as it comes.
    pub(crate) async fn open(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<Opened, Error> {
        self.with_retries(ask, || self.attempt_to_open(ask, authorization)).await
    }

    /// Tries again for as long as that may help.
    async fn with_retries<T, F>(&self, ask: &Ask, try_it: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, FailedTry>>,
    {
        let (mut attempt, mut silent) = (1, 0);
        loop {
            let failed = match try_it().await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let wait = retry::wait(self.limits.backoff, attempt);
            silent += u32::from(failed.reason == NO_ANSWER);
            let last = attempt >= self.limits.attempts || silent >= self.limits.silent;
            match failed.again {
                Again::AfterBackoff if ask.failing == Failing::Nothing => {
                    return Err(self.error(&ask.doing, failed.reason));
                }
                Again::Never => return Err(self.error(&ask.doing, failed.reason)),
                Again::AfterPause(asked) => {
                    let unasked = retry::wait(self.limits.unasked_pause, attempt);
                    // "Retry-After: 0" is still a refusal; asking again at once would only bring the next one.
                    let until = self.pace.hold(asked.unwrap_or(unasked).max(wait));
                    if last {
                        let reason = match failed.reason {
                            Reason::RateLimited { .. } => Reason::RateLimited { until },
                            other => other,
                        };
                        return Err(self.error(&ask.doing, reason));
                    }
                }
                Again::AfterBackoff if last => return Err(self.error(&ask.doing, failed.reason)),
                Again::AfterBackoff => tokio::time::sleep(wait).await,
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<HttpAnswer, FailedTry> {
        let _slot = self.turn(ask).await?;
        let whole = async {
            let (url, response) = self.follow(ask, authorization).await?;
            self.receive(ask, url, response).await
        };
        match timeout(self.limits.total, whole).await {
            // This try has used up the time for a whole answer; once is enough.
            Err(_) => Err(FailedTry::final_(Reason::Timeout("the whole answer took too long"))),
            Ok(outcome) => outcome.and_then(|answer| judge(ask, answer)),
        }
    }

    /// Holds a slot only until the head has come. The caller bounds how many bodies come at once: they take hours,
    /// and a scan must not wait for them.
    async fn attempt_to_open(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Opened, FailedTry> {
        let _slot = self.turn(ask).await?;
        let (url, response) = self.follow(ask, authorization).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Opened::Coming { status, response, url });
        }
        self.receive(ask, url, response).await.and_then(|answer| judge(ask, answer)).map(Opened::Whole)
    }

    /// Returns the next piece of a body; `None` after the last.
    pub(crate) async fn piece(
        &self,
        url: &Url,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, Reason> {
        match timeout(self.limits.idle, response.chunk()).await {
            Err(_) => Err(Reason::Timeout("the body stopped coming")),
            Ok(outcome) => outcome.map_err(|error| self.failed_try(url, &error).reason),
        }
    }

    /// Waits until a short pause is over and a slot is free. It gives the slot back during the pause.
    async fn turn(&self, ask: &Ask) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, FailedTry> {
        loop {
            // The semaphore is never closed, so this is always a permit.
            let slot = self.slots.acquire().await.ok();
            let Some(pause) = self.pace.pending(ask.counted) else { return Ok(slot) };
            drop(slot);
            if pause.left() > self.limits.short_wait {
                return Err(FailedTry::final_(Reason::RateLimited { until: pause }));
            }
            tokio::time::sleep(pause.left()).await;
        }
    }

    /// Sends the request and follows its redirects.
    async fn follow(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Url, reqwest::Response), FailedTry> {
        let mut url = ask.url.clone();
        let mut authorization = authorization;
        for hop in 0.. {
            self.policy.admit(&url).map_err(FailedTry::final_)?;
            let response = self.send(ask, &url, authorization).await?;
            if !is_redirect(response.status()) {
                return Ok((url, response));
            }
            if hop >= ask.redirects {
                break;
            }
            let next = redirect_target(&url, response.headers()).map_err(FailedTry::final_)?;
            if ask.within && !same_origin(&url, &next) {
                let host = visible(next.host_str().unwrap_or_default());
                let why =
                    format!("it redirects to {host}, where nothing of it may go; set the address behind it");
                return Err(FailedTry::final_(Reason::Invalid(why)));
            }
            // Once dropped, the header stays dropped, even if a later hop leads back.
            authorization = authorization.filter(|_| same_origin(&url, &next));
            url = next;
        }
        let why = if ask.redirects == 0 {
            "it redirects, which is not followed here"
        } else {
            "too many redirects"
        };
        Err(FailedTry::final_(Reason::Invalid(why.into())))
    }

    async fn send(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, FailedTry> {
        // Decompression is never worthwhile here (manifests and configs are small), and a compressed body may be a
        // bomb.
        let mut request = self
            .http
            .request(ask.method.clone(), url.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(tag) = &ask.if_none_match {
            request = request.header(IF_NONE_MATCH, tag);
        }
        if let Some(form) = &ask.form {
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            request = request.header(CONTENT_TYPE, form_type).body(form.expose().to_owned());
        }
        if let Some(from) = ask.from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        // The deadline is for the whole head: a byte now and then, or one `100 Continue` after another, does not
        // count as an answer.
        let _waiting = self.waits.begin(ask);
        match timeout(ask.header_deadline, request.send()).await {
            Err(_) => Err(FailedTry { reason: NO_ANSWER, again: Again::AfterBackoff }),
            Ok(Err(error)) => Err(self.failed_try(url, &error)),
            Ok(Ok(response)) => {
                if same_origin(url, self.policy.home()) {
                    self.pace.note_quota(response.headers());
                }
                Ok(response)
            }
        }
    }

    async fn receive(
        &self,
        ask: &Ask,
        url: Url,
        mut response: reqwest::Response,
    ) -> Result<HttpAnswer, FailedTry> {
        let (status, headers) = (response.status(), response.headers().clone());
        let (body, turn) = if ask.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            (Vec::new(), None)
        } else if status.is_success() {
            self.read(&url, &mut response, ask.cap).await?
        } else {
            (self.read_error(&mut response).await, None)
        };
        Ok(HttpAnswer { status, headers, body, url, _turn: turn })
    }

    /// Reads a body of at most `cap` bytes; never holds more than that plus one network buffer.
    async fn read(
        &self,
        url: &Url,
        response: &mut reqwest::Response,
        cap: usize,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), FailedTry> {
        let limit = u64::try_from(cap).unwrap_or(u64::MAX);
        let too_large = || FailedTry::final_(Reason::TooLarge { limit, what: "bytes" });
        if response.content_length().is_some_and(|declared| declared > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut turn = None;
        loop {
            if body.len() > LARGE && turn.is_none() {
                turn = Arc::clone(&self.large).acquire_owned().await.ok();
                // Reserved in one step: a body that doubles as it grows is in memory twice.
                body.reserve_exact(cap - body.len());
            }
            match timeout(self.limits.idle, response.chunk()).await {
                Err(_) => {
                    let reason = Reason::Timeout("the body stopped coming");
                    return Err(FailedTry { reason, again: Again::AfterBackoff });
                }
                Ok(Err(error)) => return Err(self.failed_try(url, &error)),
                Ok(Ok(None)) => {
                    body.shrink_to_fit();
                    return Ok((body, turn));
                }
                Ok(Ok(Some(chunk))) if chunk.len() > cap - body.len() => return Err(too_large()),
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// Reads what quickly arrives of an error's body; it only makes a message more precise.
    async fn read_error(&self, response: &mut reqwest::Response) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = timeout(self.limits.idle, response.chunk()).await {
            let room = MAX_ERROR_BODY - body.len();
            body.extend(chunk.iter().take(room));
            if chunk.len() >= room {
                break;
            }
        }
        body
    }

    /// Sorts a failure of the HTTP client: our refusal, the certificate's fault, or the network's.
    fn failed_try(&self, url: &Url, error: &reqwest::Error) -> FailedTry {
        if let Some(Refused(reason)) = find_cause(error) {
            return FailedTry::final_(reason.clone());
        }
        if let Some(tls) = find_cause::<rustls::Error>(error) {
            return FailedTry::final_(Reason::Tls(tls::explain(tls)));
        }
        let reason = if error.is_timeout() {
            Reason::Timeout("no connection")
        } else if self.policy.is_foreign(url) {
            // The registry chose this host. To report whether its port is open would let the registry use us as a
            // scanner.
            Reason::Unreachable(format!("no answer from {}", visible(url.host_str().unwrap_or_default())))
        } else {
            Reason::Unreachable(root_cause(error))
        };
        FailedTry { reason, again: Again::AfterBackoff }
    }
}

impl HttpAnswer {
    /// Why the body is not what it should be, if it is `broken`. A `Content-Encoding` alone says nothing: many servers
    /// send one that changes nothing, and digests decide. But it explains bytes that make no sense.
    pub(crate) fn explained(headers: &HeaderMap, broken: Reason) -> Reason {
        let names = headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let is_coding = |name: &str| CODINGS.iter().any(|coding| name.trim().eq_ignore_ascii_case(coding));
        match broken {
            Reason::Invalid(_) if names.flat_map(|line| line.split(',')).any(is_coding) => {
                Reason::Invalid("it is compressed although that was not asked for".into())
            }
            other => other,
        }
    }
}

/// Turns a status that means "not now" into a failed try.
fn judge(ask: &Ask, answer: HttpAnswer) -> Result<HttpAnswer, FailedTry> {
    let status = answer.status.as_u16();
    let asked = retry::retry_after(&answer.headers, SystemTime::now());
    if status == 429 {
        let reason = Reason::RateLimited { until: Pause::lasting(Duration::ZERO) };
        return Err(FailedTry { reason, again: Again::AfterPause(asked) });
    }
    if !is_transient_status(status) || (ask.failing == Failing::Plainer && status == 500) {
        return Ok(answer);
    }
    let reason = Reason::Status { status, code: error_code(&answer.body) };
    let paused = status == 503 && asked.is_some();
    Err(FailedTry { reason, again: if paused { Again::AfterPause(asked) } else { Again::AfterBackoff } })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, Reason> {
    let invalid = |why: &str| Reason::Invalid(format!("the redirect {why}"));
    let location = headers.get(LOCATION).ok_or_else(|| invalid("has no Location"))?;
    let text = location.to_str().map_err(|_| invalid("has an unreadable Location"))?;
    let mut url = from.join(text).map_err(|_| invalid("is not to a URL"))?;
    url.set_fragment(None);
    Ok(url)
}

/// The first OCI error code in a body, if the specification knows it. Nothing else of the body is used.
pub(crate) fn error_code(body: &[u8]) -> Option<&'static str> {
    /// The codes of distribution-spec, "Error Codes", and the one that `distribution` uses for paging.
    const CODES: [&str; 16] = [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
        "PAGINATION_NUMBER_INVALID",
        "UNKNOWN",
    ];
    #[derive(serde::Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        code: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let code = body.errors.into_iter().next()?.code;
    CODES.into_iter().find(|known| *known == code)
}

/// The innermost cause in words. The outer layers only say "error sending request for url".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    visible(&cause.to_string())
}
