//! Checks the running server: whether it answers, what it tells everyone, and what it tells super-admins.

use jiff::Timestamp;
use reqwest::header;
use serde::Deserialize;
use url::Url;

use crate::{
    access::signature::parse_date,
    base::{clock::Clock, loopback},
    cli::{
        api::Client,
        connection::WHERE_FROM,
        doctor::{aliases, finding::Finding, fleet, registries, space, time},
        failure::Result,
        operation::Operation,
        text,
    },
    engine::fault::one_line,
    http::health::CLOCK,
};

/// This program's version.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// What the server tells everyone.
pub(super) struct Greeting {
    at: String,
    version: String,
    /// When the request was sent, what the server's clock said, and when the answer arrived.
    moments: Option<[Timestamp; 3]>,
}

#[derive(Deserialize)]
struct Version {
    manager: String,
}

/// Asks the server for its version and time.
pub(super) async fn greet(client: &Client, clock: &Clock) -> Result<Greeting> {
    let asked = clock.now();
    let response = client.look("/").await?;
    let answered = clock.now();
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let said = date.and_then(|date| parse_date(date).ok());
    let body = client.body(response).await?;
    let version: Version =
        serde_json::from_slice(&body).map_err(|_| client.foreign("says no version of wharf"))?;
    Ok(Greeting {
        at: client.name().into(),
        version: version.manager,
        moments: said.map(|said| [asked, said.at, answered]),
    })
}

impl Greeting {
    pub(super) fn version(&self) -> Finding {
        let found = format!("wharf {} answers at {}", self.version, self.at);
        if self.version == OURS {
            return Finding::ok("server", found);
        }
        let remedy = "use the same for both, as some of what is said below may be wrong";
        Finding::warn("server", format!("{found}, but this is wharf {OURS}"), remedy)
    }

    pub(super) fn clock(&self) -> Option<Finding> {
        self.moments.map(|[asked, said, answered]| time::compared(said, asked, answered))
    }
}

/// Checks whether others on the way can read the connection.
pub(super) fn privacy(endpoint: &Url) -> Finding {
    const CHECK: &str = "connection";
    if endpoint.scheme() == "https" {
        Finding::ok(CHECK, "by TLS")
    } else if loopback::is_url(endpoint) {
        Finding::ok(CHECK, "within this machine")
    } else {
        Finding::warn(
            CHECK,
            "without TLS: others on the way can read passwords, sessions and tokens",
            "put a proxy with TLS before the server, and name it with --trusted-proxy",
        )
    }
}

/// Checks whether the server reports that it can work, and that it believes its clock.
pub(super) async fn readiness(client: &Client) -> Vec<Finding> {
    const CHECK: &str = "readiness";
    let said = async { client.body(client.look("/readyz").await?).await };
    match said.await {
        Ok(said) => {
            let ready = Finding::ok(CHECK, "it reads and writes its database");
            [ready].into_iter().chain(doubt(&String::from_utf8_lossy(&said))).collect()
        }
        Err(why) => vec![Finding::failed(CHECK, &why)],
    }
}

/// The server's reason to doubt its clock, if it has one.
fn doubt(said: &str) -> Option<Finding> {
    let doubt = said.lines().find_map(|line| line.strip_prefix(CLOCK))?;
    let remedy = "see to it that the server's clock is right; keep it by NTP: timedatectl set-ntp true";
    Some(Finding::warn("expiry", one_line(doubt), remedy))
}

const FILE: &str = include_str!("../operations/doctor.graphql");
pub(crate) const CALLER: Operation<(), User> = Operation::new(FILE, "Caller", "user");
pub(crate) const HEALTH: Operation<(), Health> = Operation::new(FILE, "ServerHealth", "server_health");

#[derive(Deserialize)]
pub(crate) struct User {
    email: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Health {
    database_bytes: Option<u64>,
    free_bytes: Option<u64>,
    unreached_engines: Vec<fleet::UnreachedEngine>,
}

/// Checks what the server tells only super-admins.
pub(super) async fn look_inside(client: &Client, has_keys: bool) -> Vec<Finding> {
    const CHECK: &str = "credentials";
    if !has_keys {
        let found = "none given, so registries, agents and the server's disk were not looked at";
        return vec![Finding::warn(CHECK, found, WHERE_FROM)];
    }
    let user = match client.ask(&CALLER, ()).await {
        Ok(user) => user,
        Err(why) => return vec![Finding::failed(CHECK, &why)],
    };
    let (email, role) = (user.email.unwrap_or_default(), user.role.unwrap_or_default());
    if role != "superadmin" {
        let found = format!(
            "{email} is no super-admin, so registries, agents and the server's disk were not looked at"
        );
        return vec![Finding::warn(CHECK, found, "use the key pair of one")];
    }
    let mut findings = vec![Finding::ok(CHECK, format!("{email}, a super-admin"))];
    let unreached = match client.ask(&HEALTH, ()).await {
        Ok(health) => {
            findings.extend(disk(&health));
            health.unreached_engines
        }
        Err(why) => {
            findings.push(Finding::failed("server disk", &why));
            Vec::new()
        }
    };
    findings.extend(registries::look_over(client).await);
    findings.extend(aliases::look_over(client).await);
    findings.extend(fleet::look_over(client, unreached).await);
    findings
}

fn disk(health: &Health) -> Vec<Finding> {
    let database = health.database_bytes.map(|bytes| Finding::ok("server database", text::size(bytes)));
    let free = health.free_bytes;
    let disk = free.map(|free| space::enough("server disk", free, health.database_bytes.unwrap_or_default()));
    database.into_iter().chain(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::{Greeting, OURS, doubt, privacy};

    #[test]
    fn another_version_is_told() {
        let said = |version: &str| {
            Greeting { at: "http://h".into(), version: version.into(), moments: None }.version().to_string()
        };
        assert_eq!(said(OURS), format!("ok server: wharf {OURS} answers at http://h"));
        assert!(said("9.9.9").starts_with("warn server: wharf 9.9.9 answers at http://h, but this is wharf"));
    }

    #[test]
    fn a_server_that_does_not_believe_its_clock_is_told_of() {
        assert!(doubt("ready\n").is_none());
        let said = doubt("ready\nclock: it jumped\n").unwrap().to_string();
        assert!(said.starts_with("warn expiry: it jumped; see to it"), "{said}");
    }

    #[test]
    fn what_leaves_the_machine_is_to_be_encrypted() {
        let said = |url: &str| privacy(&url.parse().unwrap()).to_string();
        assert!(said("https://wharf.lab").starts_with("ok"));
        assert!(said("http://[::1]:8090").starts_with("ok"));
        assert!(said("http://wharf.lab:8090").starts_with("warn connection: without TLS"));
    }
}
