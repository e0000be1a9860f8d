//! `wharf demo`: a whole installation on one machine without set-up, removed afterwards.

mod play;
mod scratch;
pub(crate) mod stage;

use std::{
    fmt,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use parking_lot::RwLock;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::{
        audit::Retention,
        first_admin::{Credentials, FirstAdmin},
        sessions::SessionLimits,
    },
    base::{clock::Clock, secret::Secret},
    cli::{
        api::Client,
        browser, connection,
        credentials::near,
        daemon::{self, Logging},
        demo::{
            scratch::Scratch,
            stage::{FLAKY, NODES, PEOPLE, Stage},
        },
        failure::{Failure, Result},
    },
    demo::{images, node::Node},
    http::peer::Proxies,
    server::{Server, Settings},
};

/// How long requests in progress may take when the demo ends; nothing in them is needed any more.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Show wharf at work, with a registry, images, agents and users of its own
///
/// Needs no Docker, no network and no set-up: a registry in memory, six agents that keep images in a temporary
/// directory, two domains. Images are being loaded when the page opens, and one agent is flaky. All of it is gone when
/// the demo ends with Ctrl-C.
#[derive(Args)]
#[command(mut_arg("log_level", |level| level.default_value("error")))]
pub(crate) struct Demo {
    /// Address and port to listen on [default: 127.0.0.1:8090, or another port if that one is taken]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Don't open a browser; otherwise one opens if stdout is a terminal with a display
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    logging: Logging,
}

fn failed(why: &dyn fmt::Display) -> Failure {
    Failure::failed("demo", why.to_string())
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        self.logging.start()?;
        let scratch = Scratch::new()?;
        daemon::block_on("demo", self.show(&scratch))?;
        drop(scratch);
        let _ = writeln!(io::stdout(), "\nThe demo is over, and nothing of it is left.");
        Ok(())
    }

    async fn show(&self, scratch: &Scratch) -> Result<()> {
        let listener = self.bind().await?;
        let bound = listener.local_addr().map_err(|why| failed(&why))?;
        let shutdown = CancellationToken::new();
        daemon::stop_on_signal(shutdown.clone())?;
        daemon::stop_on_hangup(shutdown.clone())?;
        let registry = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|why| failed(&why))?;
        let registry_at = registry.local_addr().map_err(|why| failed(&why))?;
        let stock = Arc::new(RwLock::new(images::stock()));
        tokio::spawn(crate::demo::registry::serve(registry, Arc::clone(&stock), shutdown.clone()));

        let mut server = Server::open(settings(scratch)?, Clock::system(), shutdown.clone())
            .map_err(|why| failed(&why))?;
        let admin = server.first_admin().ok_or_else(|| failed(&"the directory was used before"))?;
        let nodes = nodes(scratch).await?;
        for (node, _) in &nodes {
            server.add_engine(node.address(), Arc::clone(node) as _);
        }
        let running = tokio::spawn(server.run(listener));
        let open = async {
            let stage = Stage(client(bound, &admin)?);
            stage.set(registry_at, &admin).await?;
            play::push(&stage, &stock).await?;
            for (node, per_second) in &nodes {
                node.set_limit(*per_second);
            }
            let _ = writeln!(io::stdout(), "{}", invitation(bound, &admin));
            if !self.no_browser {
                browser::open(&format!("http://{}/presence", near(bound)));
            }
            let flaky = nodes.iter().zip(NODES).find(|(_, (name, ..))| *name == FLAKY);
            if let Some(((node, per_second), _)) = flaky {
                play::play(&stage, node, *per_second).await;
            }
            shutdown.cancelled().await;
            Ok(())
        };
        let ended = tokio::select! {
            ended = open => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        shutdown.cancel();
        // Requests that are still in progress are cut off then.
        let _ = timeout(LAST_WORDS, running).await;
        ended
    }

    /// Listens on the given address; without one, on the usual address, or on any port if that one is taken.
    async fn bind(&self) -> Result<TcpListener> {
        let wanted = self.listen.map_or_else(|| connection::LISTEN.to_owned(), |listen| listen.to_string());
        match TcpListener::bind(&wanted).await {
            Ok(listener) => Ok(listener),
            Err(why) if why.kind() == io::ErrorKind::AddrInUse && self.listen.is_none() => {
                let _ = writeln!(io::stdout(), "{wanted} is in use, so the demo takes another port.");
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|why| failed(&why))
            }
            Err(why) => Err(Failure::failed(wanted, format!("can't listen there: {why}"))
                .remedy("choose another address with --listen, or stop what uses it")),
        }
    }
}

