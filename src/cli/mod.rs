//! The command line: one file per command. Commands talk to a server over the same API as all other clients.

#![expect(clippy::doc_markdown, reason = "clap prints these doc comments, backticks and all, as help texts")]

mod agent;
mod api;
mod audit;
mod backup;
mod bars;
mod browser;
mod bytes;
mod changes;
mod compact;
mod completion;
mod connection;
mod credentials;
mod daemon;
mod demo;
mod doctor;
mod domain;
mod duration;
mod failure;
mod follow;
mod group;
mod image;
mod join;
mod json;
mod keypair;
mod node;
mod operation;
mod password;
mod presence;
#[cfg(test)]
mod reference;
mod registry;
mod reset_password;
mod retention;
mod room;
mod rule;
mod scaling_group;
mod schema;
#[cfg(test)]
mod scripted;
mod serve;
mod sse;
mod table;
mod task;
mod task_detail;
mod text;
mod token;
mod transfer;
mod user;
mod why;

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::failure::{Failure, Result},
    config,
};

/// The commands that talk to a server, and so read the file's `[client]` table.
const CLIENTS: [config::Shared<'static>; 1] = [(
    "client",
    &[
        "agent",
        "audit",
        "backup",
        "doctor",
        "domain",
        "group",
        "image",
        "keypair",
        "preload",
        "registry",
        "retention",
        "rule",
        "scaling-group",
        "task",
        "token",
        "unload",
        "user",
    ],
)];

/// A catalog of container images: which users may see them, and which nodes of a lab have them
///
/// Every flag also reads the environment variable WHARF_<FLAG>, then the TOML file named by --config
/// (a table per command: [serve], [client] for all that talk to a server, [image.list] …).
/// Exit status: 0 done, 1 failed, 2 wrong usage.
#[derive(Parser)]
#[command(
    name = "wharf",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// Configuration file in TOML [default: ~/.config/wharf/config.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Image(image::Image),
    Preload(transfer::Preload),
    Unload(transfer::Unload),
    Rule(rule::Rule),
    Retention(retention::Retention),
    Agent(Box<agent::Agent>),
    Registry(registry::Registry),
    Task(task::Task),
    User(user::User),
    Group(group::Group),
    Domain(domain::Domain),
    ScalingGroup(scaling_group::ScalingGroup),
    Keypair(keypair::Keypair),
    Token(token::Token),
    Audit(audit::Audit),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Compact(compact::Compact),
    Doctor(doctor::Doctor),
    Completion(completion::Completion),
    Schema(schema::Schema),
}

/// Runs the command that the process was started with. Reports a failure on stderr, and in the exit code.
pub fn run() -> ExitCode {
    match start(&env::args_os().collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is gone, the failure can't be reported.
            let _ = writeln!(io::stderr(), "wharf: {failure}");
            failure.exit_code()
        }
    }
}

fn start(arguments: &[OsString]) -> Result<()> {
    let command = configured(Cli::command(), arguments)?;
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return answered_by_clap(&error, arguments),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::usage(config::one_line(&error)))?;
    dispatch(cli.command, &matches)
}

fn dispatch(command: Command, matches: &ArgMatches) -> Result<()> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::Image(image) => image.run(matches),
        Command::Preload(preload) => preload.run(matches),
        Command::Unload(unload) => unload.run(matches),
        Command::Rule(rule) => rule.run(matches),
        Command::Retention(retention) => retention.run(matches),
        Command::Agent(agent) => agent.run(matches),
        Command::Registry(registry) => registry.run(matches),
        Command::Task(task) => task.run(matches),
        Command::User(user) => user.run(matches),
        Command::Group(group) => group.run(matches),
        Command::Domain(domain) => domain.run(matches),
        Command::ScalingGroup(scaling_group) => scaling_group.run(matches),
        Command::Keypair(keypair) => keypair.run(matches),
        Command::Token(token) => token.run(matches),
        Command::Audit(audit) => audit.run(matches),
        Command::Backup(backup) => backup.run(matches),
        Command::Restore(restore) => restore.run(),
        Command::Compact(compact) => compact.run(),
        Command::Doctor(doctor) => doctor.run(matches),
        Command::Completion(completion) => completion.run(Cli::command()),
        Command::Schema(schema) => schema.run(),
    }
}

