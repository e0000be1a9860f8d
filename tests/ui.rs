//! The UI in the binary: it matches its sources, and is served as browsers need it.

use std::fs;
use std::path::{Path, PathBuf};

use async_graphql_parser::parse_query;
use ring::digest::{Context, SHA256};
use serde_json::json;

use crate::support::app::App;
use crate::support::sign::to_hex;

/// The UI's sources and built files: the list in `ui/tools/seal.js`.
const SEALED: [&str; 12] = [
    "codegen.ts",
    "dist",
    "graphiql",
    "index.html",
    "package-lock.json",
    "package.json",
    "public",
    "src",
    "svelte.config.js",
    "tools",
    "tsconfig.json",
    "vite.config.ts",
];

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ui")
}

/// Collects all files below a place, by their path from the UI's folder.
fn files(path: &str, found: &mut Vec<String>) {
    let place = ui().join(path);
    if !place.is_dir() {
        return found.push(path.to_owned());
    }
    for entry in fs::read_dir(place).unwrap() {
        files(&format!("{path}/{}", entry.unwrap().file_name().into_string().unwrap()), found);
    }
}

#[test]
fn the_built_ui_is_what_its_sources_say() {
    let mut paths = Vec::new();
    for path in SEALED {
        files(path, &mut paths);
    }
    paths.sort();
    let mut hash = Context::new(&SHA256);
    for path in paths {
        let bytes = fs::read(ui().join(&path)).unwrap();
        hash.update(format!("{path}\0{}\0", bytes.len()).as_bytes());
        hash.update(&bytes);
    }
    let sealed = fs::read_to_string(ui().join("dist.sha256")).unwrap();
    let hint = "ui/dist is not what ui/ builds to; run: make ui";
    assert_eq!(to_hex(hash.finish().as_ref()), sealed.trim(), "{hint}");
}

#[tokio::test]
async fn every_operation_of_the_ui_is_valid_against_the_schema() {
    let app = App::start().await;
    let mut paths = Vec::new();
    files("src", &mut paths);
    paths.retain(|path| path.ends_with(".graphql"));
    assert!(!paths.is_empty());
    // Fragments may be in another file, because the build merges them too.
    let texts: Vec<_> = paths.iter().map(|path| fs::read_to_string(ui().join(path)).unwrap()).collect();
    for (path, text) in paths.iter().zip(&texts) {
        let document = parse_query(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        for (name, _) in document.operations.iter() {
            let name = name.expect("the UI's operations have names").as_str();
            let query = alone(text, name, &texts);
            // The document is validated as a whole but not run: it has no operation of that name.
            let body = json!({"query": query, "operationName": "None"});
            let answer = app.admin().call("POST", "/graphql").json(&body).send().await.json();
            let message = answer["errors"][0]["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.starts_with("Unknown operation named"), "{path}: {name}: {message}");
        }
    }
}

/// Returns one operation of a document, with the fragments of everything that it spreads.
fn alone(text: &str, name: &str, all: &[String]) -> String {
    let pieces = |text: &str| -> Vec<String> {
        let mut pieces: Vec<String> = Vec::new();
        for line in text.lines() {
            if ["query ", "mutation ", "fragment "].iter().any(|word| line.starts_with(word)) {
                pieces.push(String::new());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push_str(line);
                piece.push('\n');
            }
        }
        pieces
    };
    let named = |piece: &String| {
        let mut words = piece.split([' ', '(', '{']);
        words.nth(1).is_some_and(|word| word == name)
    };
    let mut query = pieces(text).into_iter().find(named).unwrap();
    for piece in all.iter().flat_map(|text| pieces(text)) {
        let fragment = piece.strip_prefix("fragment ").and_then(|rest| rest.split(' ').next());
        if fragment.is_some_and(|fragment| query.contains(&format!("...{fragment}"))) {
            query.push_str(&piece);
        }
    }
    query
}

#[tokio::test]
async fn a_file_of_the_ui_is_sent_packed_and_only_once() {
    let app = App::start().await;
    let get = |encoding: &'static str| {
        app.anonymous().call("GET", "/app.js").unsigned().header("Accept-Encoding", encoding)
    };
    let plain = get("identity").send().await;
    assert_eq!(plain.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(plain.header("content-encoding"), None);
    let packed = get("gzip, br").send().await;
    assert_eq!(packed.header("content-encoding"), Some("br"));
    assert_eq!(packed.header("vary"), Some("Accept-Encoding"));
    assert!(packed.body.len() * 3 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    assert_ne!(packed.header("etag"), plain.header("etag"));
    let again = get("gzip, br").header("If-None-Match", packed.header("etag").unwrap()).send().await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // The brotli twins are not served under their own names.
    assert_eq!(app.anonymous().call("GET", "/app.js.br").unsigned().send().await.status, 404);
}

#[tokio::test]
async fn what_the_first_page_loads_is_small() {
    let app = App::start().await;
    let mut total = 0;
    for path in ["/index.html", "/app.js", "/app.css", "/icon.svg", "/inter.woff2"] {
        let call = app.anonymous().call("GET", path).unsigned().header("Accept-Encoding", "br");
        total += call.send().await.body.len();
    }
    assert!(total < 200 * 1024, "{total} bytes");
}

#[tokio::test]
async fn the_page_has_no_script_or_style_that_is_not_a_file() {
    let app = App::start().await;
    let page = app.anonymous().call("GET", "/presence").unsigned().header("Accept", "text/html").send().await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    assert!(!text.contains("style=") && !text.contains("<style"), "{text}");
    for script in text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        assert!(tag.contains("src=\"/") && rest.starts_with("</script>"), "{script}");
    }
}
