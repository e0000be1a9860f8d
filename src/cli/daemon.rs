//! What the commands that stay have in common: logs, signals, and the engine that Docker's own variables name.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::failure::{Failure, Result},
    engine::address::Environment,
};

/// How such a command logs.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// How logs are written: text on a terminal and JSON elsewhere, or always one of them
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, or a filter such as info,wharf::scan=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

impl Logging {
    pub(crate) fn start(&self) -> Result<()> {
        // poem announces itself in lines that say less than ours. A filter that names it wins over this.
        // The last word is ours where frames are shown whole: the registries' passwords and grants are in them.
        let filter = EnvFilter::try_new(format!(
            "poem=warn,{},tungstenite=info,tokio_tungstenite=info",
            self.log_level
        ))
        .map_err(|why| Failure::usage(format!("--log-level {:?}: {why}", self.log_level)))?;
        let is_text = match self.log_format {
            LogFormat::Auto => io::stderr().is_terminal(),
            LogFormat::Text => true,
            LogFormat::Json => false,
        };
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log);
        let started = if is_text { lines.try_init() } else { lines.json().flatten_event(true).try_init() };
        started.map_err(|why| Failure::failed("logging", why.to_string()))
    }
}

/// Where log lines go. One that can't be written is lost and fails nobody: the reader of a pipe may be gone, the disk of a
/// file full, and `tracing` would say so on the same stderr, which panics.
struct Log;

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is in memory out of core dumps, and other users' debuggers off it: passwords and keys pass through there.
pub(crate) fn keep_memory_private() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|why| Failure::failed("memory", why.to_string()))?;
    Ok(())
}

/// The stack of each thread: what the system gives the first one, where tokio would take a quarter. Everything that
/// calls itself is bounded well below either (documents, filters, expressions, JSON); memory is taken as it is used.
const STACK: usize = 8 << 20;

/// Runs it on all processors, with as many descriptors as the machine lets us have.
pub(crate) fn block_on(what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    runtime.map_err(|why| Failure::failed(what, why.to_string()))?.block_on(work)
}

/// Most systems start a process with 1,024 descriptors for the sake of old programs, and let it have many more. Where
/// it may not, it makes do with what there is.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%why, "the limit on open files could not be raised");
    }
}

/// What Docker's own command line goes by.
pub(crate) fn environment() -> Environment {
    Environment {
        host: env::var("DOCKER_HOST").ok(),
        certificates: env::var_os("DOCKER_CERT_PATH").map(PathBuf::from),
        tls: env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()),
    }
}

/// The first SIGTERM or SIGINT asks the command to stop; a second one ends it at once. A file that reaches the limit on
/// its size ends nothing: what can't be written is refused as on a full disk.
pub(crate) fn stop_on_signal(shutdown: CancellationToken) -> Result<()> {
    let listen =
        |kind| tokio::signal::unix::signal(kind).map_err(|why| Failure::failed("signals", why.to_string()));
    // Whoever listens once is never ended by the signal again.
    drop(listen(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_first {
                tracing::info!("stopping; once more ends at once");
                shutdown.cancel();
            } else {
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

/// A terminal that is closed asks the command to stop, unless whoever started it said that it may outlive the terminal
/// (`nohup`).
pub(crate) fn stop_on_hangup(shutdown: CancellationToken) -> Result<()> {
    if is_ignored(SignalKind::hangup()) {
        return Ok(());
    }
    let signal = tokio::signal::unix::signal(SignalKind::hangup());
    let mut hangup = signal.map_err(|why| Failure::failed("signals", why.to_string()))?;
    tokio::spawn(async move {
        hangup.recv().await;
        shutdown.cancel();
    });
    Ok(())
}

/// Whether the process was started with this signal ignored; where the system does not say, it was not.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}
