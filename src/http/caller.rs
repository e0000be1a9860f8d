//! Finds the sender of a request: by a signature, a token, or a session's cookie.

use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use poem::http::header;
use poem::{Body, FromRequest, Request, RequestBody};

use crate::access::accounts::Accounts;
use crate::access::caller::{Caller, Credential, Origin};
use crate::access::rates::{self, Counted, RateStatus, Rates};
use crate::access::replays::{Replays, Signed};
use crate::access::sessions::Sessions;
use crate::access::signature::{self, Authorization, WINDOW};
use crate::access::tokens::Tokens;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::http::browser;
use crate::http::json;
use crate::http::peer::{Peer, Proxies};
use crate::http::problem::Problem;

/// The first major API version that does not sign the body; older ones are older than any client we serve.
const OLDEST_MAJOR: u32 = 4;
/// The newest major API version.
const NEWEST_MAJOR: u32 = 9;

/// The services that prove who sends a request.
#[derive(Clone)]
pub(crate) struct Proofs {
    /// For signatures.
    pub(crate) accounts: Accounts,
    /// For cookies.
    pub(crate) sessions: Sessions,
    /// For `Authorization: Bearer`.
    pub(crate) tokens: Tokens,
    /// The signatures already used.
    pub(crate) replays: Replays,
    /// Limits how many requests each sender may make.
    pub(crate) rates: Rates,
    /// For signatures' dates.
    pub(crate) clock: Clock,
    /// The proxies that may say where a request comes from.
    pub(crate) proxies: Proxies,
}

/// A request's sender, proved. A handler that takes one can't be reached without it. It must come before any argument
/// that takes the body, because a signature is good for one body, which is read here.
pub(crate) struct Proved(pub(crate) Caller);

/// The sender of a request for a stream. The official clients sign a stream once, and open it again with the same
/// signature when it breaks. The request has no body, and an attacker who can read it in transit can read the stream
/// as well. So a signature's use is not counted here.
pub(crate) struct Listening(pub(crate) Caller);

impl Deref for Proved {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// The sender's standing with the limit on requests, on its way from the handler to the response.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Option<RateStatus>>>);

impl Tally {
    /// Returns the sender's standing, if there is a limit.
    pub(crate) fn standing(&self) -> Option<RateStatus> {
        *self.0.lock()
    }
}

impl<'a> FromRequest<'a> for Proved {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let proofs = request.data::<Proofs>().ok_or_else(Problem::internal)?;
        let proof = proofs.prove(request)?;
        if let Some(signed) = &proof.signed {
            let bytes = json::whole(body.take()?).await?;
            let taken = proofs.replays.take(signed, &bytes, proof.caller.origin.address);
            taken.map_err(|why| Problem::unauthorized(&why.to_string()))?;
            *body = RequestBody::new(Body::from_bytes(bytes));
        }
        Ok(Self(proofs.count(request, proof)?))
    }
}

impl<'a> FromRequest<'a> for Listening {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let proofs = request.data::<Proofs>().ok_or_else(Problem::internal)?;
        let proof = proofs.prove(request)?;
        Ok(Self(proofs.count(request, proof)?))
    }
}

/// The sender of a request, the limit it counts against, and the signature if it proved the sender.
struct Proof {
    caller: Caller,
    counted: Option<(Counted, u32)>,
    signed: Option<Signed>,
}

impl Proofs {
    /// Counts a request, and returns its sender unless it exceeds the limit.
    fn count(&self, request: &Request, proof: Proof) -> Result<Caller, Problem> {
        if let Some((whose, limit)) = proof.counted {
            let standing = self.rates.count(whose, limit, self.clock.steady());
            if let Some(tally) = request.extensions().get::<Tally>() {
                *tally.0.lock() = Some(standing);
            }
            if let Some(wait) = standing.wait {
                return Err(Problem::over_rate_limit(wait));
            }
        }
        if proof.signed.is_some() {
            self.accounts.mark_used(&proof.caller.access_key, self.clock.now());
        }
        Ok(proof.caller)
    }

    /// Proves the sender of a request. `Authorization` takes precedence over a cookie, because a browser adds cookies
    /// by itself.
    fn prove(&self, request: &Request) -> Result<Proof, Problem> {
        let peer = self.proxies.peer(request);
        let Some(authorization) = request.header(header::AUTHORIZATION) else {
            let caller = self.session(request, peer)?;
            let counted = caller.origin.session.map(|id| (Counted::Session(id), rates::PERSONAL));
            return Ok(Proof { caller, counted, signed: None });
        };
        if let Some(token) = bearer(authorization) {
            let found = self.tokens.caller(token, peer.address);
            let (caller, hash) = found.map_err(|_| Problem::unauthorized("The token is not valid"))?;
            return Ok(Proof {
                caller,
                counted: Some((Counted::Token(hash), rates::PERSONAL)),
                signed: None,
            });
        }
        let (caller, limit, signed) = signed(request, authorization, &self.accounts, self.clock.now())?;
        let counted = (limit > 0).then(|| (Counted::Keypair(caller.access_key.clone()), limit));
        let origin = Origin { address: peer.address, ..caller.origin };
        Ok(Proof { caller: Caller { origin, ..caller }, counted, signed: Some(signed) })
    }

