//! Signing in and out over HTTP, by the paths and in the shapes that the official clients and their web server use.

use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::caller::Caller;
use crate::access::set_up::SetUp;
use crate::access::sign_in::{Refusal, SignIn};
use crate::base::Error;
use crate::base::error::Code;
use crate::base::secret::Secret;
use crate::http::body;
use crate::http::browser;
use crate::http::caller::{Proofs, Proved};
use crate::http::problem::Problem;

/// The answer to every failed sign-in, whatever the reason.
const WRONG: &str = "Check your e-mail address and password";

/// The body of `POST /server/login`. Clients also send `force` and `otp`, which have no meaning here.
#[derive(Deserialize)]
struct SigningIn {
    username: String,
    password: Secret,
}

/// `POST /server/login`: opens a session. A wrong password is no failed request: clients look at `authenticated`.
#[handler]
pub(crate) async fn sign_in(
    request: &Request,
    body: Body,
    Data(proofs): Data<&Proofs>,
    Data(service): Data<&SignIn>,
) -> Result<Response, Problem> {
    // No page may sign its reader in to another user's account.
    browser::check(request)?;
    let given: SigningIn = body::read(request, body).await?;
    let peer = proofs.proxies.peer(request);
    let before = proofs.visitor(request, peer).and_then(|caller| caller.origin.session);
    match service.sign_in(given.username, given.password, peer.address, before).await {
        Ok(signed_in) => {
            let mut response = answer(&json!({ "authenticated": true, "data": told(&signed_in.caller) }));
            set_cookie(&mut response, &browser::keep(&signed_in.key, peer));
            Ok(response)
        }
        Err(Refusal::Wrong) => Ok(answer(&json!({
            "authenticated": false,
            "data": {
                "type": "https://api.backend.ai/probs/auth-failed",
                "title": "Credential/signature mismatch.",
                "details": WRONG,
            },
        }))),
        Err(refusal) => Err(problem(refusal)),
    }
}

/// `POST /server/login-check`: returns who is signed in, or that there is no account yet.
#[handler]
pub(crate) fn check(request: &Request, Data(proofs): Data<&Proofs>, Data(set_up): Data<&SetUp>) -> Response {
    let peer = proofs.proxies.peer(request);
    let visitor = browser::check_page(request).ok().and_then(|()| proofs.visitor(request, peer));
    let mut said = json!({ "authenticated": visitor.is_some(), "data": visitor.as_ref().map(told) });
    if set_up.is_open()
        && let Some(fields) = said.as_object_mut()
    {
        fields.insert("setup".into(), true.into());
    }
    answer(&said)
}

/// `POST /server/logout`: ends the session, if there is one. The clients' body is an empty text, which is not read.
#[handler]
pub(crate) async fn sign_out(
    request: &Request,
    Data(proofs): Data<&Proofs>,
    Data(service): Data<&SignIn>,
) -> Result<Response, Problem> {
    browser::check_page(request)?;
    let peer = proofs.proxies.peer(request);
    if let Some(caller) = proofs.visitor(request, peer) {
        service.sign_out(&caller).await?;
    }
    let mut response = answer(&json!({}));
    set_cookie(&mut response, &browser::forget(peer));
    Ok(response)
}

/// The body of `POST /auth/update-password`.
#[derive(Deserialize)]
struct Change {
    old_password: Secret,
    new_password: Secret,
    new_password2: Secret,
}

/// `POST /auth/update-password`: changes the caller's password.
#[handler]
pub(crate) async fn update_password(
    request: &Request,
    Proved(caller): Proved,
    body: Body,
    Data(service): Data<&SignIn>,
) -> Result<Response, Problem> {
    let given: Change = body::read(request, body).await?;
    if given.new_password != given.new_password2 {
        return Err(Problem::bad_parameter("the new password and its repetition differ"));
    }
    match service.change_password(caller, given.old_password, given.new_password).await {
        Ok(()) => Ok(answer(&json!({}))),
        Err(Refusal::Wrong) => {
            Err(Problem::bad_parameter("the old password is not right").coded(Code::Denied))
        }
        Err(refusal) => Err(problem(refusal)),
    }
}

pub(in crate::http) fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Wrong => Error::Unauthenticated.into(),
        Refusal::Wait(wait) => Problem::too_many_attempts(wait),
        Refusal::Failed(error) => error.into(),
    }
}

pub(in crate::http) fn told(caller: &Caller) -> Value {
    json!({
        "access_key": caller.access_key,
        "email": caller.email,
        "role": caller.role.as_str(),
        "status": "active",
    })
}

pub(in crate::http) fn answer(value: &Value) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_string(value.to_string()))
}

pub(in crate::http) fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = cookie.parse() {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}
