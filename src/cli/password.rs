//! Reads passwords from a pipe or a prompt, never from a flag: the process list would show them to every user.

use std::io::{self, IsTerminal, Read};

use crate::{
    access::generate::random_text,
    base::secret::Secret,
    cli::failure::{Failure, Result},
};

/// Longest password that is read, in bytes; tokens of cloud registries come close to half of it.
const MAX_PASSWORD: u64 = 16 << 10;

/// Reads all of stdin, without the line break that `echo` adds.
pub(crate) fn from_stdin() -> Result<Secret> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_PASSWORD + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed("stdin", error.to_string()))?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Failure::failed("stdin", "longer than any password"));
    }
    not_empty(text.trim_end_matches(['\r', '\n']))
}

/// Asks for the password on the terminal, without echo.
pub(crate) fn from_prompt(username: &str, host: &str) -> Result<Secret> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("no password for {username} at {host}"))
            .remedy("pipe it in and give --password-stdin"));
    }
    let terminal = console::Term::stderr();
    let asked = terminal.write_str(&format!("Password of {username} at {host}: "));
    let answer = asked.and_then(|()| terminal.read_secure_line());
    let answer = answer.map_err(|error| Failure::failed("terminal", error.to_string()))?;
    not_empty(&answer).map_err(|failure| failure.remedy("leave --username out for anonymous access"))
}

/// Makes a random password, for an account that is made without one.
pub(crate) fn generated() -> Result<Secret> {
    random_text(24).map(Secret::new).map_err(|error| Failure::failed("password", error.to_string()))
}

fn not_empty(password: &str) -> Result<Secret> {
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    Ok(Secret::new(password))
}
