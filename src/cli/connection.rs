//! The server that a command talks to, and the keys it signs with. They come from flags, wharf's variables, the
//! official clients' variables and the configuration file.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Args, parser::ValueSource};
use url::Url;

use crate::{
    base::secret::Secret,
    cli::failure::{Failure, Result},
};

/// Largest key or certificate file that is read, in bytes; a bundle of every public root is 250 KiB.
const MAX_FILE: u64 = 4 << 20;
/// Where to find credentials. A user without them has most likely just started their first server.
pub(crate) const WHERE_FROM: &str = "export WHARF_ACCESS_KEY and WHARF_SECRET_KEY as the set-up page, or the first start of wharf serve, showed them \
    (if they are lost, stop it and run: wharf user reset-password EMAIL --keypair)";

/// The default address: the server listens there, and clients look for it there.
pub(crate) const LISTEN: &str = "127.0.0.1:8090";
/// The heading of these flags in help, apart from the command's own flags.
const HEADING: &str = "Server";

/// The flags that every command that talks to a server has.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The server's URL (also read from BACKEND_ENDPOINT)
    #[arg(long, global = true, help_heading = HEADING, value_name = "URL", default_value = "http://127.0.0.1:8090", value_parser = endpoint)]
    pub(crate) endpoint: Url,
    /// Access key of the key pair to sign requests with (also read from BACKEND_ACCESS_KEY)
    #[arg(long, global = true, help_heading = HEADING, value_name = "KEY")]
    access_key: Option<String>,
    /// File that holds the secret key; without it WHARF_SECRET_KEY or BACKEND_SECRET_KEY is read
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// PEM file of more certificate authorities to trust for the server, besides the system's
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    pub(crate) endpoint_ca_file: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
}

impl Connection {
    /// The access key and the secret key to sign requests with.
    ///
    /// # Errors
    /// Wrong usage if either key is missing, with advice where to get it.
    pub(crate) fn keys(&self, matches: &ArgMatches) -> Result<(String, Secret)> {
        let given = self.keys_if_given(matches)?;
        given.ok_or_else(|| Failure::usage("no credentials for the server").remedy(WHERE_FROM))
    }

    /// The access key and the secret key, or `None` if neither is given: for commands that can do something without
    /// keys.
    ///
    /// # Errors
    /// Wrong usage if only one of them is given.
    pub(crate) fn keys_if_given(&self, matches: &ArgMatches) -> Result<Option<(String, Secret)>> {
        let named_now =
            source(matches, "secret_key_file").is_some_and(|source| source != ValueSource::DefaultValue);
        let variable = |name: &str| env::var(name).ok();
        let secret = secret_key(self.secret_key_file.as_deref(), named_now, variable)?;
        match (self.access_key.clone().filter(|key| !key.is_empty()), secret) {
            (Some(access_key), Some(secret)) => Ok(Some((access_key, secret))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Failure::usage("a secret key but no access key").remedy(WHERE_FROM)),
            (Some(_), None) => Err(Failure::usage("an access key but no secret key").remedy(WHERE_FROM)),
        }
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) if url.query().is_none() && url.fragment().is_none() => Ok(url),
        _ => Err("expected http://HOST[:PORT] or https://HOST[:PORT]".into()),
    }
}

/// Reads the official clients' variables where wharf's own are not set, so that a shell set up for those clients needs
/// nothing else. They win over the configuration file, as every variable does.
pub(crate) fn with_official_environment(
    mut command: clap::Command,
    variable: impl Fn(&str) -> Option<String>,
) -> clap::Command {
    // The official clients take several endpoints, separated by commas.
    let first = |value: String| value.split(',').next().map(str::trim).map(String::from);
    let given = |name: &str| variable(name).and_then(first).filter(|value| !value.is_empty());
    let fallbacks = [("endpoint", given("BACKEND_ENDPOINT")), ("access_key", given("BACKEND_ACCESS_KEY"))];
    for (id, value) in fallbacks {
        let Some(value) = value else { continue };
        command = command.mut_subcommands(|subcommand| {
            let has_it = subcommand.get_arguments().any(|arg| arg.get_id() == id);
            if has_it { subcommand.mut_arg(id, |arg| arg.default_value(value.clone())) } else { subcommand }
        });
    }
    command
}

/// The source of an argument's value, on whichever level of the command line it was given.
pub(crate) fn source(matches: &ArgMatches, id: &str) -> Option<ValueSource> {
    let mut level = matches;
    while let Some((_, inner)) = level.subcommand() {
        level = inner;
    }
    level.try_contains_id(id).ok()?;
    level.value_source(id)
}

/// The secret key: from a file named by flag or variable, else from a variable, else from the file that the
/// configuration names. The key itself has no flag: the process list would show it to every user.
fn secret_key(
    in_file: Option<&Path>,
    named_now: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>> {
    let in_variable = ["WHARF_SECRET_KEY", "BACKEND_SECRET_KEY"].into_iter().find_map(variable);
    let key = match (in_file, in_variable.filter(|key| !key.is_empty())) {
        (Some(path), _) if named_now => read_file(path)?,
        (_, Some(key)) => key,
        (Some(path), None) => read_file(path)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Secret::new(key.trim())))
}

/// Reads a small text file named on the command line.
pub(crate) fn read_file(path: &Path) -> Result<String> {
    let failed = |why: String| Failure::failed(path.display().to_string(), why);
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > MAX_FILE {
        return Err(failed("larger than 4 MiB".into()));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // Some editors begin a file with a byte-order mark.
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{Args, FromArgMatches};

    use crate::cli::connection::{Connection, secret_key, with_official_environment};

    #[test]
    fn the_secret_key_has_an_order_of_sources() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "from the file\n").unwrap();
        let key = |file: Option<&Path>, named_now, ours: &'static str, official: &'static str| {
            let variable = |name: &str| {
                let value = if name == "WHARF_SECRET_KEY" { ours } else { official };
                (!value.is_empty()).then(|| value.to_owned())
            };
            secret_key(file, named_now, variable)
                .map(|key| key.map_or_else(String::new, |key| key.expose().to_owned()))
        };
        assert_eq!(key(Some(&file), true, "ours", "official").unwrap(), "from the file");
        assert_eq!(key(Some(&file), false, "ours", "official").unwrap(), "ours");
        assert_eq!(key(Some(&file), false, "", "official").unwrap(), "official");
        assert_eq!(key(Some(&file), false, "", "").unwrap(), "from the file");
        assert_eq!(key(None, false, "", "").unwrap(), "");
        assert!(key(Some(Path::new("/nowhere")), true, "ours", "").is_err());
    }

    #[test]
    fn the_official_clients_variables_stand_in_where_ours_are_not_set() {
        let image = Connection::augment_args(clap::Command::new("image"));
        let command = clap::Command::new("wharf").subcommand(image).subcommand(clap::Command::new("serve"));
        let command = with_official_environment(command, |name| match name {
            "BACKEND_ENDPOINT" => Some("https://a.example.org,https://b.example.org".into()),
            _ => None,
        });
        let resolved = |arguments: &[&str]| {
            let matches = command.clone().try_get_matches_from(arguments).unwrap();
            let (_, matches) = matches.subcommand().unwrap();
            Connection::from_arg_matches(matches).unwrap().endpoint.to_string()
        };
        assert_eq!(resolved(&["wharf", "image"]), "https://a.example.org/");
        assert_eq!(resolved(&["wharf", "image", "--endpoint", "http://c"]), "http://c/");
    }
}