/// The running nodes, each with the number of bytes a second that it fetches once the demo is shown.
async fn nodes(scratch: &Scratch) -> Result<Vec<(Arc<Node>, NonZeroU64)>> {
    let mut nodes = Vec::new();
    for (name, _, _, kibibytes) in NODES {
        let node = Node::new(scratch.path().join("nodes").join(name));
        node.switch_on(None).await.map_err(|why| failed(&why))?;
        let per_second = NonZeroU64::new(kibibytes * 1024).unwrap_or(NonZeroU64::MIN);
        nodes.push((Arc::new(node), per_second));
    }
    Ok(nodes)
}

fn settings(scratch: &Scratch) -> Result<Settings> {
    Ok(Settings {
        data_dir: scratch.path().join("data"),
        hosts: Vec::new(),
        engines: Vec::new(),
        sessions: SessionLimits::default(),
        proxies: Proxies::default(),
        agent_silence: Duration::from_secs(30),
        agent_wait: Duration::from_hours(24),
        seed_first: false,
        cache: None,
        relay: true,
        credentials_dir: None,
        audit: Retention::default(),
        first_admin: Some(FirstAdmin { password: Some(password()?), ..FirstAdmin::default() }),
    })
}

/// A password that is easy to type: two words that can be spoken, 32 random bits (proquints, arXiv:0901.4016).
fn password() -> Result<Secret> {
    const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
    const VOWELS: &[u8; 4] = b"aiou";
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).map_err(|why| failed(&why))?;
    let mut spoken = String::new();
    for (place, byte) in random.into_iter().enumerate() {
        if place == 5 {
            spoken.push('-');
        }
        let letters: &[u8] = if place % 5 % 2 == 0 { CONSONANTS } else { VOWELS };
        spoken.extend(letters.get(usize::from(byte) % letters.len()).copied().map(char::from));
    }
    Ok(Secret::new(spoken))
}

fn client(bound: SocketAddr, admin: &Credentials) -> Result<Client> {
    let endpoint = Url::parse(&format!("http://{}", near(bound))).map_err(|why| failed(&why))?;
    Client::with_keys(&endpoint, None, admin.access_key.clone(), admin.secret_key.clone())
}

fn invitation(bound: SocketAddr, admin: &Credentials) -> String {
    let people: Vec<String> =
        PEOPLE.iter().map(|(email, role, domain, _)| format!("  {email:24}  {role} of {domain}")).collect();
    let at = near(bound);
    format!(
        "\nwharf is at work: http://{at}\n\n  sign in as  {}\n  password    {}\n\n\
         Presence shows images on their way to six agents; i-{FLAKY} goes away now and then, and comes back.\n\
         Load one yourself: choose it on Images, Preload, and write where to, such as @gpu or i-gpu[01-03].\n\n\
         The same password opens the page as somebody who sees less:\n\n{}\n\n\
         For wharf's commands, in another shell:\n\n  export WHARF_ENDPOINT=http://{at} WHARF_ACCESS_KEY={} \
         WHARF_SECRET_KEY={}\n\nCtrl-C ends it and leaves nothing behind.",
        admin.email,
        admin.password.expose(),
        people.join("\n"),
        admin.access_key,
        admin.secret_key.expose(),
    )
}

#[cfg(test)]
mod tests {
    use super::password;

    #[test]
    fn a_password_can_be_spoken_and_is_another_each_time() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert_ne!(one, other);
        let shape: String = one
            .expose()
            .chars()
            .map(|c| match c {
                'a' | 'i' | 'o' | 'u' => 'v',
                '-' => '-',
                _ => 'c',
            })
            .collect();
        assert_eq!(shape, "cvcvc-cvcvc");
    }
}
