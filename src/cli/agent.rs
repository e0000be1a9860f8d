//! `wharf agent`: the nodes of the lab.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    self,
    api::{Client, Outcome},
    connection::Connection,
    failure::{Failure, Result},
    join::{self, Token},
    json,
    node::Node,
    operation::{One, Operation, Set},
    room, table, text,
};

/// Administer agents; or with --manager, make this machine an agent of a manager elsewhere
#[derive(Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// List the agents
    List {
        /// Only those that answer, or only those that do not
        #[arg(long, value_name = "STATUS", value_parser = ["alive", "lost"], ignore_case = true)]
        status: Option<String>,
        /// Only those of this scaling group
        #[arg(long, value_name = "GROUP")]
        scaling_group: Option<String>,
    },
    /// Show one agent with its labels, engine and disk
    Show {
        /// The agent
        id: String,
    },
    /// List the images on one agent, with their use and who wants them
    Images {
        /// The agent
        id: String,
    },
    /// Set and remove labels of an agent; others stay
    Label {
        /// The agent
        id: String,
        /// key=value sets a label, key- removes it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label)]
        labels: Vec<Label>,
    },
    /// Show which agents an expression names now, or what is wrong with it
    ///
    /// Quote it, since shells read brackets and exclamation marks their own way: wharf agent set 'gpu[01-16]!gpu03'
    Set {
        /// The expression: 'gpu[01-16]!gpu03'
        expression: String,
    },
    /// Make, list and revoke the tokens with which agents on other machines join
    #[command(subcommand)]
    Token(Token),
    /// Stop giving an agent new images; it keeps what it has, and finishes what it is loading
    Drain {
        /// The agent
        id: String,
        /// Give it new images again
        #[arg(long)]
        undo: bool,
    },
    /// Remove an agent: it is cut off at once and its credential stops working
    Remove {
        /// The agent
        id: String,
    },
}

/// A label. In a request to the API, a label without a value is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    #[serde(deserialize_with = "json::text")]
    key: String,
    #[serde(deserialize_with = "json::text")]
    value: String,
}

fn label(text: &str) -> Result<Label, &'static str> {
    let (key, value) = match text.split_once('=') {
        Some((_, "")) => return Err("a label needs a value; to remove it write KEY-"),
        Some(pair) => pair,
        None => (text.strip_suffix('-').ok_or("expected KEY=VALUE, or KEY- to remove it")?, ""),
    };
    if key.is_empty() {
        return Err("expected a key: KEY=VALUE, or KEY- to remove it");
    }
    Ok(Label { key: key.into(), value: value.into() })
}

/// An agent as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    pub(crate) id: String,
    #[serde(deserialize_with = "json::text")]
    pub(crate) status: String,
    pub(crate) status_reason: Option<String>,
    schedulable: Option<bool>,
    lost_at: Option<String>,
    #[serde(deserialize_with = "json::text")]
    scaling_group: String,
    architecture: Option<String>,
    os: Option<String>,
    engine: Option<String>,
    version: Option<String>,
    pub(crate) addr: Option<String>,
    first_contact: Option<String>,
    #[serde(deserialize_with = "json::list")]
    labels: Vec<Label>,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) total_bytes: Option<u64>,
    images_bytes: Option<u64>,
}

const FILE: &str = include_str!("operations/agent.graphql");
pub(crate) const LIST: Operation<Which<'_>, json::List<Record>> = Operation::new(FILE, "Agents", "agents");
pub(crate) const SHOW: Operation<One<'_>, Record> = Operation::new(FILE, "Agent", "agent");
pub(crate) const SET: Operation<Expression<'_>, Preview> = Operation::new(FILE, "AgentSet", "agent_set");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> = Operation::new(FILE, "ModifyAgent", "modify_agent");

/// The filter of the list of agents.
#[derive(Default, Serialize)]
pub(crate) struct Which<'a> {
    status: Option<String>,
    group: Option<&'a str>,
}

#[derive(Default, Serialize)]
pub(crate) struct Expression<'a> {
    expression: &'a str,
}

/// The agents that an expression names, as the API returns them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Preview {
    ok: bool,
    folded: Option<String>,
    #[serde(deserialize_with = "json::count")]
    count: u64,
    #[serde(deserialize_with = "json::list")]
    offline: Vec<String>,
    error: Option<Mistake>,
}

/// An error in an expression.
#[derive(Debug, Serialize, Deserialize)]
struct Mistake {
    #[serde(deserialize_with = "json::text")]
    code: String,
    #[serde(deserialize_with = "json::count")]
    position: u64,
    #[serde(deserialize_with = "json::text")]
    message: String,
    #[serde(deserialize_with = "json::text")]
    caret: String,
}

impl Agent {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let Some(verb) = &self.verb else { return self.node.run() };
        if let Some(flag) = Node::misplaced(matches) {
            let flag = flag.replace('_', "-");
            return Err(Failure::usage(format!("--{flag} is for agent mode, which takes no command")));
        }
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        cli::block_on(async {
            match verb {
                Verb::List { status, scaling_group } => {
                    list(&client, status.as_deref(), scaling_group.as_deref(), as_json).await
                }
                Verb::Show { id } => show(&client, id, as_json).await,
                Verb::Images { id } => room::on_agent(&client, id, as_json).await,
                Verb::Label { id, labels } => relabel(&client, id, labels, as_json).await,
                Verb::Set { expression } => set(&client, expression, as_json).await,
                Verb::Token(token) => token.run(&client, as_json).await,
                Verb::Drain { id, undo } => drain(&client, id, *undo, as_json).await,
                Verb::Remove { id } => join::remove(&client, id, as_json).await,
            }
        })
    }
}

