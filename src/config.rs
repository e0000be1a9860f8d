//! Settings: where each comes from, in this order: flag, environment, file, default.
//!
//! The flags are declared once, with clap. Each one also reads `WHARF_<FLAG>`, and a TOML file may give it a value. The
//! file's value becomes clap's default value, so precedence, checks and `--help` have one mechanism.
//!
//! ```toml
//! [serve]                     # a table per command …
//! listen = "0.0.0.0:8090"
//! host = ["wharf.example.org"]
//! [client]                    # … and one for all that talk to a server
//! endpoint = "https://wharf.example.org"
//! [image.list]                # a subcommand's own flags
//! installed = true
//! ```

use std::{
    any::TypeId,
    env,
    ffi::{OsStr, OsString},
    fmt, fs, mem,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, builder::BoolishValueParser};
use toml::{Table, Value};

/// Largest configuration file we read. Real ones have a few dozen lines.
const MAX_FILE: u64 = 1 << 20;

/// A configuration file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The file.
    pub(crate) file: PathBuf,
    /// The dotted key, if the error is about one.
    pub(crate) key: Option<String>,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for Invalid {}

/// A configuration file's content.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// Reads and parses a file; [`layered`] checks what the keys mean.
    pub(crate) fn read(path: &Path) -> Result<Self, Invalid> {
        let invalid = |why: String| Invalid { file: path.into(), key: None, why };
        let size = fs::metadata(path).map_err(|error| invalid(error.to_string()))?.len();
        if size > MAX_FILE {
            return Err(invalid("it is larger than 1 MiB, which no configuration is".into()));
        }
        let text = fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
        Self::parse(path, &text)
    }

    /// The file at this path, with this text as its content.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Invalid> {
        let table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            Invalid { file: path.into(), key: None, why: format!("line {line}: {}", error.message()) }
        })?;
        Ok(Self { path: path.into(), table })
    }

    fn invalid(&self, key: &str, why: impl Into<String>) -> Invalid {
        Invalid { file: self.path.clone(), key: Some(key.into()), why: why.into() }
    }
}

/// The file named by `--config` among these arguments, or by `WHARF_CONFIG`.
///
/// Read before the command line is parsed, because the file's content takes part in that.
pub(crate) fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    env::var_os("WHARF_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A table of the file that applies to several commands: its name, and theirs.
pub(crate) type Shared<'a> = (&'a str, &'a [&'a str]);

/// The command, with the environment (`<prefix>_<FLAG>`) and the file as sources behind its flags.
///
/// # Errors
/// A key that no flag has, or a value that its flag does not accept; the error names the file.
pub(crate) fn layered(
    command: Command,
    prefix: &str,
    file: Option<&File>,
    shared: &[Shared<'_>],
) -> Result<Command, Invalid> {
    let mut command = with_environment(command, prefix);
    if let Some(file) = file {
        fill_shared(&mut command, file, shared)?;
        fill(&mut command, file, &file.table, "", shared)?;
    }
    Ok(command)
}

/// Checks that the variables with this prefix are as they were meant: files with line ends of another system, and editors
/// that write a byte-order mark, leave marks in values that no one sees.
///
/// # Errors
/// The name of a variable that begins or ends with a blank, a line end or a byte-order mark.
pub(crate) fn check_environment(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), String> {
    for (name, value) in variables {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let is_ours = name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        let is_clean =
            value.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}') == value;
        if is_ours && !is_clean {
            return Err(format!(
                "{name} begins or ends with a blank, a line end (CR, LF) or a byte-order mark; take it out of the file that \
                 sets it"
            ));
        }
    }
    Ok(())
}

fn with_environment(command: Command, prefix: &str) -> Command {
    command
        .mut_args(|arg| {
            let Some(long) = arg.get_long() else { return arg };
            let name = format!("{prefix}_{}", long.replace('-', "_").to_ascii_uppercase());
            // `WHARF_X= wharf …` and unset variables in compose files mean "not set".
            let arg =
                if env::var_os(&name).is_some_and(|value| value.is_empty()) { arg } else { arg.env(name) };
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                arg.value_parser(BoolishValueParser::new())
            } else {
                arg
            }
        })
        .mut_subcommands(|subcommand| with_environment(subcommand, prefix))
}

