//! From a request to the one who sent it: a signed request, a token, or the cookie of a session.

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

/// The first API version that signs no body; older ones are from before any client we serve.
const OLDEST_MAJOR: u32 = 4;
/// The last major version there is.
const NEWEST_MAJOR: u32 = 9;

/// What proves who sends a request.
#[derive(Clone)]
pub(crate) struct Proofs {
    /// For signatures.
    pub(crate) accounts: Accounts,
    /// For cookies.
    pub(crate) sessions: Sessions,
    /// For `Authorization: Bearer`.
    pub(crate) tokens: Tokens,
    /// Signatures that were used.
    pub(crate) replays: Replays,
    /// How many requests each may make.
    pub(crate) rates: Rates,
    /// For signatures' dates.
    pub(crate) clock: Clock,
    /// Whose word on where a request comes from counts.
    pub(crate) proxies: Proxies,
}

/// A request's sender, proved. A handler that takes one can't be reached without. It stands before whatever takes the
/// body, for a signature is good for one body, and that is read here.
pub(crate) struct Proved(pub(crate) Caller);

/// The sender of a request for a stream. The official clients sign once for a stream, and open it again with the same
/// signature when it breaks; it has no body, and whoever can read it on its way can read the stream as well. So its use
/// is not counted.
pub(crate) struct Listening(pub(crate) Caller);

impl Deref for Proved {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// How the sender stands with the limit on requests, on its way from the handler to the response.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Option<RateStatus>>>);

impl Tally {
    /// How the sender stands, if there is a limit.
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

/// Who sent a request, against which limit it counts, and the signature if that proved it.
struct Proof {
    caller: Caller,
    counted: Option<(Counted, u32)>,
    signed: Option<Signed>,
}

impl Proofs {
    /// Counts a request, and lets its sender on unless it is one too many.
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

    /// The sender of a request. What is in `Authorization` goes before a cookie: a browser adds cookies by itself.
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

    /// The caller as they are now, for what outlives its request.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when what they proved themselves with is good no more.
    pub(crate) fn again(&self, caller: &Caller) -> Result<Caller> {
        let origin = &caller.origin;
        let is_good = match &origin.credential {
            Credential::Session => origin.session.is_some_and(|id| self.sessions.is_open(id)),
            Credential::Token(name) => self.tokens.is_live(caller.user, name),
            Credential::Keypair(access_key) => self.accounts.key_holder(access_key).is_ok(),
            Credential::Console | Credential::Rule(_) => true,
        };
        if !is_good {
            return Err(Error::Unauthenticated);
        }
        let now = self.accounts.caller(caller.user, origin.credential.clone())?;
        Ok(Caller { origin: origin.clone(), ..now })
    }

    /// Whose session the request's cookie is, if no page of another site made the browser send it.
    fn session(&self, request: &Request, peer: Peer) -> Result<Caller, Problem> {
        let caller =
            self.visitor(request, peer).ok_or_else(|| Problem::unauthorized("Unauthorized access"))?;
        browser::check(request)?;
        Ok(caller)
    }

    /// Whose session the request's cookie is, wherever the request comes from.
    pub(crate) fn visitor(&self, request: &Request, peer: Peer) -> Option<Caller> {
        let key = browser::session_key(request, peer)?;
        self.sessions.caller(key, peer.address).ok()
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Who signed the request, how many the keypair may make in a window, and with which signature. Checks in the order the
/// original does, so that clients show the message that helps.
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
    // An unknown key costs the same work as a known one, and none can be told from the time it takes.
    let secret = found.as_ref().map_or_else(|_| Secret::new("unknown"), |holder| holder.secret.clone());
    let is_right =
        signature::verify(&signed, &sent.day, authorization.hash, &secret, authorization.signature);
    match found {
        // In the same words, or anybody could find out which keys there are.
        Ok(holder) if is_right => {
            let signed = Signed::new(authorization.access_key, authorization.signature, sent.at);
            Ok((holder.caller, holder.rate_limit, signed))
        }
        _ => Err(Problem::unauthorized("Unauthorized access")),
    }
}

/// The version header, by the name it has in the signed text.
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

/// `v<major>.<YYYYMMDD>`. Every date of a major version we know is taken: what differs between them does not differ
/// here.
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
