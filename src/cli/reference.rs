//! Generates and checks `docs/reference/cli.md` and `docs/reference/configuration.md`, which list every command, and
//! every flag with its variable, its key and its default. The part of each page below a marker line is written from the
//! command line, and a test compares the two; `WHARF_WRITE_DOCS=1` writes the pages again. The commands that README and
//! docs show are checked, too.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use clap::{Arg, ArgAction, Args as _, Command, CommandFactory as _, error::ErrorKind};

use crate::{
    cli::{CLIENTS, Cli, connection::Connection},
    config,
};

/// The marker line in each page: the text above it is written by hand.
const BEGIN: &str = "<!-- What follows is written by a test: WHARF_WRITE_DOCS=1 cargo nextest run -E 'test(cli::reference::)' -->\n";

/// A command, and the words that call it: `image`, `list`.
struct Entry<'a> {
    path: Vec<&'a str>,
    command: &'a Command,
    /// Whether a configuration file can have a table for the command: `false` if a flag has the same name as its table.
    has_table: bool,
}

impl Entry<'_> {
    fn name(&self) -> String {
        format!("wharf {}", self.path.join(" "))
    }

    /// The anchor of the command's heading, which is the same in both pages.
    fn anchor(&self) -> String {
        self.name().replace(' ', "-")
    }

    fn is_client(&self) -> bool {
        CLIENTS.iter().any(|(_, members)| self.path.first().is_some_and(|first| members.contains(first)))
    }

    /// The command's own flags, without those shared by all commands or by all that talk to a server.
    fn own_flags(&self) -> Vec<&Arg> {
        let shared = shared_flags();
        let is_own = |arg: &&Arg| {
            let id = arg.get_id().as_str();
            let is_told_elsewhere = ["config", "help", "version"].contains(&id)
                || (self.is_client() && shared.iter().any(|shared| shared.get_id() == id));
            arg.get_long().is_some() && !arg.is_hide_set() && !is_told_elsewhere
        };
        self.command.get_arguments().filter(is_own).collect()
    }
}

fn shared_flags() -> Vec<Arg> {
    Connection::augment_args(Command::new("wharf")).get_arguments().cloned().collect()
}

/// The command line, with no variable and no file set.
fn command_line() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Collects every command that help shows; each stands before its subcommands.
fn entries<'a>(command: &'a Command, path: &[&'a str], has_table: bool, found: &mut Vec<Entry<'a>>) {
    for below in command.get_subcommands() {
        let name = below.get_name();
        if below.is_hide_set() || name == "help" {
            continue;
        }
        let path = [path, &[name]].concat();
        let has_table = has_table && !command.get_arguments().any(|arg| arg.get_long() == Some(name));
        found.push(Entry { path: path.clone(), command: below, has_table });
        entries(below, &path, has_table, found);
    }
}

/// Compares the part of a page below the marker line with `generated`, or writes it there.
fn settle(page: &str, generated: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (by_hand, written) = text.split_once(BEGIN).expect("the line below which the page is written");
    if env::var("WHARF_WRITE_DOCS").as_deref() == Ok("1") {
        return fs::write(path, format!("{by_hand}{BEGIN}{generated}")).unwrap();
    }
    assert!(
        written == generated,
        "docs/reference/{page} does not say what the command line says; write it with WHARF_WRITE_DOCS=1"
    );
}

#[test]
fn the_reference_of_the_command_line_is_what_the_command_line_says() {
    let command = command_line();
    let mut found = Vec::new();
    entries(&command, &[], true, &mut found);
    let mut text = String::from("\n| command | what it does |\n|---|---|\n");
    for entry in found.iter().filter(|entry| entry.path.len() == 1) {
        let about = entry.command.get_about().unwrap().to_string();
        let _ = writeln!(text, "| [`{}`](#{}) | {} |", entry.name(), entry.anchor(), plain(&about));
    }
    for entry in &found {
        describe(entry, &mut text);
    }
    settle("cli.md", &text);
}