fn configured(command: clap::Command, arguments: &[OsString]) -> Result<clap::Command> {
    config::check_environment("WHARF", env::vars_os()).map_err(Failure::usage)?;
    let named = config::named_file(arguments);
    let path = named.or_else(|| home_file().filter(|path| path.exists()));
    let file = path.map(|path| config::File::read(&path)).transpose();
    let command = file.and_then(|file| config::layered(command, "WHARF", file.as_ref(), &CLIENTS));
    let command = command.map_err(|invalid| Failure::usage(invalid.to_string()))?;
    Ok(connection::with_official_environment(command, |name| env::var(name).ok()))
}

fn home_file() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(base.join("wharf/config.toml"))
}

/// Help and version were requested and go to stdout; anything else is wrong usage.
fn answered_by_clap(error: &clap::Error, arguments: &[OsString]) -> Result<()> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that closes the pipe early, as `head` does, has what it wanted.
            let _ = error.print();
            Ok(())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(Failure::usage("no command given"))
        }
        _ => {
            let help = format!("see {} --help", asked_command(arguments));
            Err(Failure::usage(config::one_line(error)).remedy(help))
        }
    }
}

/// The command that these arguments name, as far as it exists: `wharf image list`.
fn asked_command(arguments: &[OsString]) -> String {
    let top = Cli::command();
    let (mut command, mut names) = (&top, vec!["wharf"]);
    for argument in arguments.iter().skip(1) {
        if let Some(subcommand) = command.find_subcommand(argument) {
            names.push(subcommand.get_name());
            command = subcommand;
        }
    }
    names.join(" ")
}

/// Runs a client command on one thread, which is enough to wait for one server.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?.block_on(work)
}

/// Runs a command that must leave nothing half done. If Ctrl-C, SIGTERM or a closed terminal stops it, it calls `tidy`
/// and returns a failure. Work on a thread of its own goes on until the process ends.
fn until_stopped<T>(what: &str, work: impl Future<Output = Result<T>>, tidy: impl FnOnce()) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        daemon::stop_on_signal(stop.clone())?;
        daemon::stop_on_hangup(stop.clone())?;
        tokio::select! {
            done = work => done,
            () = stop.cancelled() => {
                tidy();
                Err(Failure::failed(what, "stopped; what was half done is removed"))
            }
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Runs slow work on a thread of its own, so that signals are still handled.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::failed("thread", error.to_string()))?
}

/// Whether stdout is read by a person, who can use a hint, and not by a script, which a hint would break.
fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// Prints what a mutation did.
fn done(outcome: &impl api::Payload, said: &str, as_json: bool) -> Result<()> {
    if as_json { json::print(outcome) } else { print(&text::one_line(said)) }
}

/// A table cell for a yes-or-no value.
fn yes_or_no(answer: Option<bool>) -> String {
    match answer {
        Some(true) => "yes".into(),
        Some(false) => "no".into(),
        None => String::new(),
    }
}

