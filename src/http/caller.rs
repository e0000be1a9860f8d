//! From a request to the one who sent it: Backend.AI's signed requests.

use std::ops::Deref;

use jiff::{SignedDuration, Timestamp};
use poem::http::header;
use poem::{FromRequest, Request, RequestBody};

use crate::access::accounts::Accounts;
use crate::access::caller::{Caller, Origin};
use crate::access::signature::{self, Authorization};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::http::problem::Problem;

/// How far a request's date may be from ours, to either side.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);
/// The first API version that signs no body; older ones are from before any client we serve.
const OLDEST_MAJOR: u32 = 4;
/// The last major version there is.
const NEWEST_MAJOR: u32 = 9;

/// A request's sender, proved by its signature. A handler that takes one can't be reached without.
pub struct Signed(pub Caller);

impl Deref for Signed {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<'a> FromRequest<'a> for Signed {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let (Some(accounts), Some(clock)) = (request.data::<Accounts>(), request.data::<Clock>()) else {
            return Err(Problem::internal().into());
        };
        Ok(Self(authenticate(request, accounts, clock.now())?))
    }
}

/// Checks in the order the original does, so that clients show the message that helps.
fn authenticate(request: &Request, accounts: &Accounts, now: Timestamp) -> Result<Caller, Problem> {
    let Some(authorization) = request.header(header::AUTHORIZATION) else {
        return Err(Problem::unauthorized("Unauthorized access"));
    };
    let version = version(request)?;
    let date = ["Date", "X-BackendAI-Date", "X-Sorna-Date"].iter().find_map(|name| request.header(*name));
    let date = date.ok_or_else(Problem::out_of_time)?;
    let sent = signature::parse_date(date).map_err(|why| Problem::malformed(&why))?;
    if now.duration_since(sent.at).abs() >= WINDOW {
        return Err(Problem::out_of_time());
    }
    let authorization = Authorization::parse(authorization).map_err(|why| Problem::malformed(&why))?;
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
        Err(_) => Err(Problem::unauthorized("Access key not found")),
        Ok(_) if !is_right => Err(Problem::unauthorized("Unauthorized access")),
        Ok(holder) => {
            accounts.mark_used(authorization.access_key, now);
            let address = request.remote_addr().as_socket_addr().map(|address| address.ip());
            let origin = Origin { address, ..holder.caller.origin };
            Ok(Caller { origin, ..holder.caller })
        }
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
