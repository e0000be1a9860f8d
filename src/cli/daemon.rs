//! Shared by the commands that run until stopped: logs, signals, and the engine that Docker's own variables name.

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

/// The logging flags of such a command.
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
        // poem's own lines at startup say less than wharf's; a filter that names poem wins over this. The two entries
        // at the end can't be overridden: these crates would log whole frames, with the registries' passwords and
        // grants.
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

/// The destination of log lines. A line that can't be written is dropped without an error: the reader of a pipe may be
/// gone, or the disk of a file full. `tracing` would report the error on the same stderr, which panics.
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

/// Keeps the process's memory out of core dumps, and away from other users' debuggers: it holds passwords and keys.
pub(crate) fn keep_memory_private() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|why| Failure::failed("memory", why.to_string()))?;
    Ok(())
}

/// The stack of each thread, in bytes: what the system gives the first thread; tokio's default is a quarter of it. All
/// recursion is bounded well below either (documents, filters, expressions, JSON). Memory is taken only as it is used.
const STACK: usize = 8 << 20;

/// Runs `work` on all processors, with as many file descriptors as the machine allows.
pub(crate) fn block_on(what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    runtime.map_err(|why| Failure::failed(what, why.to_string()))?.block_on(work)
}

/// Raises the limit on file descriptors. Most systems start a process with 1,024 for the sake of old programs, but
/// allow many more. If raising fails, the old limit stays.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%why, "the limit on open files could not be raised");
    }
}

/// The environment variables that Docker's own command line reads.
pub(crate) fn environment() -> Environment {
    Environment {
        host: env::var("DOCKER_HOST").ok(),
        certificates: env::var_os("DOCKER_CERT_PATH").map(PathBuf::from),
        tls: env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()),
    }
}

/// The first SIGTERM or SIGINT asks the command to stop; a second one ends it at once. SIGXFSZ is ignored: writing
/// beyond the limit on a file's size fails as on a full disk, and does not end the process.
pub(crate) fn stop_on_signal(shutdown: CancellationToken) -> Result<()> {
    let listen =
        |kind| tokio::signal::unix::signal(kind).map_err(|why| Failure::failed("signals", why.to_string()));
    // After the first listener is made, the signal never ends the process again.
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

/// Closing the terminal asks the command to stop, unless it was started to outlive the terminal (`nohup`).
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

/// Whether the process was started with this signal ignored; `false` if the system does not say.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}
