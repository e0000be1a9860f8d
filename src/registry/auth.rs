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
use url::Url;

use crate::{
    base::secret::Secret,
    registry::{
        ask::Ask,
        challenge::{Challenge, challenges},
        client::Credentials,
        error::{Error, Reason, visible},
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
/// The client id we send to token servers.
const CLIENT_ID: &str = "wharf";

/// The state of authentication at one registry.
#[derive(Default)]
pub(crate) struct Auth {
    credentials: Option<Credentials>,
    scheme: Mutex<Option<Scheme>>,
    tokens: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The scheme the registry asked for, learned from its first 401.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// One scope's token. The lock is held during the fetch, so that one request fetches for all.
#[derive(Default)]
struct Slot {
    token: tokio::sync::Mutex<Option<Token>>,
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

impl Auth {
    pub(crate) fn new(credentials: Option<Credentials>) -> Result<Self, Reason> {
        if credentials.as_ref().is_some_and(|c| c.username.contains(':')) {
            return Err(Reason::Misconfigured("a user name can't contain ':'".into()));
        }
        Ok(Self { credentials, ..Self::default() })
    }

    /// Sends user and password with the first request, not only after a 401.
    pub(crate) fn assume_basic(&self) {
        *self.scheme.lock() = Some(Scheme::Basic);
    }

    /// The header for a request with this scope, as far as it is known without asking the registry. `None` means:
    /// send the request without one, which is how the scheme is learned.
    pub(crate) async fn header(&self, net: &Transport, scope: &str) -> Result<Option<HeaderValue>, Error> {
        let scheme = self.scheme.lock().clone();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => Ok(self.basic()),
            Some(Scheme::Bearer { realm, service }) => {
                self.token(net, &realm, service.as_deref(), scope, scope, None).await.map(Some)
            }
        }
    }

    /// The header for one more try after a 401 with these headers. `refused` is the header that was sent, `doing`
    /// what the request was for.
    pub(crate) async fn answer(
        &self,
        net: &Transport,
        doing: &str,
        headers: &HeaderMap,
        scope: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        let fail = |reason| net.error(doing, reason);
        let offered = challenges(headers);
        if let Some(bearer) = offered.iter().find(|c| c.scheme == "bearer" && c.parameter("realm").is_some())
        {
            let (realm, service) = read_bearer(net, bearer).map_err(fail)?;
            *self.scheme.lock() = Some(Scheme::Bearer { realm: realm.clone(), service: service.clone() });
            // The challenge knows best what the request needs (for repositories behind rewrites our own scope is a
            // guess).
            let wanted = bearer.parameter("scope").unwrap_or(scope);
            return self.token(net, &realm, service.as_deref(), scope, wanted, refused).await;
        }
        if !offered.iter().any(|c| c.scheme == "basic") {
            return Err(fail(Reason::Unauthorized("it asks for no kind of authentication we know")));
        }
        *self.scheme.lock() = Some(Scheme::Basic);
        match self.basic() {
            None => Err(fail(Reason::Unauthorized("it wants a user name and password"))),
            Some(header) if refused == Some(&header) => {
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

    /// The cached token for `scope`, or a new one for `wanted`. A token that was just `refused` counts as used up.
    async fn token(
        &self,
        net: &Transport,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        wanted: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        let slot = self.slot(scope);
        let mut held = slot.token.lock().await;
        if let Some(token) = held.as_ref()
            && token.is_fresh()
            && refused != Some(&token.header)
        {
            return Ok(token.header.clone());
        }
        let token = self.fetch(net, realm, service, wanted).await?;
        Ok(held.insert(token).header.clone())
    }

    fn slot(&self, scope: &str) -> Arc<Slot> {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_TOKENS && !tokens.contains_key(scope) {
            // Slots in use are also held elsewhere, and stay; the other tokens can be fetched again.
            tokens.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        tokens.entry(scope.to_owned()).or_default().clone()
    }

    async fn fetch(
        &self,
        net: &Transport,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
    ) -> Result<Token, Error> {
        let ask = self.ask(net, realm, service, scope);
        let fail = |reason| net.error(&ask.doing, reason);
        let basic = self.basic();
        let answer = net.exchange(&ask, basic.as_ref()).await?;
        let received = Instant::now();
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if basic.is_none() => {
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

    fn ask(&self, net: &Transport, realm: &Url, service: Option<&str>, scope: &str) -> Ask {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            if !scope.is_empty() {
                query.append_pair("scope", scope);
            }
            query.append_pair("client_id", CLIENT_ID);
            if let Some(credentials) = &self.credentials {
                query.append_pair("account", &credentials.username);
            }
        }
        Ask {
            method: Method::GET,
            doing: format!("token from {}", visible(realm.host_str().unwrap_or_default())),
            url,
            accept: None,
            if_none_match: None,
            from: None,
            cap: MAX_RESPONSE,
            // An administrator approves a realm by its name, so a redirect to another host is not covered.
            redirects: 0,
            once: false,
            header_deadline: net.limits.headers,
            counted: false,
        }
    }
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
    let realm = net.policy.home().join(text).map_err(|_| invalid("is not a URL"))?;
    if realm.fragment().is_some() {
        return Err(invalid("has a fragment"));
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
