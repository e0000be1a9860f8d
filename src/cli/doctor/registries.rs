//! Checks the registries: whether the server can log in, and whether others can read the connection.

use futures_util::{StreamExt as _, stream};
use url::Url;

use crate::{
    base::loopback,
    cli::{
        api::{Client, Outcome},
        doctor::finding::Finding,
        failure::{Failure, Result},
        registry::{self, Record},
    },
};

/// How many registries are tested at once: a silent one takes a while.
const AT_ONCE: usize = 16;
/// How many registries are tested in all.
const MOST: usize = 200;

/// Has the server test each registry.
pub(super) async fn look_over(client: &Client) -> Vec<Finding> {
    let registries = match registry::all(client).await {
        Ok(registries) => registries,
        Err(why) => return vec![Finding::failed("registries", &why)],
    };
    if registries.is_empty() {
        return vec![Finding::ok("registries", "there is none yet; add one with: wharf registry add HOST")];
    }
    let tried = stream::iter(registries.iter().take(MOST))
        .map(|record| async move { judged(record, registry::tried(client, &record.hostname).await) })
        .buffered(AT_ONCE);
    let mut findings: Vec<_> = tried.collect().await;
    if let more @ 1.. = registries.len().saturating_sub(MOST) {
        let remedy = "try them one by one: wharf registry test HOST";
        findings.push(Finding::warn("registries", format!("{more} more were not tried"), remedy));
    }
    findings
}

fn judged(record: &Record, outcome: Result<Outcome>) -> Finding {
    let host = &record.hostname;
    let check = format!("registry {host}");
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => return unreached(check, host, &why),
    };
    let found = registry::said(&outcome).to_owned();
    let listened = record.config.as_ref().filter(|config| !config.is_verified());
    match listened.filter(|config| !config.url.parse::<Url>().is_ok_and(|url| loopback::is_url(&url))) {
        Some(config) if config.url.starts_with("http:") => Finding::warn(
            check,
            format!("{found}; without TLS: others on the way can read its password and change images"),
            format!("if it speaks TLS: wharf registry change {host} --url https://…"),
        ),
        Some(_) => Finding::warn(
            check,
            format!("{found}; its certificate is not verified"),
            format!("name its authority: wharf registry change {host} --insecure=false --ca-file FILE"),
        ),
        None => Finding::ok(check, found),
    }
}

fn unreached(check: String, host: &str, why: &Failure) -> Finding {
    let reason = why.reason();
    let reason = reason.strip_prefix(host).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&reason);
    let remedy =
        format!("see that it runs and lets the server in; its settings: wharf registry change {host} --help");
    Finding::fail(check, reason, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::judged;
    use crate::cli::{api::Outcome, failure::Failure};

    fn record(url: &str, ssl_verify: &Value) -> super::Record {
        let config = json!({"url": url, "type": "docker", "project": [], "ssl_verify": ssl_verify, "trusted_hosts": []});
        serde_json::from_value(json!({"hostname": "h", "config": config})).unwrap()
    }

    #[test]
    fn a_registry_answers_and_nobody_listens() {
        let said = |url: &str, ssl_verify: Value| {
            let outcome = Outcome { ok: true, msg: None, code: None };
            judged(&record(url, &ssl_verify), Ok(outcome)).to_string()
        };
        assert_eq!(said("https://h", json!(null)), "ok registry h: it answers");
        assert_eq!(said("http://127.0.0.1:5000", json!(null)), "ok registry h: it answers");
        assert!(said("http://h", json!(true)).starts_with("warn registry h: it answers; without TLS"));
        assert!(said("https://h", json!(false)).contains("its certificate is not verified"));
        let failed =
            judged(&record("http://h", &json!(null)), Err(Failure::failed("h", "refused"))).to_string();
        assert!(failed.starts_with("fail registry h: refused; see that it runs"), "{failed}");
    }
}
