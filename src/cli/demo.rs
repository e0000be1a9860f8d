//! `wharf demo`: everything at once on one machine with nothing set up, and gone afterwards.

use std::{
    fmt, fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::{
        accounts::{Credentials, FirstAdmin},
        audit::Retention,
        sessions::Limits,
    },
    base::clock::Clock,
    cli::{
        api::Client,
        daemon::{self, Logging},
        failure::{Failure, Result},
        serve,
    },
    demo::images,
    engine::address::EngineUrl,
    http::peer::Proxies,
    server::{Server, Settings},
};

/// The nodes, and how much each fetches in a second: slowly enough to be watched.
const NODES: [(&str, &str, &str); 6] = [
    ("gpu01", "gpu", "700KiB"),
    ("gpu02", "gpu", "900KiB"),
    ("gpu03", "gpu", "500KiB"),
    ("gpu04", "gpu", "300KiB"),
    ("cpu01", "cpu", "800KiB"),
    ("cpu02", "cpu", "600KiB"),
];

/// Domain, group, and the scaling group it may use.
const GROUPS: [(&str, &str, &str); 3] =
    [("robotics", "vision", "gpu"), ("robotics", "control", "cpu"), ("biology", "genomics", "cpu")];

/// E-mail address, role, domain and group.
const PEOPLE: [(&str, &str, &str, &str); 4] = [
    ("admin@robotics.example", "admin", "robotics", "vision"),
    ("user@robotics.example", "user", "robotics", "vision"),
    ("user@biology.example", "user", "biology", "genomics"),
    ("monitor@biology.example", "monitor", "biology", "genomics"),
];

/// Show wharf at work, with a registry, images, agents and users of its own
///
/// Needs no Docker, no network and no set-up: a registry in memory, six agents that keep images in a temporary
/// directory, two domains. All of it is gone when the demo ends with Ctrl-C.
#[derive(Args)]
pub(crate) struct Demo {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = serve::LISTEN)]
    listen: SocketAddr,
    #[command(flatten)]
    logging: Logging,
}

/// A directory that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("wharf-demo-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|why| Failure::failed(path.display().to_string(), why.to_string()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failed(why: &dyn fmt::Display) -> Failure {
    Failure::failed("demo", why.to_string())
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        self.logging.start()?;
        let scratch = Scratch::new()?;
        daemon::block_on("demo", self.show(&scratch))
    }

    async fn show(&self, scratch: &Scratch) -> Result<()> {
        let listener = TcpListener::bind(self.listen).await.map_err(|why| {
            Failure::failed(self.listen.to_string(), format!("can't listen there: {why}"))
                .remedy("choose another address with --listen, or stop what uses it")
        })?;
        let bound = listener.local_addr().map_err(|why| failed(&why))?;
        let shutdown = CancellationToken::new();
        daemon::stop_on_signal(shutdown.clone())?;
        let store = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|why| failed(&why))?;
        let host = store.local_addr().map_err(|why| failed(&why))?.to_string();
        let registry =
            tokio::spawn(crate::demo::registry::serve(store, Arc::new(images::stock()), shutdown.clone()));

        let mut server = Server::open(settings(scratch)?, Clock::system(), shutdown.clone())
            .map_err(|why| failed(&why))?;
        let admin = server.first_admin().ok_or_else(|| failed(&"the directory was used before"))?;
        let running = tokio::spawn(server.run(listener));
        let stage = Stage::new(bound, &admin)?;
        let set = tokio::select! {
            set = stage.set(&host, &admin) => set,
            () = shutdown.cancelled() => Ok(()),
        };
        if let Err(failure) = set {
            shutdown.cancel();
            return Err(failure);
        }
        let _ = writeln!(io::stdout(), "{}", invitation(bound, &admin));
        running.await.map_err(|why| failed(&why))?.map_err(|why| failed(&why))?;
        registry.await.map_err(|why| failed(&why))?.map_err(|why| failed(&why))
    }
}

fn settings(scratch: &Scratch) -> Result<Settings> {
    let engine = |(name, _, limit): &(&str, &str, &str)| {
        let path = scratch.0.join("nodes").join(name);
        fs::create_dir_all(&path).map_err(|why| failed(&why))?;
        EngineUrl::parse(&format!("oci:{}?limit={limit}", path.display()), None).map_err(|why| failed(&why))
    };
    Ok(Settings {
        data_dir: scratch.0.join("data"),
        hosts: Vec::new(),
        engines: NODES.iter().map(engine).collect::<Result<_>>()?,
        sessions: Limits::default(),
        proxies: Proxies::default(),
        agent_silence: Duration::from_secs(30),
        agent_wait: Duration::from_hours(24),
        audit: Retention::default(),
        first_admin: FirstAdmin::default(),
    })
}