/// Describes one command: what it does, how it is called, what its arguments are, and where its flags are listed.
fn describe(entry: &Entry<'_>, text: &mut String) {
    let command = entry.command;
    let level = if entry.path.len() == 1 { "##" } else { "###" };
    let about = command.get_long_about().or(command.get_about()).unwrap().to_string();
    let _ = write!(text, "\n{level} {}\n\n{}\n", entry.name(), paragraphs(&about));
    let usage = command.clone().render_usage().to_string();
    let _ = write!(text, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let mut arguments = command.get_positionals().peekable();
    if arguments.peek().is_some() {
        text.push('\n');
    }
    for argument in arguments {
        let name = argument.get_value_names().map_or_else(String::new, |names| names.join(" "));
        let _ = writeln!(text, "- `{name}`: {}", meaning(argument));
    }
    let flags: Vec<_> = entry.own_flags().iter().map(|flag| format!("`{}`", spelled(flag))).collect();
    if !flags.is_empty() {
        let _ = write!(
            text,
            "\nFlags: {} ([what they mean](configuration.md#{}))\n",
            flags.join(", "),
            entry.anchor()
        );
    }
    if let Some(more) = command.get_after_help() {
        let _ = write!(text, "\n{}\n", paragraphs(&more.to_string()));
    }
}

#[test]
fn the_reference_of_the_configuration_is_what_the_command_line_says() {
    let command = command_line();
    let mut found = Vec::new();
    entries(&command, &[], true, &mut found);
    let mut text = String::from("\n## Every command\n");
    let global: Vec<_> = command.get_arguments().filter(|arg| arg.get_id() == "config").collect();
    table(&global, None, &mut text);
    text.push_str("\n## Every command that talks to a server\n");
    let shared = shared_flags();
    table(&shared.iter().collect::<Vec<_>>(), Some("client"), &mut text);
    for entry in &found {
        let flags = entry.own_flags();
        if !flags.is_empty() {
            let _ = write!(text, "\n## {}\n", entry.name());
            let key = entry.path.join(".");
            table(&flags, entry.has_table.then_some(key.as_str()), &mut text);
        }
    }
    settle("configuration.md", &text);
}

/// Writes a table with a row for each flag; without a table in the configuration file, the flags have no keys.
fn table(flags: &[&Arg], key: Option<&str>, text: &mut String) {
    text.push_str("\n| flag | variable | key | default | what it is |\n|---|---|---|---|---|\n");
    for flag in flags {
        // A test of `crate::cli` checks that every flag reads the variable with this name.
        let variable = format!("WHARF_{}", flag.get_long().unwrap().replace('-', "_").to_ascii_uppercase());
        let key = key.map_or_else(|| "–".into(), |table| format!("`{table}.{}`", flag.get_long().unwrap()));
        let _ = writeln!(
            text,
            "| `{}` | `{variable}` | {key} | {} | {} |",
            spelled(flag).replace('|', "\\|"),
            default(flag),
            meaning(flag)
        );
    }
}

/// A flag as the user types it: `--listen ADDRESS`, `--insecure[=BOOL]`, `--plan`.
fn spelled(flag: &Arg) -> String {
    let long = flag.get_long().unwrap();
    let value = flag.get_value_names().map_or_else(String::new, |names| names.join(" "));
    match flag.get_action() {
        ArgAction::SetTrue | ArgAction::Help | ArgAction::Version => format!("--{long}"),
        _ if flag.get_num_args().is_some_and(|range| range.min_values() == 0) => {
            format!("--{long}[={value}]")
        }
        _ => format!("--{long} {value}"),
    }
}

/// The value that holds if the flag is not given: clap's own default, or what the help says about a default that is
/// found at run time.
fn default(flag: &Arg) -> String {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return "off".into();
    }
    let values: Vec<_> = flag.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    if !values.is_empty() {
        return format!("`{}`", values.join(" "));
    }
    let help = help(flag);
    match help.split_once("[default").and_then(|(_, rest)| rest.split_once(']')) {
        Some((said, _)) => plain(said.trim_start_matches(':').trim()),
        None if flag.is_required_set() => "must be given".into(),
        None => "–".into(),
    }
}