    /// Returns the caller with their present rights, for work that outlives its request.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the credential they used is no longer valid.
    pub(crate) fn again(&self, caller: &Caller) -> Result<Caller> {
        let origin = &caller.origin;
        let is_good = match &origin.credential {
            Credential::Session => origin.session.is_some_and(|id| self.sessions.is_open(id)),
            Credential::Token(name) => self.tokens.is_live(caller.user, name),
            Credential::Keypair(access_key) => self.accounts.key_holder(access_key).is_ok(),
            Credential::Console | Credential::Rule(_) | Credential::Retention(_) => true,
        };
        if !is_good {
            return Err(Error::Unauthenticated);
        }
        let now = self.accounts.caller(caller.user, origin.credential.clone())?;
        Ok(Caller { origin: origin.clone(), ..now })
    }

    /// Returns the session's user by the request's cookie, unless a page of another site made the browser send it.
    fn session(&self, request: &Request, peer: Peer) -> Result<Caller, Problem> {
        let caller =
            self.visitor(request, peer).ok_or_else(|| Problem::unauthorized("Unauthorized access"))?;
        browser::check(request)?;
        Ok(caller)
    }

    /// Returns the session's user by the request's cookie, wherever the request comes from.
    pub(crate) fn visitor(&self, request: &Request, peer: Peer) -> Option<Caller> {
        let key = browser::session_key(request, peer)?;
        self.sessions.caller(key, peer.address).ok()
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Checks a signature. Returns its user, the keypair's limit of requests in a window, and the signature. The checks
/// are in the order of the original, so that clients show the helpful message.
fn signed(
    request: &Request,
    authorization: &str,
    accounts: &Accounts,
    now: Timestamp,
) -> Result<(Caller, u32, Signed), Problem> {
    let version = version(request)?;
    let date = ["Date", "X-BackendAI-Date", "X-Sorna-Date"].iter().find_map(|name| request.header(*name));
    let date = date.ok_or_else(Problem::out_of_time)?;
    let sent = signature::parse_date(date).map_err(Problem::malformed)?;
    if now.duration_since(sent.at).abs() >= WINDOW {
        return Err(Problem::out_of_time());
    }
    let authorization = Authorization::parse(authorization).map_err(Problem::malformed)?;
    let target = request.original_uri().path_and_query().map_or("/", |target| target.as_str());
    let signed = signature::Request {
        method: request.method().as_str(),
        target,
        date,
        host: request.header(header::HOST).unwrap_or_default(),
        content_type: request.content_type().unwrap_or(signature::Request::NO_CONTENT_TYPE),
        version_header: version,
    };
    let found = accounts.key_holder(authorization.access_key);
    // An unknown key costs the same work as a known one, so the time taken does not tell them apart.
    let secret = found.as_ref().map_or_else(|_| Secret::new("unknown"), |holder| holder.secret.clone());
    let is_right =
        signature::verify(&signed, &sent.day, authorization.hash, &secret, authorization.signature);
    match found {
        // The words are the same in both cases, or anyone could find out which keys exist.
        Ok(holder) if is_right => {
            let signed = Signed::new(authorization.access_key, authorization.signature, sent.at);
            Ok((holder.caller, holder.rate_limit, signed))
        }
        _ => Err(Problem::unauthorized("Unauthorized access")),
    }
}

/// Returns the version header, under the name it has in the signed text.
fn version(request: &Request) -> Result<(&'static str, &str), Problem> {
    let names = ["x-backendai-version", "x-sorna-version"];
    let given = names.iter().find_map(|name| request.header(*name).map(|version| (*name, version)));
    let Some((name, version)) = given else {
        return Err(Problem::bad_request("API version missing in request headers"));
    };
    if is_served(version) {
        Ok((name, version))
    } else {
        Err(Problem::bad_request("Unsupported API version."))
    }
}

/// Whether the version `v<major>.<YYYYMMDD>` is served. Every date of a known major version is accepted: the versions
/// do not differ in anything that matters here.
fn is_served(version: &str) -> bool {
    let parts = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(major, date)| {
        let major_is_known =
            major.parse::<u32>().is_ok_and(|major| (OLDEST_MAJOR..=NEWEST_MAJOR).contains(&major));
        major_is_known && date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::is_served;

    #[test]
    fn every_version_that_a_client_sends_is_served() {
        for version in
            ["v5.20191215", "v6.20210815", "v6.20220315", "v7.20230615", "v8.20240915", "v9.20250722"]
        {
            assert!(is_served(version), "{version}");
        }
        for version in
            ["", "v3.20170615", "v99.20300101", "latest", "v5", "v5.2019", "5.20191215", "v5.2019121x"]
        {
            assert!(!is_served(version), "{version}");
        }
    }
}