/// Fetches the agents, all or only those with a status or of a group.
pub(crate) async fn all(client: &Client, status: Option<&str>, group: Option<&str>) -> Result<Vec<Record>> {
    let which = Which { status: status.map(str::to_uppercase), group };
    client.ask(&LIST, which).await.map(|agents| agents.0)
}

async fn list(client: &Client, status: Option<&str>, group: Option<&str>, as_json: bool) -> Result<()> {
    let agents = all(client, status, group).await?;
    if as_json {
        return json::print(&agents);
    }
    if agents.is_empty() && cli::is_for_people() {
        return cli::print(if status.is_some() || group.is_some() {
            "No agent like that; wharf agent list without flags has them all"
        } else {
            "No agent yet; the server finds engines by itself or by: wharf serve --engine URL"
        });
    }
    let headers = ["AGENT", "STATUS", "GROUP", "ARCHITECTURE", "ENGINE", "FREE", "LABELS"];
    cli::print(&table::rows(&headers, agents.iter().map(Record::cells)))
}

async fn show(client: &Client, id: &str, as_json: bool) -> Result<()> {
    let agent = client.find(id, &SHOW, One { id }).await?;
    let agent = agent.ok_or_else(|| Failure::failed(id, "no such agent").remedy("see wharf agent list"))?;
    if as_json { json::print(&agent) } else { cli::print(&table::fields(agent.fields())) }
}

async fn relabel(client: &Client, id: &str, labels: &[Label], as_json: bool) -> Result<()> {
    let outcome = client.change(id, &MODIFY, Set { id, props: json!({ "labels": labels }) }).await?;
    cli::done(&outcome, &format!("labelled {id}"), as_json)
}

/// Stops giving an agent new images, or with `undo` gives it new images again.
async fn drain(client: &Client, id: &str, undo: bool, as_json: bool) -> Result<()> {
    let outcome = client.change(id, &MODIFY, Set { id, props: json!({ "schedulable": undo }) }).await?;
    let done = if undo { "takes new images again" } else { "gets no new images; what it has stays" };
    cli::done(&outcome, &format!("{id} {done}"), as_json)
}

async fn set(client: &Client, expression: &str, as_json: bool) -> Result<()> {
    let preview = client.ask(&SET, Expression { expression }).await?;
    if as_json {
        json::print(&preview)?;
    } else if preview.ok {
        cli::print(&table::fields(preview.fields()))?;
    }
    preview.verdict()
}

impl Record {
    /// The agent's status; for an agent that answers, also whether it drains.
    fn status(&self) -> &str {
        // A lost agent takes no images either, whether it drains or not.
        if self.status == "ALIVE" && self.schedulable == Some(false) { "DRAINING" } else { &self.status }
    }

    fn engine(&self) -> String {
        let parts = [self.engine.as_deref(), self.version.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn labels(&self) -> impl Iterator<Item = String> {
        self.labels.iter().map(|label| text::one_line(&format!("{}={}", label.key, label.value)))
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.status().to_owned(),
            self.scaling_group.clone(),
            self.architecture.clone().unwrap_or_default(),
            self.engine(),
            self.free_bytes.map(text::size).unwrap_or_default(),
            self.labels().collect::<Vec<_>>().join(" "),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let line = |text: &Option<String>| text::one_line(text.as_deref().unwrap_or_default());
        let size = |bytes: Option<u64>| bytes.map(text::size).unwrap_or_default();
        vec![
            ("agent", text::one_line(&self.id)),
            ("status", text::one_line(self.status())),
            ("reason", line(&self.status_reason)),
            ("lost at", line(&self.lost_at)),
            ("group", text::one_line(&self.scaling_group)),
            ("architecture", line(&self.architecture)),
            ("system", line(&self.os)),
            ("engine", text::one_line(&self.engine())),
            ("address", line(&self.addr)),
            ("first met", line(&self.first_contact)),
            ("free", size(self.free_bytes)),
            ("disk", size(self.total_bytes)),
            ("images", size(self.images_bytes)),
            ("labels", self.labels().collect::<Vec<_>>().join("\n")),
        ]
    }
}

impl Preview {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("agents", text::one_line(self.folded.as_deref().unwrap_or_default())),
            ("count", self.count.to_string()),
            ("offline", text::one_line(&self.offline.join(" "))),
        ]
    }

    fn verdict(&self) -> Result<()> {
        match &self.error {
            _ if self.ok => Ok(()),
            Some(Mistake { code, position, message, caret }) => {
                Err(Failure::failed("expression", format!("{code} at {position}: {message}")).below(caret))
            }
            None => Err(Failure::failed("expression", "the server can't read it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::agent::{Label, Mistake, Preview, label};

    #[test]
    fn labels_are_set_with_a_value_and_removed_with_a_minus() {
        let parsed = |key: &str, value: &str| Ok(Label { key: key.into(), value: value.into() });
        assert_eq!(label("zone=a"), parsed("zone", "a"));
        assert_eq!(label("zone=a=b-"), parsed("zone", "a=b-"));
        assert_eq!(label("rack-no-"), parsed("rack-no", ""));
        for bad in ["zone", "zone=", "=a", "-", ""] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mistake_is_shown_with_its_caret() {
        let error = Mistake {
            code: "SYNTAX".into(),
            position: 5,
            message: "not this".into(),
            caret: "gpu01;rm\n     ^".into(),
        };
        let preview = Preview { ok: false, folded: None, count: 0, offline: Vec::new(), error: Some(error) };
        let failure = preview.verdict().unwrap_err().to_string();
        assert_eq!(failure, "expression: SYNTAX at 5: not this\n  gpu01;rm\n       ^");
    }
}