/// The help text without its default, and with the possible values.
fn meaning(arg: &Arg) -> String {
    let help = help(arg);
    let said = match help.split_once("[default") {
        Some((before, rest)) => {
            format!("{}{}", before.trim_end(), rest.split_once(']').map_or("", |(_, after)| after))
        }
        None => help,
    };
    let mut said = plain(&said);
    let values = arg.get_possible_values();
    let is_switch = values.iter().any(|value| value.get_name() == "true");
    if !values.is_empty() && !is_switch {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _ = write!(said, ": {}", names.join(", "));
    }
    said
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or(arg.get_help()).unwrap().to_string()
}

/// The text on one line, with Markdown's special characters escaped.
fn plain(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('<', "&lt;").replace('*', "\\*").replace('|', "\\|")
}

fn paragraphs(text: &str) -> String {
    let all = text.split("\n\n").map(plain).filter(|paragraph| !paragraph.is_empty());
    let ended = |paragraph: String| if paragraph.ends_with('.') { paragraph } else { paragraph + "." };
    all.map(ended).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn every_command_that_the_pages_show_is_one_that_the_command_line_takes() {
    let mut faults = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in commands(&text) {
            for words in invocations(&line) {
                count += 1;
                let Err(error) = Cli::command().try_get_matches_from(&words) else { continue };
                if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                    faults.push(format!(
                        "{}: {}: {}",
                        page.display(),
                        words.join(" "),
                        config::one_line(&error)
                    ));
                }
            }
        }
    }
    assert!(count > 50, "only {count} commands were found in the pages");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_reader_of_examples_knows_a_shells_words() {
    let text = "```console\n$ export A=1 && wharf rule add x 'a b/*' \"*\" \\\n    --plan | head  # as it is\nwharf no\n\
                gpu01$ T=$(sudo wharf token create ci --json | jq .) > file\n```\n$ wharf not either\n";
    let found: Vec<_> = commands(text).iter().flat_map(|line| invocations(line)).collect();
    assert_eq!(
        found,
        [
            vec!["wharf", "rule", "add", "x", "a b/*", "*", "--plan"],
            vec!["wharf", "token", "create", "ci", "--json"]
        ]
    );
}

/// README and every page below docs.
fn pages() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (vec![root.join("README.md")], vec![root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The commands typed after a prompt in blocks that show a terminal, each with its continuation lines.
fn commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut shows_terminal, mut goes_on) = (false, false);
    for line in text.lines() {
        if line.starts_with("```") {
            (shows_terminal, goes_on) = (line == "```console", false);
            continue;
        }
        if !shows_terminal {
            continue;
        }
        let prompt = line.split_once("$ ").or(line.split_once("# "));
        let typed = prompt.filter(|(host, _)| host.chars().all(|c| c.is_ascii_alphanumeric()));
        if goes_on && let Some(last) = found.last_mut() {
            last.pop();
            last.push_str(line);
        } else if let Some((_, typed)) = typed {
            found.push(typed.to_owned());
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    found
}

/// The calls of wharf in a shell line. Calls with a variable among their words are left out: they can't be checked
/// here.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for mut words in split(line) {
        let is_before =
            |word: &String| word == "sudo" || word.split_once('=').is_some_and(|(name, _)| is_name(name));
        while words.first().is_some_and(is_before) {
            words.remove(0);
        }
        if words.first().is_some_and(|first| first == "wharf") && !words.iter().any(|word| word.contains('$'))
        {
            found.push(words);
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Splits a shell line into commands of words; the content of `$(…)` is a command of its own.
fn split(line: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '$') if characters.peek() == Some(&'(') => word = None,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '|' | '&' | ';' | '>' | '<' | '(' | ')') => {
                words.extend(word.take());
                found.push(std::mem::take(&mut words));
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    found.push(words);
    found
}
