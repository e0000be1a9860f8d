//! Another machine: the real binary as an agent, and clients that speak the agents' protocol freely.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use wharf::base::secret::Secret;
use wharf::wire::message::{Credential, FromAgent, Hello, ToAgent};
use wharf::wire::socket::{Broken, Socket};
use wharf::wire::{MAX_MESSAGE, PATH};

use super::api::Api;
use super::app::App;
use super::process::{Outcome, Process, read, run};
use super::wait::{PATIENCE, until};

/// An agent's process and its state directory.
pub struct Machine {
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Machine {
    /// Returns an agent of this manager, with this engine; it is not started.
    pub fn new(manager: &str, engine: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-agent-").tempdir().expect("a directory");
        let arguments = ["--manager", manager, "--engine", engine].map(str::to_owned).into();
        Self { folder, arguments, process: None }
    }

    /// Adds arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn credential_file(&self) -> PathBuf {
        self.state().join("credential.json")
    }

    fn command(&self, token: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .arg("agent")
            .args(&self.arguments)
            .arg("--state-dir")
            .arg(self.state())
            .env_clear()
            .env("HOME", self.folder.path());
        if !self.arguments.iter().any(|argument| argument == "--log-level") {
            command.args(["--log-level", "info,wharf=debug"]);
        }
        if let Some(token) = token {
            command.env("WHARF_TOKEN", token);
        }
        command
    }

    /// Starts it; with a token if it has not joined yet.
    pub fn start(&mut self, token: Option<&str>) {
        let log = self.folder.path().join("log");
        self.process = Some(Process::spawn(&mut self.command(token), &log, &log).expect("the agent runs"));
    }

    /// Runs an agent that is expected to end by itself.
    pub async fn ends(&self, token: Option<&str>) -> Outcome {
        run(&mut self.command(token), self.folder.path(), PATIENCE).await
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running agent")
    }

    /// Returns its log over all its starts.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    pub async fn logs(&self, words: &str) {
        let said = async || self.log().contains(words).then_some(());
        until(&format!("the agent to say {words:?}"), PATIENCE, said).await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the agent's log, last line first\n{}\n---", tail.join("\n"));
        }
    }
}

/// Creates a token with which one agent may join.
pub async fn token(api: &Api, props: Value) -> String {
    let document = "mutation($props: CreateAgentTokenInput) {
        create_agent_token(props: $props) { ok msg token } }";
    let answer = api.ask(document, json!({"props": props})).await;
    let token = answer["create_agent_token"]["token"].as_str();
    token.unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
}

/// Returns an agent as the API shows it.
pub async fn agent(api: &Api, id: &str) -> Value {
    let query =
        "query($id: String!) { agent(agent_id: $id) { id status status_reason schedulable scaling_group
        architecture engine addr labels { key value } free_bytes images_bytes } }";
    api.graphql(query, json!({"id": id})).await["data"]["agent"].clone()
}

/// Waits until an agent has this status.
pub async fn becomes(api: &Api, id: &str, status: &str) -> Value {
    let what = format!("{id} to be {status}");
    until(&what, PATIENCE, async || {
        let agent = agent(api, id).await;
        (agent["status"] == status).then_some(agent)
    })
    .await
}

/// One end of a link, operated by the test.
pub struct Speaker {
    socket: Socket<TcpStream>,
}

/// Returns a hello that joins with this token.
pub fn hello(token: Option<&str>, key: &str) -> Hello {
    Hello {
        protocols: vec![1],
        version: "test".into(),
        credential: Credential { key: key.into(), secret: Secret::new("s".repeat(64)) },
        token: token.map(Secret::new),
        id: None,
        scaling_group: None,
        labels: std::collections::BTreeMap::new(),
        hostname: "speaker".into(),
        instance: format!("instance-of-{key}"),
        private: true,
        peer_url: None,
        features: Vec::new(),
    }
}

impl Speaker {
    /// Connects and sends nothing.
    pub async fn connect(app: &App) -> Self {
        Self::dial(app).await.expect("a link")
    }

    /// Connects; the manager may refuse.
    pub async fn dial(app: &App) -> Result<Self, Broken> {
        let host = app.url().trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await.expect("a connection");
        let socket = Socket::client(stream, &format!("ws://{host}{PATH}"), MAX_MESSAGE).await?;
        Ok(Self { socket })
    }

    /// Connects and says hello; returns the id, or the refusal.
    pub async fn join(app: &App, hello: Hello) -> Result<(Self, String), String> {
        let mut speaker = Self::connect(app).await;
        speaker.say(&FromAgent::Hello(Box::new(hello))).await;
        match speaker.hear().await {
            Ok(ToAgent::Welcome(welcome)) => Ok((speaker, welcome.id)),
            Ok(ToAgent::Refused(refusal)) => Err(format!("{:?}: {}", refusal.code, refusal.reason)),
            other => panic!("neither welcome nor refusal: {other:?}"),
        }
    }

    /// Sends a message; whether it arrives is not known.
    pub async fn say(&mut self, message: &impl serde::Serialize) {
        let _ = self.socket.send(message).await;
    }

    /// Returns the next message.
    pub async fn hear(&mut self) -> Result<ToAgent, Broken> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.receive()).await;
            if let Some(message) = next.expect("the manager says something")?.message {
                return Ok(message);
            }
        }
    }

    /// Returns the reason why the manager ends the link.
    pub async fn refusal(&mut self) -> String {
        loop {
            match self.hear().await {
                Ok(ToAgent::Refused(refusal)) => return refusal.reason,
                Ok(_) => {}
                Err(broken) => panic!("thrown out without a word: {broken}"),
            }
        }
    }
}

/// Returns the permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().expect("a file").permissions().mode() & 0o777
}
