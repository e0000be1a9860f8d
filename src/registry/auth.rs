//! Authentication at a registry: Basic, or bearer tokens per scope (Docker token specification).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::{
    base::secret::Secret,
    registry::{
        ask::{Ask, Failing},
        challenge::{Challenge, challenges},
        client::Credentials,
        error::{Error, Reason, visible},
        manners::TokenMethod,
        transport::Transport,
    },
};

/// Largest token response. Docker Hub's has 5 kB.
const MAX_RESPONSE: usize = 64 * 1024;
/// Largest token; servers refuse headers beyond 8 to 16 KiB anyway.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest realm we accept.
const MAX_REALM: usize = 2048;
/// The lifetime of a token without `expires_in` (token specification).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// The longest lifetime we believe: a day. A revoked token ends with a 401 anyway.
const MAX_LIFE: Duration = Duration::from_hours(24);
/// Tokens are renewed this long before they expire, so that none expires on its way.
const EARLY: Duration = Duration::from_secs(8);
/// Tokens kept, one per scope. A scan walks repositories one by one, so this many are never in use at once.
const MAX_TOKENS: usize = 256;
/// How long after `/v2/` failed it is not asked again: it may take half a minute to fail, and the requests that need
/// the answer wait for it.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// The user name that says that the password is an identity token, as Docker's credential helpers write it.
const IDENTITY: &str = "<token>";
/// The client id we send to token servers.
const CLIENT_ID: &str = "wharf";

/// The state of authentication at one registry.
#[derive(Default)]
pub(crate) struct Auth {
    credentials: Option<Credentials>,
    scheme: Mutex<Option<Scheme>>,
    /// Held while the scheme is asked for, so that one request asks for all. In it is how asking failed, and when.
    asking: tokio::sync::Mutex<Option<(Instant, Error)>>,
    tokens: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The scheme the registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// What is known of the scheme.
enum Known {
    /// Nothing, and nobody was asked.
    Nothing,
    /// The scheme.
    Scheme(Scheme),
    /// Nothing, because the registry failed so when it was asked.
    Failed(Error),
}

/// What a request shows of who asks.
pub(crate) enum Shown {
    /// Nothing: there are no credentials, or it is not known yet what the registry wants.
    Nothing,
    /// This header.
    Header(HeaderValue),
    /// User and password in this header, because the registry failed so when it was asked what it wants.
    Guess(HeaderValue, Error),
    /// Nothing, because the token server refused the scope that the request seems to need. The registry may name
    /// another one.
    Refused(Error),
}

impl Shown {
    /// The header to send.
    pub(crate) fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Header(header) | Self::Guess(header, _) => Some(header),
            Self::Nothing | Self::Refused(_) => None,
        }
    }
}

/// One scope's token. The lock is held during the fetch, so that one request fetches for all.
#[derive(Default)]
struct Slot {
    held: tokio::sync::Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// The scope that the registry named in place of the one that was guessed.
    named: Option<String>,
}

struct Token {
    header: HeaderValue,
    received: Instant,
    life: Duration,
}

impl Token {
    /// Whether the token can still be used. Its age is measured on our own monotonic clock: `issued_at` is on a clock
    /// that may be wrong.
    fn is_fresh(&self) -> bool {
        self.received.elapsed() < self.life
    }
}

/// Where tokens are issued.
#[derive(Clone, Copy)]
struct Issuer<'a> {
    realm: &'a Url,
    service: Option<&'a str>,
}

impl Auth {
    pub(crate) fn new(credentials: Option<Credentials>) -> Result<Self, Reason> {
        if credentials.as_ref().is_some_and(|c| c.username.contains(':')) {
            return Err(Reason::Misconfigured("a user name can't contain ':'".into()));
        }
        Ok(Self { credentials, ..Self::default() })
    }

    /// Sends user and password with the first request, without asking what the registry wants.
    pub(crate) fn assume_basic(&self) {
        *self.scheme.lock() = Some(Scheme::Basic);
    }

