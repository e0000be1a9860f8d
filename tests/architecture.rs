//! The house rules that a compiler does not check: floors, doors, a first line in every file, and a limit on its
//! length.
//!
//! The floors are read from the map in `src/lib.rs`, so the map and this test can't drift apart.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Which module, or which file of one, may name which foreign crate. With one door each, a crate can be replaced
/// there, and no password is hashed out of turn.
const DOORS: &[(&str, &[&str])] = &[
    ("redb", &["store"]),
    ("async_graphql", &["graphql", "http"]),
    ("async_graphql_value", &["graphql"]),
    ("poem", &["http", "demo"]),
    ("bollard", &["engine"]),
    ("argon2", &["access/hasher.rs"]),
    ("reqwest", &["registry", "sources", "cli"]),
    ("clap", &["cli", "config"]),
    ("tokio_tungstenite", &["wire"]),
];

/// A file with more lines holds more than one thing. Its tests do not count, because they are read one by one.
const MOST_LINES: usize = 600;

#[test]
fn no_module_imports_upward() {
    let floors = floors();
    let mut faults = Vec::new();
    for file in sources("src") {
        let module = module_of(&file.path);
        let Some(&own) = floors.get(module.as_str()) else {
            // `lib.rs` only lists the modules.
            if module != "lib" {
                faults.push(format!("{}: `{module}` is not on the map in src/lib.rs", file.name()));
            }
            continue;
        };
        for other in imports(&file.tokens) {
            match floors.get(other.as_str()) {
                None => faults.push(format!("{}: `{other}` is not on the map in src/lib.rs", file.name())),
                Some(&floor) if other != module && floor >= own => {
                    let where_to = if floor == own { "sideways" } else { "upward" };
                    faults.push(format!("{}: `{module}` imports {where_to} from `{other}`", file.name()));
                }
                Some(_) => {}
            }
        }
    }
    report(&faults);
}

/// Files that import each other, directly or through others, and why they stay so.
const CIRCLES: &[(&[&str], &str)] = &[
    (
        &["engine::oci::fetch", "engine::oci::part"],
        "the right to write a part is the flight's that fetches it, and goes along to the writing thread",
    ),
    (
        &["registry::auth", "registry::client"],
        "a client signs in by requests of its own, for the scope that the listing needs",
    ),
    (
        &[
            "store",
            "store::at_rest",
            "store::backup",
            "store::compact",
            "store::compared",
            "store::disk",
            "store::guard",
            "store::lock",
            "store::migrate",
            "store::open",
            "store::overlay",
            "store::seal",
            "store::table",
            "store::trouble",
        ],
        "the store opens its own file anew after a failure, by what opened it first",
    ),
];

#[test]
fn no_files_import_each_other_without_a_reason() {
    let files: HashMap<String, Source> =
        sources("src").into_iter().map(|file| (path_of(&file.path), file)).collect();
    let imported = |file: &Source| -> HashSet<&str> {
        let known = |path: &[String]| {
            (1..=path.len())
                .rev()
                .find_map(|length| Some(files.get_key_value(&path[..length].join("::"))?.0.as_str()))
        };
        paths(&tokens(without_tests(&file.text))).iter().filter_map(|path| known(path)).collect()
    };
    let graph: HashMap<&str, HashSet<&str>> =
        files.iter().map(|(name, file)| (name.as_str(), imported(file))).collect();
    let reach: HashMap<&str, HashSet<&str>> =
        graph.keys().map(|name| (*name, reached(&graph, name))).collect();
    let circle_of = |name: &str| -> BTreeSet<&str> {
        reach[name].iter().copied().filter(|other| *other != name && reach[other].contains(name)).collect()
    };
    let mut circles: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for name in graph.keys() {
        let others = circle_of(name);
        if !others.is_empty() {
            circles.insert(others.into_iter().chain([*name]).collect());
        }
    }
    let known = |circle: &BTreeSet<&str>| CIRCLES.iter().any(|(files, _)| circle.iter().eq(files.iter()));
    let mut faults: Vec<String> = circles
        .iter()
        .filter(|circle| !known(circle))
        .map(|circle| {
            format!("these import each other: {}", circle.iter().copied().collect::<Vec<_>>().join(", "))
        })
        .collect();
    for (files, _) in CIRCLES {
        if !circles.iter().any(|circle| circle.iter().eq(files.iter())) {
            faults.push(format!("no circle any more: {}", files.join(", ")));
        }
    }
    report(&faults);
}

