//! A user with a browser, or a client in session mode: they have a password and keep a cookie.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::{Call, Reply};
use super::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};

/// The name of a session's cookie without TLS, and with it.
pub const PLAIN: &str = "wharf-session";
pub const SECURE: &str = "__Host-wharf-session";

/// A user at an address of their own, signed in or not.
#[derive(Clone, Debug)]
pub struct Visitor {
    api: super::api::Api,
    /// The value of `Cookie`.
    pub cookie: Option<String>,
}

impl Visitor {
    /// Returns a user at this machine's usual address.
    pub fn of(app: &App) -> Self {
        Self { api: app.anonymous(), cookie: None }
    }

    /// Returns a user at another of this machine's loopback addresses.
    pub fn at(app: &App, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        Self { api: app.anonymous().from(address), cookie: None }
    }

    /// Returns the super-admin, signed in.
    pub async fn admin(app: &App) -> Self {
        let mut person = Self::of(app);
        let reply = person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        assert_eq!(reply.json()["authenticated"], true, "{}", reply.text());
        person
    }

    /// Returns a request with the cookie and without the headers that a program adds.
    pub fn call(&self, method: &str, target: &str) -> Call {
        let call = self.api.call(method, target);
        match &self.cookie {
            Some(cookie) => call.header("Cookie", cookie),
            None => call,
        }
    }

    /// Returns the request that signs in.
    pub fn signing_in(&self, email: &str, password: &str) -> Call {
        self.call("POST", "/server/login").json(&json!({ "username": email, "password": password }))
    }

    /// Signs in, and keeps the cookie if there is one.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> Reply {
        let reply = self.signing_in(email, password).send().await;
        self.keep(&reply);
        reply
    }

    /// Keeps the cookie of an answer.
    pub fn keep(&mut self, reply: &Reply) {
        if let Some(cookie) = reply.header("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
    }

    /// Returns a document as a page of the server's own sends it.
    pub fn asking(&self, query: &str, variables: &Value) -> Call {
        self.call("POST", "/graphql").json(&json!({ "query": query, "variables": variables }))
    }

    /// Returns the data of a document that must succeed.
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        let reply = self.asking(query, &variables).send().await;
        assert_eq!(reply.status, 200, "{query}\n{}", reply.text());
        let answer = reply.json();
        assert!(answer["errors"].is_null(), "{query}\n{answer:#}");
        answer["data"].clone()
    }

    /// Whether the server knows who this is.
    pub async fn is_signed_in(&self) -> bool {
        let reply = self.asking("{ __typename }", &json!({})).send().await;
        let check = self.call("POST", "/server/login-check").send().await;
        assert_eq!(check.json()["authenticated"], reply.status == 200, "{}", check.text());
        if reply.status != 200 {
            reply.problem(401, "auth-failed");
        }
        reply.status == 200
    }
}
