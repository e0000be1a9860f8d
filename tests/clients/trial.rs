//! One release of the client, tried command by command against a server of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::clients::table::{self, Cell, Note};
use crate::support::api::Api;
use crate::support::app::App;
use crate::support::client::{self, Client, Entry};
use crate::support::process::Outcome;

/// What no output may have in it, whatever the exit code.
const COMPLAINTS: [&str; 4] = ["Traceback", "APIVersionWarning", "CancelledError", "was never awaited"];

/// A trial, and what came of it so far.
pub struct Trial {
    pub app: Arc<App>,
    pub admin: Api,
    /// The release: 20, 21, ...
    pub year: u32,
    version: &'static str,
    area: &'static str,
    client: Client,
    entry: Entry,
    cells: BTreeMap<&'static str, Cell>,
    faults: Vec<String>,
}

impl Trial {
    /// Nothing if the client can't be had here.
    pub async fn start(area: &'static str, version: &'static str) -> Option<Self> {
        // No server is started for a client that can't be had.
        let client = Client::find(version).await?;
        Some(Self::with(client, area, version, Arc::new(App::start().await)))
    }

    /// The same beside a server that others use, too.
    pub async fn beside(area: &'static str, version: &'static str, app: Arc<App>) -> Option<Self> {
        Some(Self::with(Client::find(version).await?, area, version, app))
    }

    fn with(client: Client, area: &'static str, version: &'static str, app: Arc<App>) -> Self {
        let admin = app.admin();
        let year = version.split('.').next().and_then(|year| year.parse().ok()).expect("a year");
        let (cells, faults) = (BTreeMap::new(), Vec::new());
        Self { app, admin, year, version, area, client, entry: client::admin(), cells, faults }
    }

    /// What comes from now on gets in this way.
    pub fn enter_by(&mut self, entry: Entry) {
        self.entry = entry;
    }

    /// The arguments that mean the same to this release: the first for 2020's, the second for all later ones.
    pub fn say<'a>(&self, of_2020: &'a str, later: &'a str) -> Vec<&'a str> {
        (if self.year == 20 { of_2020 } else { later }).split_whitespace().collect()
    }

    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_fed(arguments, "").await
    }

    pub async fn run_fed(&self, arguments: &[&str], input: &str) -> Outcome {
        self.client.enter(self.app.url(), &self.entry, arguments, input).await
    }

    /// It must end well, and say all of this. Returns what it printed: some commands use only one of the two streams.
    pub async fn works(&mut self, row: &'static str, arguments: &[&str], said: &[&str]) -> String {
        let outcome = self.run(arguments).await;
        self.judge(row, arguments, &outcome, said)
    }

    /// The same for what reads something.
    pub async fn works_fed(
        &mut self,
        row: &'static str,
        arguments: &[&str],
        input: &str,
        said: &[&str],
    ) -> String {
        let outcome = self.run_fed(arguments, input).await;
        self.judge(row, arguments, &outcome, said)
    }

    /// The same for lines of Python with the client's library.
    pub async fn script_works(&mut self, row: &'static str, script: &str, said: &[&str]) -> String {
        let outcome = self.client.script(self.app.url(), script).await;
        self.judge(row, &[script], &outcome, said)
    }

    /// Python that asks for something the library of this release does not have.
    pub async fn script_lacks(&mut self, row: &'static str, script: &str) {
        let outcome = self.client.script(self.app.url(), script).await;
        let text = outcome.text();
        if outcome.code != 0
            && (text.contains("AttributeError")
                || text.contains("ImportError")
                || text.contains("No module named"))
        {
            self.note(row, Cell::Lacks);
        } else {
            self.fault(row, &format!("{script} is known after all: {text}"));
        }
    }

    /// Python that must fail, by a fault of the library's own.
    pub async fn script_cannot(&mut self, row: &'static str, script: &str, note: &'static Note) {
        let outcome = self.client.script(self.app.url(), script).await;
        self.judge_failure(row, &[script], &outcome, note);
    }

    fn judge(&mut self, row: &'static str, arguments: &[&str], outcome: &Outcome, said: &[&str]) -> String {
        let text = outcome.text();
        let silent: Vec<_> = said.iter().filter(|words| !text.contains(**words)).collect();
        let complains = COMPLAINTS.iter().any(|words| text.contains(words));
        if outcome.code != 0 || complains || !silent.is_empty() {
            self.fault(row, &format!("{arguments:?} does not say {silent:?}: {text}"));
        } else {
            self.note(row, Cell::Works);
        }
        if outcome.stdout.trim().is_empty() { outcome.stderr.clone() } else { outcome.stdout.clone() }
    }

    /// This release has no such command or option, and says so.
    pub async fn lacks(&mut self, row: &'static str, arguments: &[&str]) {
        let outcome = self.run(arguments).await;
        let text = outcome.text().to_lowercase();
        if outcome.code == 2 && (text.contains("no such command") || text.contains("no such option")) {
            self.note(row, Cell::Lacks);
        } else {
            self.fault(row, &format!("{arguments:?} is known after all: {text}"));
        }
    }

    /// This release takes another kind of argument there, and says this of the one that is given.
    pub async fn takes_no(&mut self, row: &'static str, arguments: &[&str], said: &str) {
        let outcome = self.run(arguments).await;
        if outcome.code != 0 && outcome.text().contains(said) {
            self.note(row, Cell::Lacks);
        } else {
            self.fault(row, &format!("{arguments:?} is taken after all: {}", outcome.text()));
        }
    }

    /// It must fail, and show the fault that the note names.
    pub async fn cannot(&mut self, row: &'static str, arguments: &[&str], note: &'static Note) {
        let outcome = self.run(arguments).await;
        self.judge_failure(row, arguments, &outcome, note);
    }

    fn judge_failure(
        &mut self,
        row: &'static str,
        arguments: &[&str],
        outcome: &Outcome,
        note: &'static Note,
    ) {
        if note.shows.iter().any(|words| outcome.text().contains(words)) {
            self.note(row, Cell::Cannot(note));
        } else {
            self.fault(row, &format!("{arguments:?} does not show {:?}: {}", note.shows, outcome.text()));
        }
    }

    /// Something that must be so after the command of this row.
    pub fn check(&mut self, row: &'static str, holds: bool, what: &str) {
        if !holds {
            self.fault(row, what);
        }
    }

    /// A GraphQL query as the admin, whose data is this. Errors count against the row.
    pub async fn ask(&mut self, row: &'static str, query: &str) -> Value {
        let body = serde_json::json!({ "query": query });
        let reply = self.admin.call("POST", "/admin/gql").json(&body).send().await.json();
        if reply["errors"].as_array().is_some_and(|errors| !errors.is_empty()) {
            self.fault(row, &format!("{query}: {reply}"));
        }
        reply["data"].clone()
    }

    fn fault(&mut self, row: &'static str, what: &str) {
        self.faults.push(format!("{} with {}: {what}", row, self.version));
    }

    fn note(&mut self, row: &'static str, cell: Cell) {
        // A row of several commands works if all of them do.
        self.cells.entry(row).or_insert(cell);
    }

    /// All rows of the area must have been tried, without fault, and the document must say what came of it.
    pub fn finish(self) {
        assert!(self.faults.is_empty(), "\n{}", self.faults.join("\n\n"));
        table::settle(self.area, self.version, &self.cells);
    }
}