/// Prints a text for people on stderr, whatever stdout is.
fn note(text: &str) {
    // stderr may have no reader.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes to stdout. A reader that has gone away (`wharf image list | head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("stdout", error.to_string()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::{CLIENTS, Cli};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        crate::config::layered(Cli::command(), "WHARF", None, &CLIENTS).unwrap().debug_assert();
    }

    #[test]
    fn every_flag_reads_the_environment() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let expected = format!("WHARF_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(arg.get_env().unwrap().to_str().unwrap(), expected, "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&crate::config::layered(Cli::command(), "WHARF", None, &CLIENTS).unwrap());
    }

    #[test]
    fn every_command_and_flag_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn a_complaint_names_the_commands_own_help() {
        for (line, expected) in [
            ("wharf image list --nme x", "wharf image list"),
            ("wharf --config x task show 12", "wharf task show"),
            ("wharf nothing", "wharf"),
        ] {
            let arguments: Vec<_> = line.split_whitespace().map(std::ffi::OsString::from).collect();
            assert_eq!(super::asked_command(&arguments), expected, "{line}");
        }
    }

    #[test]
    fn commands_about_room_parse_as_documented() {
        for line in [
            "wharf preload py * --make-room",
            "wharf unload py * --plan",
            "wharf image pin py",
            "wharf image pin cr.example.org/python:3.9 gpu[01-16] --json",
            "wharf image unpin py",
            "wharf image pins --json",
            "wharf image changes --since 7d --until 1d --registry cr.example.org --limit 50",
            "wharf image unknown",
            "wharf image unknown @gpu --json",
            "wharf agent images gpu01 --json",
            "wharf retention list --json",
            "wharf retention show old",
            "wharf retention plan old --json",
            "wharf retention add old * * --unused-for 30d --keep-last 2 --plan",
            "wharf retention add full * @gpu --when-below 50GiB --until 80GiB --unknown-images --confirm",
            "wharf retention add full * @gpu --when-below 50GiB --window 22:00-06:00 --time-zone UTC --disabled",
            "wharf retention change old --unused-for 0 --keep-last 3 --unknown-images=false --always",
            "wharf retention remove old",
            "wharf retention enable old",
            "wharf retention disable old",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
    }

    #[test]
    fn commands_parse_as_documented() {
        for line in [
            "wharf serve --data-dir /tmp/x --listen 0.0.0.0:80 --log-format json --host a --host b",
            "wharf demo --listen 127.0.0.1:9000",
            "wharf image list --registry cr.example.org --installed --name python --json",
            "wharf image show cr.example.org/python:3.9 --endpoint http://127.0.0.1:1",
            "wharf image rescan",
            "wharf image rescan cr.example.org --project stable --confirm-removals --no-follow",
            "wharf image scan cr.example.org/python:3.9",
            "wharf image forget py --architecture aarch64",
            "wharf image alias py cr.example.org/python:3.9",
            "wharf image dealias py",
            "wharf image presence py --json",
            "wharf image presence --agent gpu01",
            "wharf image presence --agent gpu01 py",
            "wharf preload py gpu[01-16]!gpu03 --plan",
            "wharf preload py * --no-follow --json",
            "wharf preload py torch cr.example.org/python:3.9 gpu01 --no-follow",
            "wharf unload py {zone=a} --no-follow",
            "wharf rule list --json",
            "wharf rule show nightly",
            "wharf rule add nightly cr.example.org/stable/* gpu[01-16]!gpu03 --window 22:00-06:00 --time-zone Asia/Seoul",
            "wharf rule add nightly * * --plan",
            "wharf rule add nightly * * --disabled",
            "wharf rule change nightly --images */python:* --agents @gpu --always",
            "wharf rule change nightly --window 23:00-05:00 --time-zone=",
            "wharf rule remove nightly",
            "wharf rule enable nightly",
            "wharf rule disable nightly",
            "wharf agent list --status LOST --scaling-group default",
            "wharf agent show gpu01",
            "wharf agent label gpu01 zone=a rack-",
            "wharf agent set !(gpu[01-16],{zone=a})",
            "wharf agent --manager https://wharf.lab --token whj_a_b --id i-gpu01 --scaling-group gpu --label zone=a \
             --engine unix:///run/docker.sock --state-dir /tmp/x --ca-file ca.pem --log-format json",
            "wharf agent --manager https://wharf.lab --token-file /run/token",
            "wharf agent token create --id i-gpu01 --scaling-group gpu --expires 7d",
            "wharf agent token create --uses 16 --json",
            "wharf agent token list",
            "wharf agent token revoke ab12",
            "wharf agent drain i-gpu01 --undo",
            "wharf agent remove i-gpu01",
            "wharf registry list --json",
            "wharf registry add cr.example.org --url https://cr.example.org --username u --password-stdin \
             --project a --project b --insecure --ca-file x.pem --kernelspec-only --trusted-host auth.example.org",
            "wharf registry add cr.example.org --username u --password-file harbor",
            "wharf registry add cr.example.org --username u --password-env WHARF_REGISTRY_LAB",
            "wharf registry change cr.example.org --auth-file config.json",
            "wharf registry change cr.example.org --proxy http://proxy.lab:3128",
            "wharf registry change cr.example.org --insecure=false --anonymous",
            "wharf registry remove cr.example.org",
            "wharf registry test cr.example.org",
            "wharf task list --limit 5",
            "wharf task show 6b1f27e4-0c0d-4d0e-9f35-6d5f77686172",
            "wharf task follow 6b1f27e4-0c0d-4d0e-9f35-6d5f77686172 --json",
            "wharf task cancel 6b1f27e4-0c0d-4d0e-9f35-6d5f77686172",
            "wharf user reset-password admin@localhost --data-dir /tmp/x --keypair --password-stdin --show",
            "wharf user list --domain lab --group vision --status inactive --json",
            "wharf user show ann@lab",
            "wharf user add ann@lab --role admin --domain lab --group vision,speech --full-name Ann --password-stdin",
            "wharf user change ann@lab --status inactive --username ann --description x",
            "wharf user remove ann@lab --purge",
            "wharf group list --domain lab",
            "wharf group add vision --domain lab --description x",
            "wharf group change vision --domain lab --name sight --active=false",
            "wharf group join vision ann@lab bob@lab",
            "wharf group leave vision ann@lab",
            "wharf group remove vision --purge",
            "wharf domain list",
            "wharf domain add lab --allow cr.example.org --allow localhost:5000",
            "wharf domain change lab --disallow cr.example.org --active",
            "wharf domain remove lab --purge",
            "wharf scaling-group add gpu --description x",
            "wharf scaling-group change gpu --active=false",
            "wharf scaling-group allow gpu --domain lab",
            "wharf scaling-group allow gpu --group vision --domain lab",
            "wharf scaling-group disallow gpu --keypair AKIAEXAMPLE",
            "wharf scaling-group remove gpu",
            "wharf keypair list --user ann@lab",
            "wharf keypair add ann@lab --rate-limit 0",
            "wharf keypair change AKIAEXAMPLE --active=false",
            "wharf keypair rotate AKIAEXAMPLE",
            "wharf keypair remove AKIAEXAMPLE",
            "wharf token create ci --scope full --expires-in-days 7",
            "wharf token list --user ann@lab",
            "wharf token revoke 6b1f27e4-0c0d-4d0e-9f35-6d5f77686172",
            "wharf audit --user ann@lab --action alias_image --target py --outcome denied --since 7d --until 1h --json",
            "wharf doctor --data-dir /tmp/x --endpoint http://127.0.0.1:1 --json",
            "wharf completion bash",
            "wharf schema",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_does_not_parse() {
        for line in [
            "wharf image",
            "wharf image show",
            "wharf image presence",
            "wharf preload py",
            "wharf preload py a --plan --no-follow",
            "wharf unload py a --plan --no-follow",
            "wharf retention add old * * --plan --confirm",
            "wharf retention add old * * --unused-for 30",
            "wharf rule add nightly *",
            "wharf rule add nightly * * --disabled --plan",
            "wharf rule change nightly --always --window 22:00-06:00",
            "wharf agent list --status gone",
            "wharf agent label gpu01",
            "wharf agent label gpu01 zone",
            "wharf agent label gpu01 zone=",
            "wharf agent --manager https://wharf.lab --token a --token-file b",
            "wharf agent token create --expires soon",
            "wharf task show 12",
            "wharf user add",
            "wharf user add ann@lab --role king",
            "wharf group join vision",
            "wharf domain add lab --allow ftp://cr.example.org",
            "wharf scaling-group allow gpu",
            "wharf scaling-group allow gpu --domain lab --keypair AKIAEXAMPLE",
            "wharf token create ci --scope all",
            "wharf audit --since yesterday",
            "wharf registry add",
            "wharf user reset-password",
            "wharf registry add ftp://cr.example.org",
            "wharf registry change cr.example.org --anonymous --username u",
            "wharf image list --endpoint ftp://x",
            "wharf serve --listen nowhere",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