#[test]
fn each_foreign_crate_has_one_door() {
    let mut faults = Vec::new();
    for file in sources("src") {
        let module = module_of(&file.path);
        for (krate, doors) in DOORS {
            let is_door = |door: &&str| *door == module || file.path == Path::new("src").join(door);
            if !doors.iter().any(is_door) && names_crate(&file.tokens, krate) {
                faults.push(format!("{}: only {} may name {krate}", file.name(), doors.join(", ")));
            }
        }
    }
    report(&faults);
}

#[test]
fn every_file_says_what_it_is_for_and_is_not_too_long() {
    let mut faults = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        if !file.text.starts_with("//!") {
            faults.push(format!("{}: opens without `//!`", file.name()));
        }
        let lines = without_tests(&file.text).lines().count();
        if lines > MOST_LINES {
            faults.push(format!("{}: {lines} lines without its tests, more than {MOST_LINES}", file.name()));
        }
    }
    report(&faults);
}

#[test]
fn nothing_is_unsafe_and_nothing_is_imported_by_glob() {
    let mut faults = Vec::new();
    for file in sources("src") {
        if file.tokens.iter().any(|token| token == "unsafe") {
            faults.push(format!("{}: unsafe", file.name()));
        }
        if file.tokens.windows(3).any(|three| three == ["super", "::", "*"]) {
            faults.push(format!("{}: `super::*`", file.name()));
        }
    }
    report(&faults);
}

/// Messages are for people and change; programs decide by a code, a state or a type.
#[test]
fn nothing_is_decided_by_the_words_of_a_message() {
    let told = ["msg", "message", "reason", "why", "details", "title"];
    let asks = [
        "contains",
        "starts_with",
        "ends_with",
        "includes",
        "startsWith",
        "endsWith",
        "match",
        "search",
        "test",
    ];
    let mut faults = Vec::new();
    for (folder, endings) in [("src/cli", &["rs"][..]), ("ui/src", &["ts", "svelte"])] {
        for path in files(folder, endings) {
            let text = std::fs::read_to_string(root().join(&path)).expect("readable source");
            // A test that expects a message decides nothing.
            for (number, line) in without_tests(&text).lines().enumerate() {
                let decides = told.iter().any(|word| {
                    asks.iter().any(|ask| {
                        let asked = format!("{word}.{ask}(");
                        let given = format!(".{ask}({word})");
                        line.contains(&asked) || line.contains(&given)
                    })
                });
                if decides {
                    faults.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn the_reader_of_imports_is_not_fooled() {
    let text = r##"
        use crate::base::{Error, secret::Secret};
        use crate::{store::Store, /* engine:: */ tasks};
        // crate::http::Fault
        fn f() -> &'static str { let _ = '"'; r#"crate::cli::"# }
        fn g(x: &wharf::config::Config, y: my::redb::Thing) { crate::scan::run() }
    "##;
    let read = tokens(text);
    assert_eq!(imports(&read), ["base", "base", "store", "tasks", "config", "scan"]);
    let joined: Vec<String> = paths(&read).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        joined,
        ["base::Error", "base::secret::Secret", "store::Store", "tasks", "config::Config", "scan::run"]
    );
    assert!(!names_crate(&read, "redb"));
    assert!(names_crate(&tokens("use redb as db;"), "redb"));
    assert!(names_crate(&tokens("let x = ::redb::Database::open();"), "redb"));
}

struct Source {
    path: PathBuf,
    text: String,
    tokens: Vec<String>,
}

impl Source {
    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Returns the height of each module's floor, from the ground up, as the map in `src/lib.rs` draws it.
fn floors() -> HashMap<String, usize> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let map = text.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```").next());
    let lines: Vec<&str> = map.expect("a ```text map in src/lib.rs").lines().collect();
    let mut floors = HashMap::new();
    for (height, line) in lines.iter().rev().enumerate() {
        for module in line.trim_start_matches("//!").split_whitespace() {
            assert!(floors.insert(module.to_owned(), height).is_none(), "{module} is on the map twice");
        }
    }
    assert!(floors.contains_key("base") && floors["main"] > floors["base"], "the map is upside down");
    floors
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a source without the tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

/// Returns all Rust files below a folder of this package.
fn sources(folder: &str) -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path)).expect("readable source");
        Source { tokens: tokens(&text), text, path }
    };
    files(folder, &["rs"]).into_iter().map(read).collect()
}

/// Returns all files with these endings below a folder of this package, as paths within the package.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.extension().is_some_and(|is| is == *ending)) {
                found.push(path.strip_prefix(root()).expect("a path below the package").to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

/// Returns the module of a file: `src/store/open.rs` and `src/store.rs` both belong to `store`.
fn module_of(path: &Path) -> String {
    let first = path.components().nth(1).expect("a path below src");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Returns everything that a file imports, directly or through others.
fn reached<'a>(graph: &HashMap<&'a str, HashSet<&'a str>>, from: &str) -> HashSet<&'a str> {
    let mut reached = HashSet::new();
    let mut left: Vec<&str> = graph[from].iter().copied().collect();
    while let Some(next) = left.pop() {
        if reached.insert(next) {
            left.extend(&graph[next]);
        }
    }
    reached
}

/// Returns the path of a file: `src/store/open.rs` is `store::open`, `src/store/mod.rs` and `src/store.rs` are
/// `store`.
fn path_of(path: &Path) -> String {
    let inner = path.strip_prefix("src").expect("a path below src").with_extension("");
    let names: Vec<_> =
        inner.iter().map(|name| name.to_string_lossy()).filter(|name| name != "mod").collect();
    names.join("::")
}

/// Returns the modules of this crate named by `crate::x` (in `main.rs`: `wharf::x`), also in braces.
fn imports(tokens: &[String]) -> Vec<String> {
    paths(tokens).into_iter().filter_map(|path| path.into_iter().next()).collect()
}

/// Returns the paths of this crate in the tokens: `crate::a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let rooted = pair[0] == "crate" || (pair[0] == "wharf" && (at == 0 || tokens[at - 1] != "::"));
        if rooted && pair[1] == "::" {
            read_tree(&tokens[at + 2..], &[], &mut found);
        }
    }
    found
}

/// Reads one path or a group of them, and returns how many tokens that took.
fn read_tree(tokens: &[String], above: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = above.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while let Some(token) = tokens.get(at) {
                    match token.as_str() {
                        "}" => return at + 1,
                        "," => at += 1,
                        _ => at += read_tree(&tokens[at..], &path, found).max(1),
                    }
                }
                return at;
            }
            Some(name) if is_name(name) => path.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).map(String::as_str) != Some("::") {
            break;
        }
        at += 1;
    }
    if path.len() > above.len() {
        found.push(path);
    }
    at
}

