//! The page of the first run, which creates the first super-admin.

use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use serde_json::json;

use crate::access::set_up::{Choice, SetUp};
use crate::access::sign_in::Refusal;
use crate::base::secret::Secret;
use crate::http::caller::Proofs;
use crate::http::problem::Problem;
use crate::http::sessions::{answer, problem, set_cookie, told};
use crate::http::{body, browser};

/// The body of `POST /server/setup`.
#[derive(Deserialize)]
struct Chosen {
    token: Secret,
    email: String,
    password: Secret,
}

/// `POST /server/setup`: creates the first super-admin, and opens a session for them. Only this answer holds the
/// secret key.
#[handler]
pub(crate) async fn finish(
    request: &Request,
    body: Body,
    Data(proofs): Data<&Proofs>,
    Data(set_up): Data<&SetUp>,
) -> Result<Response, Problem> {
    browser::check(request)?;
    let Chosen { token, email, password } = body::read(request, body).await?;
    let peer = proofs.proxies.peer(request);
    match set_up.finish(Choice { token, email, password }, peer.address).await {
        Ok(done) => {
            let mut data = told(&done.signed_in.caller);
            if let Some(fields) = data.as_object_mut() {
                fields.insert("secret_key".into(), done.secret_key.expose().into());
            }
            let mut response = answer(&json!({ "authenticated": true, "data": data }));
            set_cookie(&mut response, &browser::keep(&done.signed_in.key, peer));
            Ok(response)
        }
        Err(Refusal::Wrong) => Err(Problem::forbidden(
            "this link is not the one that the server gave out at its last start; its log has that",
        )),
        Err(refusal) => Err(problem(refusal)),
    }
}