    /// What a request with this scope shows. Credentials are used from the first request: many registries answer the
    /// anonymous with a part of what they have.
    pub(crate) async fn show(&self, net: &Transport, scope: &str) -> Result<Shown, Error> {
        match self.scheme(net).await? {
            Known::Nothing => Ok(Shown::Nothing),
            Known::Failed(error) => {
                Ok(self.basic().map_or(Shown::Nothing, |header| Shown::Guess(header, error)))
            }
            Known::Scheme(Scheme::Basic) => Ok(self.basic().map_or(Shown::Nothing, Shown::Header)),
            Known::Scheme(Scheme::Bearer { realm, service }) => {
                let issuer = Issuer { realm: &realm, service: service.as_deref() };
                match self.token(net, issuer, scope, None, None).await {
                    Ok(header) => Ok(Shown::Header(header)),
                    Err(error) if is_refused(&error) => Ok(Shown::Refused(error)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Passes on the answer of this status to a request that showed this, unless it is the answer to an anonymous
    /// request where there are credentials: what the anonymous see is not all there is. What showed a guess may have
    /// passed for anonymous, so that nothing counts as missing for it.
    pub(crate) fn trust<T>(&self, shown: Shown, status: StatusCode, answer: T) -> Result<T, Error> {
        match shown {
            Shown::Refused(error) if self.credentials.is_some() => Err(error),
            Shown::Guess(_, error) if status == StatusCode::NOT_FOUND => Err(error),
            _ => Ok(answer),
        }
    }

    /// The scheme of the registry. With credentials, the registry is asked for it; without, its first 401 tells.
    async fn scheme(&self, net: &Transport) -> Result<Known, Error> {
        let known = || self.scheme.lock().clone().map(Known::Scheme);
        if let Some(known) = known() {
            return Ok(known);
        }
        if self.credentials.is_none() {
            return Ok(Known::Nothing);
        }
        let mut failed = self.asking.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < ASK_AGAIN) {
            return Ok(Known::Failed(error.clone()));
        }
        match self.ask_for_scheme(net).await? {
            Ok(scheme) => {
                *self.scheme.lock() = Some(scheme.clone());
                Ok(Known::Scheme(scheme))
            }
            // Other requests may work all the same.
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Ok(Known::Failed(error))
            }
        }
    }

    /// Asks `/v2/`, which registries with accounts answer with a challenge even where the anonymous may read. The inner
    /// error is that of `/v2/` alone.
    async fn ask_for_scheme(&self, net: &Transport) -> Result<Result<Scheme, Error>, Error> {
        let mut ask = ask(net, net.policy.home(), "ping".into());
        ask.url = ask.url.join("v2/").unwrap_or(ask.url);
        ask.within = false;
        ask.failing = Failing::Nothing;
        let answer = match net.exchange(&ask, None).await {
            Ok(answer) => answer,
            Err(error) if !error.is_transient() || matches!(error.reason, Reason::RateLimited { .. }) => {
                return Err(error);
            }
            Err(error) => return Ok(Err(error)),
        };
        let offered = if net.policy.is_home(&answer.url) { challenges(&answer.headers) } else { Vec::new() };
        let read = bearer(&offered).map(|bearer| read_bearer(net, bearer)).transpose();
        // A registry that asks for nothing is told who we are all the same.
        Ok(Ok(match read.map_err(|reason| net.error(&ask.doing, reason))? {
            Some((realm, service)) => Scheme::Bearer { realm, service },
            None => Scheme::Basic,
        }))
    }

    /// The header for one more try after a 401 with these headers. `shown` is what was sent, `doing` what the request
    /// was for.
    pub(crate) async fn answer(
        &self,
        net: &Transport,
        doing: &str,
        headers: &HeaderMap,
        scope: &str,
        shown: Shown,
    ) -> Result<HeaderValue, Error> {
        let fail = |reason| net.error(doing, reason);
        let offered = challenges(headers);
        if let Some(bearer) = bearer(&offered) {
            let (realm, service) = read_bearer(net, bearer).map_err(fail)?;
            let scheme = Scheme::Bearer { realm: realm.clone(), service: service.clone() };
            let is_known = self.scheme.lock().replace(scheme.clone()) == Some(scheme);
            // The challenge knows best what the request needs (for repositories behind rewrites our own scope is a
            // guess).
            let named = bearer.parameter("scope").filter(|named| *named != scope);
            if let (Shown::Refused(error), None, true) = (&shown, named, is_known) {
                return Err(error.clone());
            }
            let issuer = Issuer { realm: &realm, service: service.as_deref() };
            return self.token(net, issuer, scope, named, Some(&shown)).await;
        }
        if !offered.iter().any(|c| c.scheme == "basic") {
            return Err(fail(Reason::Unauthorized("it asks for no kind of authentication we know")));
        }
        *self.scheme.lock() = Some(Scheme::Basic);
        match self.basic() {
            None => Err(fail(Reason::Unauthorized("it wants a user name and password"))),
            Some(header) if shown.header() == Some(&header) => {
                Err(fail(Reason::Unauthorized("it refuses the user name or password")))
            }
            Some(header) => Ok(header),
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Credentials { username, password } = self.credentials.as_ref()?;
        let text = Secret::new(STANDARD.encode(format!("{username}:{}", password.expose())));
        sensitive(&format!("Basic {}", text.expose()))
    }

    /// The token that is held for `scope`, or a new one: for the scope that the registry `named` now or earlier, else
    /// for `scope`. After a 401, `refused` is what was shown; that token counts as used up.
    async fn token(
        &self,
        net: &Transport,
        issuer: Issuer<'_>,
        scope: &str,
        named: Option<&str>,
        refused: Option<&Shown>,
    ) -> Result<HeaderValue, Error> {
        let slot = self.slot(scope);
        let mut held = slot.held.lock().await;
        let refused_header = refused.and_then(Shown::header);
        if let Some(token) = held.token.as_ref()
            && token.is_fresh()
            && refused_header != Some(&token.header)
        {
            return Ok(token.header.clone());
        }
        let wanted = named.or(held.named.as_deref()).unwrap_or(scope).to_owned();
        let token = match self.fetch(net, issuer, &wanted).await {
            Ok(token) => {
                held.named = Some(wanted).filter(|wanted| wanted != scope);
                token
            }
            // The registry names more than we need, or than we may have; our own guess was not tried yet.
            Err(error)
                if is_refused(&error)
                    && wanted != scope
                    && matches!(refused, Some(Shown::Nothing | Shown::Guess(..))) =>
            {
                self.fetch(net, issuer, scope).await?
            }
            Err(error) => return Err(error),
        };
        Ok(held.token.insert(token).header.clone())
    }

    fn slot(&self, scope: &str) -> Arc<Slot> {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_TOKENS && !tokens.contains_key(scope) {
            // Slots in use are also held elsewhere, and stay; the other tokens can be fetched again.
            tokens.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        tokens.entry(scope.to_owned()).or_default().clone()
    }

    /// Fetches a token by the method that worked here before, or by the other one if the token server does not know
    /// that method.
    async fn fetch(&self, net: &Transport, issuer: Issuer<'_>, scope: &str) -> Result<Token, Error> {
        let method = match &self.credentials {
            // OAuth 2 knows no anonymous tokens.
            None => return self.fetch_by(net, TokenMethod::Get, issuer, scope).await,
            Some(credentials) if credentials.username == IDENTITY => TokenMethod::Post,
            Some(_) => net.manners.lock().known.token,
        };
        match self.fetch_by(net, method, issuer, scope).await {
            Err(error) if knows_other(&error) => {
                let token = self.fetch_by(net, method.other(), issuer, scope).await.map_err(|_| error)?;
                net.manners.lock().known.token = method.other();
                Ok(token)
            }
            outcome => outcome,
        }
    }

    async fn fetch_by(
        &self,
        net: &Transport,
        method: TokenMethod,
        issuer: Issuer<'_>,
        scope: &str,
    ) -> Result<Token, Error> {
        let ask = self.ask(net, method, issuer, scope);
        let fail = |reason| net.error(&ask.doing, reason);
        let basic = self.basic().filter(|_| method == TokenMethod::Get);
        let answer = net.exchange(&ask, basic.as_ref()).await?;
        let received = Instant::now();
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if self.credentials.is_none() => {
                return Err(fail(Reason::Unauthorized("the token server gives nothing to the anonymous")));
            }
            StatusCode::UNAUTHORIZED => {
                return Err(fail(Reason::Unauthorized("the token server refuses the user name or password")));
            }
            StatusCode::FORBIDDEN => return Err(fail(Reason::Forbidden)),
            other => return Err(fail(Reason::Status { status: other.as_u16(), code: None })),
        }
        read_token(&answer.body, received).map_err(|why| fail(Reason::Invalid(why.into())))
    }

    fn ask(&self, net: &Transport, method: TokenMethod, issuer: Issuer<'_>, scope: &str) -> Ask {
        let Issuer { realm, service } = issuer;
        let mut ask =
            ask(net, realm, format!("token from {}", visible(realm.host_str().unwrap_or_default())));
        let mut fields: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        if !scope.is_empty() {
            fields.push(("scope", scope));
        }
        fields.push(("client_id", CLIENT_ID));
        match (&self.credentials, method) {
            (Some(Credentials { username, password }), TokenMethod::Post) => {
                if username == IDENTITY {
                    fields.extend([("grant_type", "refresh_token"), ("refresh_token", password.expose())]);
                } else {
                    let grant =
                        [("grant_type", "password"), ("username", username), ("password", password.expose())];
                    fields.extend(grant);
                }
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                (ask.method, ask.form) = (Method::POST, Some(Secret::new(form)));
            }
            (credentials, _) => {
                let account =
                    credentials.as_ref().map(|credentials| ("account", credentials.username.as_str()));
                ask.url.query_pairs_mut().extend_pairs(fields.into_iter().chain(account));
            }
        }
        ask
    }
}

/// A plain request for this URL.
fn ask(net: &Transport, url: &Url, doing: String) -> Ask {
    Ask {
        method: Method::GET,
        url: url.clone(),
        accept: None,
        if_none_match: None,
        from: None,
        form: None,
        cap: MAX_RESPONSE,
        redirects: net.limits.redirects,
        // An administrator approves a realm by its name, so a redirect to another host is not covered.
        within: true,
        failing: Failing::Again,
        header_deadline: net.limits.headers,
        counted: false,
        doing,
    }
}

fn bearer(offered: &[Challenge]) -> Option<&Challenge> {
    offered.iter().find(|c| c.scheme == "bearer" && c.parameter("realm").is_some())
}

/// Whether a token server refused what it was asked for, rather than failing.
fn is_refused(error: &Error) -> bool {
    match error.reason {
        Reason::Unauthorized(_) | Reason::Forbidden => true,
        Reason::Status { status, .. } => (400..500).contains(&status) && !error.is_transient(),
        _ => false,
    }
}

/// Whether a token server that answers so may know the other method of asking.
fn knows_other(error: &Error) -> bool {
    matches!(error.reason, Reason::Status { status: 400 | 404 | 405 | 406 | 411 | 415 | 422 | 501, .. })
}

/// The realm and service of a bearer challenge, checked before anything is sent there.
fn read_bearer(net: &Transport, challenge: &Challenge) -> Result<(Url, Option<String>), Reason> {
    let text = challenge.parameter("realm").unwrap_or_default();
    let invalid = |why: &str| Reason::Invalid(format!("the token realm {why}"));
    if text.is_empty() || text.len() > MAX_REALM {
        return Err(invalid("is empty or too long"));
    }
    // The URL parser would silently drop tabs and newlines.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("has control characters or spaces"));
    }
    let mut realm = net.policy.home().join(text).map_err(|_| invalid("is not a URL"))?;
    if realm.fragment().is_some() {
        return Err(invalid("has a fragment"));
    }
    if realm.scheme() == "http" && net.policy.home().scheme() == "https" {
        realm = net.policy.encrypted(&realm)?;
    }
    net.policy.approve_realm(&realm)?;
    Ok((realm, challenge.parameter("service").map(Into::into)))
}

/// A header value that debug output and HTTP/2 compression tables leave out.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[derive(Deserialize)]
struct Response {
    token: Option<Secret>,
    access_token: Option<Secret>,
    /// Any JSON: some servers send a string, and a wrong lifetime is no reason to refuse a good token.
    #[serde(default)]
    expires_in: serde_json::Value,
}

fn read_token(body: &[u8], received: Instant) -> Result<Token, &'static str> {
    let response: Response =
        serde_json::from_slice(body).map_err(|_| "the token response is not readable JSON")?;
    let filled = |secret: &Secret| !secret.expose().is_empty();
    let secret = response
        .token
        .filter(filled)
        .or(response.access_token.filter(filled))
        .ok_or("the token response has no token")?;
    if secret.expose().len() > MAX_TOKEN {
        return Err("the token is larger than 16 KiB");
    }
    if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the token has characters no header can carry");
    }
    let header = sensitive(&format!("Bearer {}", secret.expose())).ok_or("the token fits no header")?;
    Ok(Token { header, received, life: life(&response.expires_in) })
}

/// How long to use a token: what the server says, less a margin. Zero, negative and missing values mean the default.
fn life(expires_in: &serde_json::Value) -> Duration {
    let seconds = expires_in.as_f64().or_else(|| expires_in.as_str()?.parse().ok()).unwrap_or_default();
    let told = if seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFE).min(MAX_LIFE)
    } else {
        DEFAULT_LIFE
    };
    // A short-lived token is used for four fifths of its lifetime.
    told.saturating_sub(EARLY.min(told / 5))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{MAX_TOKEN, life, read_token};

    #[test]
    fn a_token_lives_as_told_less_a_margin_and_a_minute_when_told_nonsense() {
        let seconds = |value| life(&value).as_secs();
        assert_eq!(seconds(json!(300)), 292);
        assert_eq!(seconds(json!("300")), 292);
        assert_eq!(seconds(json!(5)), 4);
        for nonsense in
            [json!(null), json!(0), json!(-1), json!("soon"), json!([]), json!("NaN"), json!(false)]
        {
            assert_eq!(seconds(nonsense), 52);
        }
        for huge in [json!(1e300), json!(u64::MAX), json!("inf")] {
            assert_eq!(life(&huge), Duration::from_secs(24 * 3600 - 8));
        }
    }

    #[test]
    fn tokens_that_no_header_can_carry_are_refused() {
        let read = |text: &str| {
            read_token(text.as_bytes(), Instant::now()).map(|t| t.header.to_str().unwrap().to_owned())
        };
        assert_eq!(read(r#"{"token":"a.b"}"#).unwrap(), "Bearer a.b");
        assert_eq!(read(r#"{"access_token":"c"}"#).unwrap(), "Bearer c");
        assert_eq!(read(r#"{"token":"","access_token":"c"}"#).unwrap(), "Bearer c");
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"token":null}"#,
            r#"{"token":""}"#,
            r#"{"token":"a\r\nX: y"}"#,
            r#"{"token":7}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let of = |length| read(&format!(r#"{{"token":"{}"}}"#, "a".repeat(length)));
        assert!(of(MAX_TOKEN).is_ok());
        assert!(of(MAX_TOKEN + 1).is_err());
    }
}