fn invitation(bound: SocketAddr, admin: &Credentials) -> String {
    let people: Vec<String> =
        PEOPLE.iter().map(|(email, role, domain, _)| format!("  {email:24}  {role} of {domain}")).collect();
    format!(
        "\nwharf is at work: http://{bound}\n\n  sign in as  {}\n  password    {}\n\n\
         The same password opens the page as somebody who sees less:\n\n{}\n\n\
         For wharf's commands, in another shell:\n\n  export WHARF_ENDPOINT=http://{bound} WHARF_ACCESS_KEY={} \
         WHARF_SECRET_KEY={}\n\nCtrl-C ends it and leaves nothing behind.",
        admin.email,
        admin.password.expose(),
        people.join("\n"),
        admin.access_key,
        admin.secret_key.expose(),
    )
}

/// Sets the scene, over the API that everyone else uses.
struct Stage(Client);

impl Stage {
    fn new(bound: SocketAddr, admin: &Credentials) -> Result<Self> {
        let endpoint = Url::parse(&format!("http://{bound}")).map_err(|why| failed(&why))?;
        Client::with_keys(&endpoint, None, admin.access_key.clone(), admin.secret_key.clone()).map(Self)
    }

    async fn set(&self, host: &str, admin: &Credentials) -> Result<()> {
        let add = "mutation($host: String!, $url: String!) { create_container_registry(hostname: $host, \
            props: { url: $url }) { container_registry { hostname } } }";
        let url = format!("http://{host}");
        let _: Value =
            self.0.ask("create_container_registry", add, json!({ "host": host, "url": url })).await?;
        self.done("rescan_images(registry: $host)", "$host: String!", json!({ "host": host })).await?;
        for (name, scaling_group, _) in NODES {
            self.node(name, scaling_group).await?;
        }
        for (domain, group, scaling_group) in GROUPS {
            self.group(host, domain, group, scaling_group).await?;
        }
        for (email, role, domain, group) in PEOPLE {
            let groups = self.groups(domain, group).await?;
            let props = json!({
                "password": admin.password.expose(), "username": email, "role": role, "domain_name": domain,
                "group_ids": groups,
            });
            let variables = json!({ "email": email, "props": props });
            self.done(
                "create_user(email: $email, props: $props)",
                "$email: String!, $props: UserInput!",
                variables,
            )
            .await?;
        }
        Ok(())
    }

    /// Runs a mutation that answers `ok` and `msg`.
    async fn done(&self, field: &str, declared: &str, variables: Value) -> Result<()> {
        let query = format!("mutation({declared}) {{ {field} {{ ok msg }} }}");
        let name = field.split('(').next().unwrap_or(field);
        self.0.change(name, name, &query, variables).await.map(drop)
    }

    /// Puts a node into its scaling group, once its engine has been met.
    async fn node(&self, name: &str, scaling_group: &str) -> Result<()> {
        self.present("scaling_group", "create_scaling_group", "CreateScalingGroupInput", scaling_group)
            .await?;
        let id = format!("i-{name}");
        let query = "query($id: String!) { agent(agent_id: $id) { id } }";
        while self
            .0
            .find::<Value>(&id, "agent", query, json!({ "id": id }))
            .await?
            .is_none_or(|a| a.is_null())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let props = json!({ "scaling_group": scaling_group });
        let declared = "$id: String!, $props: ModifyAgentInput!";
        self.done("modify_agent(id: $id, props: $props)", declared, json!({ "id": id, "props": props })).await
    }

    /// Makes a domain or a scaling group that is not there yet.
    async fn present(&self, query: &str, create: &str, input: &str, name: &str) -> Result<()> {
        let document = format!("query($name: String) {{ {query}(name: $name) {{ name }} }}");
        let found: Option<Value> = self.0.find(name, query, &document, json!({ "name": name })).await?;
        if found.is_some_and(|found| !found.is_null()) {
            return Ok(());
        }
        let declared = format!("$name: String!, $props: {input}!");
        let mut props = json!({});
        if input == "CreateScalingGroupInput" {
            props = json!({ "driver": "static", "scheduler": "fifo" });
        }
        let variables = json!({ "name": name, "props": props });
        self.done(&format!("{create}(name: $name, props: $props)"), &declared, variables).await
    }

    async fn group(&self, host: &str, domain: &str, group: &str, scaling_group: &str) -> Result<()> {
        self.present("domain", "create_domain", "DomainInput", domain).await?;
        let variables = json!({ "name": domain, "props": { "allowed_docker_registries": [host] } });
        let declared = "$name: String!, $props: ModifyDomainInput!";
        self.done("modify_domain(name: $name, props: $props)", declared, variables).await?;
        let variables = json!({ "name": group, "props": { "domain_name": domain } });
        let declared = "$name: String!, $props: GroupInput!";
        self.done("create_group(name: $name, props: $props)", declared, variables).await?;
        let id = self.groups(domain, group).await?.pop();
        self.done(
            "associate_scaling_group_with_user_group(scaling_group: $name, user_group: $id)",
            "$name: String!, $id: UUID!",
            json!({ "name": scaling_group, "id": id }),
        )
        .await
    }

    async fn groups(&self, domain: &str, group: &str) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Row {
            id: String,
        }
        let query = "query($name: String!, $domain: String) { groups_by_name(name: $name, domain_name: $domain) { id } }";
        let variables = json!({ "name": group, "domain": domain });
        let rows: Vec<Row> = self.0.ask("groups_by_name", query, variables).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}
