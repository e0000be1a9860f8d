//! Checks the agents: which of them do not answer, and which have little disk space.

use serde::Deserialize;

use crate::cli::{
    agent::{self, Record},
    api::Client,
    doctor::finding::{Finding, some},
    text,
};

/// An agent is short of disk space when less than 1/20 of its disk is free.
const PARTS: u64 = 20;
/// The engine that the server looks for when none is named; not every machine has it.
const USUAL: &str = "docker+unix:///var/run/docker.sock";

/// An engine that has not answered since the server started.
#[derive(Debug, Deserialize)]
pub(crate) struct UnreachedEngine {
    addr: String,
    reason: String,
}

/// Checks all agents, and the engines that are not agents yet.
pub(super) async fn look_over(client: &Client, unreached: Vec<UnreachedEngine>) -> Vec<Finding> {
    match agent::all(client, None, None).await {
        Ok(agents) => judged(&agents, unreached),
        Err(why) => vec![Finding::failed("agents", &why)],
    }
}

fn judged(agents: &[Record], mut unreached: Vec<UnreachedEngine>) -> Vec<Finding> {
    let is_lost = |agent: &&Record| agent.status == "LOST";
    let alive = agents.iter().filter(|agent| !is_lost(agent)).count();
    let mut findings = vec![match (agents.len(), unreached.len()) {
        (0, 0) => Finding::ok("agents", "there is none yet"),
        (all, _) => Finding::ok("agents", format!("{alive} of {all} answer")),
    }];
    let lost = agents.iter().filter(is_lost).map(|agent| {
        let known = unreached.iter().position(|unreached| agent.addr.as_ref() == Some(&unreached.addr));
        lost(agent, known.map(|place| unreached.swap_remove(place)))
    });
    findings.extend(some(lost.collect(), "agents", "wharf agent list --status lost"));
    findings.extend(some(unreached.iter().map(unanswered).collect(), "engines", "the server's log"));
    let troubled =
        agents.iter().filter(|agent| !is_lost(agent)).filter_map(|agent| away(agent).or_else(|| full(agent)));
    findings.extend(some(troubled.collect(), "agents", "wharf agent list"));
    findings
}

/// A finding about an agent that does not answer, with its engine's last error if the server has tried since its start.
fn lost(agent: &Record, unreached: Option<UnreachedEngine>) -> Finding {
    let id = &agent.id;
    let reason = unreached
        .map(|unreached| unreached.reason)
        .or_else(|| agent.status_reason.clone())
        .unwrap_or_default();
    let addr = agent.addr.as_deref().unwrap_or_default();
    let start = if addr.starts_with("link:") {
        "start wharf agent there"
    } else {
        "start its engine, and see that wharf serve --engine names it"
    };
    let remedy = format!("{start}; if it is gone for good: wharf agent remove {id}");
    Finding::fail(format!("agent {id}"), format!("it is lost ({addr}): {reason}"), remedy)
}

fn unanswered(unreached: &UnreachedEngine) -> Finding {
    let check = format!("engine {}", unreached.addr);
    let found = format!("it has not answered since the server started: {}", unreached.reason);
    if unreached.addr == USUAL {
        let remedy =
            "start Docker, or if there is none, name another engine: wharf serve --engine URL, or none";
        return Finding::warn(check, found, remedy);
    }
    Finding::fail(check, found, "start it, or take it out of the --engine flags of wharf serve")
}

fn away(agent: &Record) -> Option<Finding> {
    let reason = agent.status_reason.as_deref()?;
    let found = format!("it can't be reached just now: {reason}");
    Some(Finding::warn(format!("agent {}", agent.id), found, "look again in a minute: wharf agent list"))
}

fn full(agent: &Record) -> Option<Finding> {
    let (free, total) = (agent.free_bytes?, agent.total_bytes?);
    (free < total / PARTS).then(|| {
        let found = format!("{} of {} free", text::size(free), text::size(total));
        let remedy = "take images off it: wharf unload IMAGE AGENT";
        Finding::warn(format!("agent {}", agent.id), found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{USUAL, UnreachedEngine, judged};

    fn said(agents: serde_json::Value, unreached: &[(&str, &str)]) -> Vec<String> {
        let unreached = unreached
            .iter()
            .map(|(addr, reason)| UnreachedEngine { addr: (*addr).into(), reason: (*reason).into() });
        let agents: Vec<_> = serde_json::from_value(agents).unwrap();
        judged(&agents, unreached.collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_agent_is_told_once_with_the_latest_reason() {
        let agents = json!([
            {"id": "i-a", "status": "ALIVE", "addr": "a", "scaling_group": "x", "labels": [],
             "free_bytes": 50_000, "total_bytes": 1_000_000},
            {"id": "i-b", "status": "LOST", "status_reason": "old", "addr": "b", "scaling_group": "x", "labels": []},
            {"id": "i-c", "status": "LOST", "status_reason": "cut", "addr": "link:::1", "scaling_group": "x", "labels": []},
        ]);
        let found = said(agents, &[("b", "new"), ("d", "gone"), (USUAL, "none")]);
        assert_eq!(found[0], "ok agents: 1 of 3 answer");
        assert!(found[1].starts_with("fail agent i-b: it is lost (b): new; start its engine"), "{found:?}");
        assert!(
            found[2].starts_with("fail agent i-c: it is lost (link:::1): cut; start wharf agent"),
            "{found:?}"
        );
        assert!(found[3..].iter().any(|line| line.starts_with("fail engine d: ")), "{found:?}");
        assert!(
            found[3..].iter().any(|line| line.starts_with(&format!("warn engine {USUAL}: "))),
            "{found:?}"
        );
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn an_agent_that_is_full_or_away_is_a_warning() {
        let agent = |reason: serde_json::Value, free: u64| {
            json!([{"id": "i-a", "status": "ALIVE", "status_reason": reason, "addr": "a", "scaling_group": "x",
                    "labels": [], "free_bytes": free, "total_bytes": 1_000_000}])
        };
        assert_eq!(said(agent(json!(null), 50_000), &[]), ["ok agents: 1 of 1 answer"]);
        let full = said(agent(json!(null), 49_999), &[]);
        assert!(full[1].starts_with("warn agent i-a: 50.0 kB of 1.0 MB free"), "{full:?}");
        let away = said(agent(json!("its link broke"), 1), &[]);
        assert!(
            away[1].starts_with("warn agent i-a: it can't be reached just now: its link broke"),
            "{away:?}"
        );
    }

    #[test]
    fn no_agent_is_no_fault() {
        assert_eq!(said(json!([]), &[]), ["ok agents: there is none yet"]);
    }
}