fn fill_shared(command: &mut Command, file: &File, shared: &[Shared<'_>]) -> Result<(), Invalid> {
    for (name, members) in shared {
        let Some(value) = file.table.get(*name) else { continue };
        let table = value.as_table().ok_or_else(|| file.invalid(name, expected("a table", value)))?;
        for member in *members {
            let Some(command) = command.find_subcommand_mut(member) else { continue };
            for (key, value) in table {
                let dotted = format!("{name}.{key}");
                match flag(command, key) {
                    Some(flag) => set_default(command, &flag, file, &dotted, value)?,
                    None => return Err(file.invalid(&dotted, unknown(&flag_names(command)))),
                }
            }
        }
    }
    Ok(())
}

fn fill(
    command: &mut Command,
    file: &File,
    table: &Table,
    at: &str,
    shared: &[Shared<'_>],
) -> Result<(), Invalid> {
    let at_top = at.is_empty();
    for (key, value) in table {
        if at_top && shared.iter().any(|(name, _)| name == key) {
            continue;
        }
        let dotted = if at_top { key.clone() } else { format!("{at}.{key}") };
        if let Some(flag) = flag(command, key) {
            set_default(command, &flag, file, &dotted, value)?;
        } else if let Some(subcommand) = command.find_subcommand_mut(key) {
            let table = value.as_table().ok_or_else(|| file.invalid(&dotted, expected("a table", value)))?;
            fill(subcommand, file, table, &dotted, shared)?;
        } else {
            let mut names = flag_names(command);
            names.extend(command.get_subcommands().map(|command| format!("[{}]", command.get_name())));
            if at_top {
                names.extend(shared.iter().map(|(name, _)| format!("[{name}]")));
            }
            return Err(file.invalid(&dotted, unknown(&names)));
        }
    }
    Ok(())
}

/// The flag that a key stands for. `config` stands for none: a file can't name another file.
fn flag(command: &Command, key: &str) -> Option<Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "config").cloned()
}

fn flag_names(command: &Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(Arg::get_long).filter(|long| *long != "config");
    longs.map(Into::into).collect()
}

fn unknown(known: &[String]) -> String {
    format!("unknown key; known here: {}", known.join(", "))
}

fn set_default(
    command: &mut Command,
    flag: &Arg,
    file: &File,
    key: &str,
    value: &Value,
) -> Result<(), Invalid> {
    let values = texts(flag, value).map_err(|why| file.invalid(key, why))?;
    if let Some(why) = values.iter().find_map(|text| refusal(flag, text)) {
        return Err(file.invalid(key, why));
    }
    // Clap wants a flag with a default to be not required.
    *command = mem::take(command).mut_arg(flag.get_id(), |arg| arg.required(false).default_values(values));
    Ok(())
}

/// The value as the command line would have it.
fn texts(flag: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let (values, of): (&[Value], _) = match (flag.get_action(), value) {
        (ArgAction::Append, Value::Array(values)) => (values, "in an array "),
        (ArgAction::Append, _) => (&[], ""),
        _ => (std::slice::from_ref(value), ""),
    };
    if values.is_empty() && !value.is_array() {
        return Err(expected("an array of strings", value));
    }
    values
        .iter()
        .map(|value| text(flag, value).ok_or_else(|| format!("{of}{}", expected(kind(flag), value))))
        .collect()
}

fn text(flag: &Arg, value: &Value) -> Option<String> {
    match (value, takes(flag)) {
        (Value::String(text), Takes::Text) => Some(text.clone()),
        (Value::Integer(number), Takes::Number) => Some(number.to_string()),
        (Value::Boolean(on), Takes::Switch) => Some(on.to_string()),
        _ => None,
    }
}

enum Takes {
    Text,
    Number,
    Switch,
}

