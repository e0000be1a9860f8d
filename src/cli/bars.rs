//! A progress bar for each agent, while an image is loaded onto agents or removed from them.

use std::{
    collections::HashMap,
    convert::Infallible,
    future,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    base::ids::TaskId,
    cli::{
        api::Client,
        json,
        operation::{One, Operation},
        text,
    },
};

/// Pause between two requests for the progress: short enough to see the bars move.
const PAUSE: Duration = Duration::from_millis(500);
/// Most bars shown: they fit in a small terminal. The task's own bar counts all agents.
const MOST: usize = 16;

pub(crate) const LOOK: Operation<One<'_>, Option<Snapshot>> =
    Operation::new(include_str!("operations/task.graphql"), "TaskBars", "background_task");

#[derive(Deserialize)]
pub(crate) struct Snapshot {
    #[serde(deserialize_with = "json::text")]
    kind: String,
    #[serde(deserialize_with = "json::list")]
    items: Vec<Agent>,
}

/// An agent's part in the task.
#[derive(Deserialize)]
struct Agent {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    #[serde(deserialize_with = "json::count")]
    current: u64,
    #[serde(deserialize_with = "json::count")]
    total: u64,
    speed: Option<f64>,
    reason: Option<String>,
    #[serde(deserialize_with = "json::count")]
    attempts: u64,
}

/// Keeps the bars up to date with the task, until the future is dropped. Draws nothing for tasks of other kinds, or if
/// stderr is no terminal.
///
/// The bars are an extra: a request that fails is made again, and the code that follows the task's events reports why.
pub(crate) async fn watch(client: &Client, id: TaskId, all: &MultiProgress) -> Infallible {
    if !io::stderr().is_terminal() {
        return future::pending().await;
    }
    let (mut bars, id) = (HashMap::new(), id.to_string());
    loop {
        match client.ask(&LOOK, One { id: &id }).await {
            Ok(Some(look)) if matches!(look.kind.as_str(), "preload" | "unload") => {
                draw(&look.items, &mut bars, all);
            }
            Ok(_) => return future::pending().await,
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

fn draw(agents: &[Agent], bars: &mut HashMap<String, ProgressBar>, all: &MultiProgress) {
    let shown: Vec<_> = agents.iter().filter(|agent| agent.is_under_way()).take(MOST).collect();
    bars.retain(|name, bar| {
        let stays = shown.iter().any(|agent| agent.name == *name);
        if !stays {
            bar.finish_and_clear();
            all.remove(bar);
        }
        stays
    });
    for agent in shown {
        let bar = bars.entry(agent.name.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_prefix(text::one_line(&agent.name));
            bar
        });
        if agent.total > 0 && bar.length() != Some(agent.total) {
            bar.set_style(style("  {prefix} {bar:30} {bytes}/{total_bytes} {wide_msg}"));
            bar.set_length(agent.total);
        } else if agent.total == 0 {
            bar.set_style(style("  {prefix} {wide_msg}"));
        }
        bar.set_position(agent.current);
        bar.set_message(agent.remark());
    }
}

impl Agent {
    /// Whether there is something to show: the agent works on it, or waits for a reason.
    fn is_under_way(&self) -> bool {
        self.state == "running" || (self.state == "waiting" && self.reason.is_some())
    }

    fn remark(&self) -> String {
        let attempt = if self.attempts > 1 { format!("attempt {} ", self.attempts) } else { String::new() };
        let what = match (&self.reason, self.speed.filter(|speed| *speed >= 1.0)) {
            (Some(reason), _) if self.state == "waiting" => format!("waiting: {reason}"),
            // A speed for people needs no more than a figure or two.
            (_, Some(speed)) => format!("{speed:.0}").parse().map(text::size).unwrap_or_default() + "/s",
            _ => self.state.clone(),
        };
        text::one_line(&format!("{attempt}{what}"))
    }
}

/// Makes a style; a mistake in the template gives the default style instead of an error.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use indicatif::{MultiProgress, ProgressDrawTarget};
    use serde_json::json;

    use crate::cli::bars::{Agent, MOST, draw};

    fn agent(name: &str, state: &str, reason: Option<&str>, speed: Option<f64>, attempts: u32) -> Agent {
        serde_json::from_value(json!({
            "name": name, "state": state, "reason": reason, "speed": speed, "attempts": attempts,
            "current": "5", "total": "10",
        }))
        .unwrap()
    }

    #[test]
    fn only_agents_under_way_have_bars_and_not_too_many() {
        let (all, mut bars) = (MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), HashMap::new());
        let mut agents: Vec<_> =
            (0..100).map(|n| agent(&format!("gpu{n}"), "running", None, None, 1)).collect();
        draw(&agents, &mut bars, &all);
        assert_eq!(bars.len(), MOST);
        for agent in &mut agents {
            agent.state = "done".into();
        }
        agents.push(agent("late", "waiting", Some("no route"), None, 2));
        agents.push(agent("idle", "waiting", None, None, 0));
        draw(&agents, &mut bars, &all);
        assert_eq!(bars.keys().collect::<Vec<_>>(), ["late"]);
        assert_eq!((bars["late"].position(), bars["late"].length()), (5, Some(10)));
    }

    #[test]
    fn a_bar_says_how_fast_or_why_not() {
        assert_eq!(agent("a", "running", None, Some(1_500_000.0), 1).remark(), "1.5 MB/s");
        assert_eq!(agent("a", "running", None, None, 3).remark(), "attempt 3 running");
        assert_eq!(agent("a", "waiting", Some("no\nroute"), Some(2.0), 1).remark(), "waiting: no route");
    }
}