/// Whether the tokens have `krate::…`, `use krate;` or `use krate as …`, but not `some::krate::…`.
fn names_crate(tokens: &[String], krate: &str) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let before = |back: usize| at.checked_sub(back).map_or("", |place| tokens[place].as_str());
        // `::krate` is the foreign crate too, unless something stands before the colons.
        let inner = before(1) == "::" && (is_name(before(2)) || before(2) == ">");
        let path = tokens.get(at + 1).is_some_and(|next| next == "::");
        token == krate && !inner && (path || before(1) == "use" || before(1) == "crate")
    })
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && token != "use" && token != "as"
}

/// Returns names, `::` and single punctuation characters; comments, texts and characters are left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let mut place = 0;
    while place < chars.len() {
        let c = chars[place];
        if c == '/' && at(place + 1) == '/' {
            place = skip_to(&chars, place, |rest| rest[0] == '\n');
        } else if c == '/' && at(place + 1) == '*' {
            place = skip_to(&chars, place + 2, |rest| rest.starts_with(&['*', '/'])) + 2;
        } else if c == '"' {
            place = end_of_text(&chars, place + 1);
        } else if c == 'r'
            && (at(place + 1) == '"' || (at(place + 1) == '#' && matches!(at(place + 2), '"' | '#')))
        {
            place = end_of_raw(&chars, place + 1);
        } else if c == '\'' && (at(place + 1) == '\\' || at(place + 2) == '\'') {
            // `'x'` or `'\\n'` or `'\\''`; a lifetime has no second quote so near.
            let inside = if at(place + 1) == '\\' { place + 3 } else { place + 2 };
            place = skip_to(&chars, inside, |rest| rest[0] == '\'') + 1;
        } else if c.is_alphanumeric() || c == '_' {
            let end = skip_to(&chars, place, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_'));
            found.push(chars[place..end].iter().collect());
            place = end;
        } else if c == ':' && at(place + 1) == ':' {
            found.push("::".to_owned());
            place += 2;
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            place += 1;
        }
    }
    found
}

fn skip_to(chars: &[char], from: usize, end: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&place| end(&chars[place..])).unwrap_or(chars.len())
}

/// Returns the place after the closing quote of a text whose first character is at `place`.
fn end_of_text(chars: &[char], mut place: usize) -> usize {
    while place < chars.len() {
        match chars[place] {
            '\\' => place += 2,
            '"' => return place + 1,
            _ => place += 1,
        }
    }
    chars.len()
}

/// Returns the place after the end of a raw text whose hashes or quote start at `place`.
fn end_of_raw(chars: &[char], place: usize) -> usize {
    let quote = skip_to(chars, place, |rest| rest[0] == '"');
    let hashes = quote - place;
    let mut close = vec!['"'];
    close.resize(hashes + 1, '#');
    skip_to(chars, quote + 1, |rest| rest.starts_with(&close)) + close.len()
}
