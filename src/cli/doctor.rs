//! `wharf doctor`: checks an installation, and says what is wrong and what to do about it.

pub(crate) mod aliases;
mod directory;
mod finding;
mod fleet;
mod registries;
pub(crate) mod server;
mod space;
mod time;

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, parser::ValueSource};

use crate::{
    base::{clock::Clock, loopback, secret::Secret},
    cli::{
        self,
        api::Client,
        connection::{self, Connection},
        doctor::{directory::State, finding::Finding, server::Greeting},
        failure::{Failure, Result},
        serve,
    },
};

/// Look over an installation: the data directory, and the server if it runs
///
/// Prints a line for each check: ok, warn or fail, with what was found and what to do about it. While the server is
/// stopped, the whole data directory is read; while it runs, the server, its registries and its agents are asked.
/// Registries and agents need the key pair of a super-admin; all other checks work without one.
///
/// Nothing is changed. Each registry is tested as by wharf registry test, which adds a row to the audit log. Exit
/// status: 0 if no check fails, even with warnings; 1 if a check fails; 2 for wrong usage.
#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    connection: Connection,
    /// The server's data directory, if it is on this machine
    #[arg(long, value_name = "DIR", default_value = serve::DATA_DIR)]
    data_dir: PathBuf,
}

impl Doctor {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let keys = self.connection.keys_if_given(matches)?;
        let (endpoint, ca) = (&self.connection.endpoint, self.connection.endpoint_ca_file.as_deref());
        let has_keys = keys.is_some();
        let (access_key, secret) = keys.unwrap_or_else(|| (String::new(), Secret::new("")));
        let client = Client::with_keys(endpoint, ca, access_key, secret)?;
        let findings = cli::block_on(async { Ok(self.look_over(&client, has_keys, matches).await) })?;
        finding::report(&findings, self.connection.json)
    }

    async fn look_over(&self, client: &Client, has_keys: bool, matches: &ArgMatches) -> Vec<Finding> {
        let now = Clock::system();
        let (state, mut findings) = directory::look_over(&self.data_dir, now.now()).await;
        let greeting = server::greet(client, &now).await;
        let named = connection::source(matches, "data_dir");
        let place = Target {
            directory: &self.data_dir,
            is_directory_named: named.is_some_and(|from| from != ValueSource::DefaultValue)
                || self.data_dir != Path::new(serve::DATA_DIR),
            is_here: loopback::is_url(&self.connection.endpoint),
        };
        findings.extend(place.directory(state, greeting.is_ok()));
        findings.push(place.server(state, greeting.as_ref()));
        if let Ok(greeting) = &greeting {
            findings.push(server::privacy(&self.connection.endpoint));
            findings.extend(greeting.clock());
            findings.extend(server::readiness(client).await);
            findings.extend(server::look_inside(client, has_keys).await);
        }
        findings
    }
}

/// What to check, and which parts of it the user named.
struct Target<'a> {
    directory: &'a Path,
    is_directory_named: bool,
    /// Whether the server's address is this machine's own.
    is_here: bool,
}

impl Target<'_> {
    /// The finding about a directory that was not found, or that is not the server's.
    fn directory(&self, state: State, server_answers: bool) -> Option<Finding> {
        const CHECK: &str = "data directory";
        let shown = self.directory.display();
        match state {
            State::Absent if self.is_directory_named || (self.is_here && !server_answers) => {
                Some(Finding::fail(
                    CHECK,
                    format!("{shown} has no wharf.redb"),
                    "name the directory of the server with --data-dir",
                ))
            }
            State::Absent if self.is_here => Some(Finding::warn(
                CHECK,
                format!("not looked at: {shown} has no wharf.redb"),
                "if the server's is on this machine, name it with --data-dir",
            )),
            State::Stopped if server_answers && self.is_here => Some(Finding::warn(
                CHECK,
                format!("no server uses {shown}, so the one that answers has another"),
                "name that with --data-dir, or the address of the server of this one with --endpoint",
            )),
            _ => None,
        }
    }

    fn server(&self, state: State, greeting: Result<&Greeting, &Failure>) -> Finding {
        const CHECK: &str = "server";
        let why = match greeting {
            Ok(greeting) => return greeting.version(),
            Err(why) => why,
        };
        let shown = self.directory.display();
        match state {
            State::InUse => Finding::fail(
                CHECK,
                format!("one runs on {shown}, but {}", why.reason()),
                "say where it listens with --endpoint",
            ),
            State::Stopped | State::Unknown if self.is_here => Finding::warn(
                CHECK,
                format!("not running: {}", why.reason()),
                format!("start it with: wharf serve --data-dir {shown}"),
            ),
            _ => Finding::failed(CHECK, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cli::{
        doctor::{Target, directory::State},
        failure::Failure,
    };

    fn place(is_directory_named: bool, is_here: bool) -> Target<'static> {
        Target { directory: Path::new("d"), is_directory_named, is_here }
    }

    #[test]
    fn a_directory_that_is_not_there_is_missed_where_it_was_named_or_nothing_else_is_there() {
        let said = |is_named, is_here, state, answers| {
            place(is_named, is_here).directory(state, answers).map(|finding| finding.to_string())
        };
        let missed = "fail data directory: d has no wharf.redb";
        assert!(said(true, true, State::Absent, true).unwrap().starts_with(missed));
        assert!(said(false, true, State::Absent, false).unwrap().starts_with(missed));
        assert!(
            said(false, true, State::Absent, true).unwrap().starts_with("warn data directory: not looked")
        );
        for answers in [true, false] {
            assert_eq!(said(false, false, State::Absent, answers), None, "the server is elsewhere");
        }
        assert!(said(true, true, State::Stopped, true).unwrap().contains("--endpoint"));
        assert_eq!(said(true, false, State::Stopped, true), None, "it is no concern of a server elsewhere");
        assert_eq!(said(true, true, State::InUse, true), None);
    }

    #[test]
    fn a_server_that_does_not_answer_is_missed_unless_it_is_only_stopped() {
        let why = Failure::failed("http://h", "refused").remedy("start it");
        let said = |is_here, state| place(true, is_here).server(state, Err(&why)).to_string();
        assert!(said(true, State::Stopped).starts_with("warn server: not running: http://h: refused; start"));
        assert_eq!(said(false, State::Stopped), "fail server: http://h: refused; start it");
        assert_eq!(said(true, State::Absent), "fail server: http://h: refused; start it");
        assert!(
            said(true, State::InUse).starts_with("fail server: one runs on d, but http://h: refused; say")
        );
    }
}