fn takes(flag: &Arg) -> Takes {
    let parsed = flag.get_value_parser().type_id();
    let numbers = [
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i64>(),
    ];
    if matches!(flag.get_action(), ArgAction::SetTrue) || parsed == TypeId::of::<bool>() {
        Takes::Switch
    } else if numbers.iter().any(|number| parsed == *number) {
        Takes::Number
    } else {
        Takes::Text
    }
}

fn kind(flag: &Arg) -> &'static str {
    match takes(flag) {
        Takes::Text => "a string",
        Takes::Number => "a whole number",
        Takes::Switch => "true or false",
    }
}

fn expected(kind: &str, value: &Value) -> String {
    let found = value.type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("expected {kind}, found {article} {found}")
}

/// Why the flag's own parser refuses this text, if it does.
fn refusal(flag: &Arg, text: &str) -> Option<String> {
    let probe = Arg::new("value").value_parser(flag.get_value_parser().clone());
    let arguments = [OsStr::new("--"), OsStr::new(text)];
    let error =
        Command::new("wharf").no_binary_name(true).arg(probe).try_get_matches_from(arguments).err()?;
    Some(one_line(&error).replace(" for '[value]'", ""))
}

/// Clap's message about wrong usage, without `error:` and the usage text, on one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more information").next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    said.split_whitespace().collect::<Vec<_>>().join(" ").replace(" tip: ", "; ")
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::Path};

    use clap::{Arg, ArgAction, Command, value_parser};

    use super::{File, check_environment, layered, named_file};

    #[test]
    fn a_variable_with_marks_that_no_one_sees_is_refused_by_its_name() {
        let check = |name: &str, value: &str| check_environment("WHARF", [(name.into(), value.into())]);
        for value in ["x\r", "x\n", "x\r\n", " x", "x\t", "\u{feff}x", "x\u{feff}", "\r\n"] {
            let why = check("WHARF_DATA_DIR", value).unwrap_err();
            assert!(why.starts_with("WHARF_DATA_DIR "), "{value:?}: {why}");
            assert_eq!(check("HOME", value), Ok(()));
            assert_eq!(check("WHARFAGE", value), Ok(()));
        }
        for value in ["", "x", "a b", "a\r\nb"] {
            assert_eq!(check("WHARF_DATA_DIR", value), Ok(()), "{value:?}");
        }
    }

    fn command() -> Command {
        let list =
            Command::new("list").arg(Arg::new("installed").long("installed").action(ArgAction::SetTrue));
        let endpoint = Arg::new("endpoint").long("endpoint").default_value("built-in").global(true);
        Command::new("wharf")
            .arg(Arg::new("config").long("config").global(true))
            .subcommand(
                Command::new("serve")
                    .arg(Arg::new("name").long("name").default_value("built-in"))
                    .arg(Arg::new("version-major").long("version-major").value_parser(value_parser!(u16)))
                    .arg(Arg::new("host").long("host").action(ArgAction::Append))
                    .arg(Arg::new("mode").long("mode").value_parser(["text", "json"])),
            )
            .subcommand(Command::new("image").arg(endpoint.clone()).subcommand(list))
            .subcommand(Command::new("task").arg(endpoint).subcommand(Command::new("list")))
    }

    /// One value after layering. `prefix` selects the environment: cargo sets `CARGO_PKG_NAME=wharf` for tests.
    fn resolved(prefix: &str, file: &str, arguments: &[&str], id: &str) -> Option<String> {
        let file = File::parse(Path::new("wharf.toml"), file).unwrap();
        let command = layered(command(), prefix, Some(&file), &[("client", &["image", "task"])]).unwrap();
        let matches = command.try_get_matches_from(arguments).unwrap();
        let mut deepest = &matches;
        while let Some((_, inner)) = deepest.subcommand() {
            deepest = inner;
        }
        deepest.get_raw(id).map(|values| values.map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    fn complaint(file: &str) -> String {
        match File::parse(Path::new("wharf.toml"), file) {
            Ok(file) => layered(command(), "NONE", Some(&file), &[("client", &["image", "task"])])
                .unwrap_err()
                .to_string(),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
        let file = "[serve]\nname = 'from the file'";
        let name = |prefix, file, arguments: &[&str]| resolved(prefix, file, arguments, "name").unwrap();
        assert_eq!(name("NONE", "", &["wharf", "serve"]), "built-in");
        assert_eq!(name("NONE", file, &["wharf", "serve"]), "from the file");
        assert_eq!(name("CARGO_PKG", file, &["wharf", "serve"]), "wharf");
        assert_eq!(name("CARGO_PKG", file, &["wharf", "serve", "--name", "from the flag"]), "from the flag");
        assert_eq!(name("NONE", file, &["wharf", "serve", "--name=from the flag"]), "from the flag");
    }

    #[test]
    fn every_kind_of_value_may_stand_in_the_file() {
        let file =
            "[serve]\nversion-major = 7\nhost = ['a', 'b']\nmode = 'json'\n[image.list]\ninstalled = true";
        assert_eq!(resolved("NONE", file, &["wharf", "serve"], "version-major").unwrap(), "7");
        assert_eq!(resolved("NONE", file, &["wharf", "serve"], "host").unwrap(), "a b");
        assert_eq!(resolved("NONE", file, &["wharf", "serve", "--host", "c"], "host").unwrap(), "c");
        assert_eq!(resolved("NONE", file, &["wharf", "image", "list"], "installed").unwrap(), "true");
    }

    #[test]
    fn the_client_table_speaks_to_every_client_command_and_a_commands_own_table_to_it_alone() {
        let file = "[client]\nendpoint = 'shared'\n[image]\nendpoint = 'own'";
        assert_eq!(resolved("NONE", file, &["wharf", "task", "list"], "endpoint").unwrap(), "shared");
        assert_eq!(resolved("NONE", file, &["wharf", "image", "list"], "endpoint").unwrap(), "own");
    }

    #[test]
    fn a_wrong_file_is_refused_by_its_name_and_key() {
        for (file, expected) in [
            ("x = ", "wharf.toml: line 1: "),
            ("[serve]\n\nname = 'a", "wharf.toml: line 3: "),
            ("serve = 1", "wharf.toml: serve: expected a table, found an integer"),
            ("client = 1", "wharf.toml: client: expected a table, found an integer"),
            ("[server]", "wharf.toml: server: unknown key; known here: [serve], [image], [task], [client]"),
            ("config = 'x'", "wharf.toml: config: unknown key"),
            (
                "[serve]\nnmae = 'x'",
                "wharf.toml: serve.nmae: unknown key; known here: name, version-major, host, mode",
            ),
            ("[client]\nlist = 'x'", "wharf.toml: client.list: unknown key; known here: endpoint"),
            ("[serve]\nname = 1", "wharf.toml: serve.name: expected a string, found an integer"),
            (
                "[serve]\nversion-major = '7'",
                "wharf.toml: serve.version-major: expected a whole number, found a string",
            ),
            ("[serve]\nversion-major = 70000", "wharf.toml: serve.version-major: invalid value '70000'"),
            ("[serve]\nhost = 'a'", "wharf.toml: serve.host: expected an array of strings, found a string"),
            (
                "[serve]\nhost = [1]",
                "wharf.toml: serve.host: in an array expected a string, found an integer",
            ),
            (
                "[serve]\nmode = 'xml'",
                "wharf.toml: serve.mode: invalid value 'xml' [possible values: text, json]",
            ),
            (
                "[image.list]\ninstalled = 1",
                "wharf.toml: image.list.installed: expected true or false, found an integer",
            ),
        ] {
            let complaint = complaint(file);
            assert!(complaint.starts_with(expected), "{file}: {complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
        }
    }

    #[test]
    fn the_file_is_named_before_the_command_line_is_parsed() {
        let named = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            named_file(&arguments).map(|path| path.display().to_string())
        };
        assert_eq!(named(&["wharf", "serve", "--config", "a.toml"]).as_deref(), Some("a.toml"));
        assert_eq!(named(&["wharf", "--config=b.toml", "serve"]).as_deref(), Some("b.toml"));
        assert_eq!(named(&["wharf", "serve", "--", "--config", "c.toml"]), None);
    }
}
