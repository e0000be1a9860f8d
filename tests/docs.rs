//! Checks README, docs and the pages for contributors: their links, the anchors in them, and the paths they name.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A longer README is a manual, which belongs in docs.
const MOST_LINES_OF_README: usize = 200;

/// The beginnings of paths in the text that are paths of ours.
const FOLDERS: &[&str] = &["docs/", "packaging/", "src/", "tests/", "ui/"];

/// A page without its blocks of code.
struct Page {
    path: PathBuf,
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut paths: Vec<PathBuf> = top.iter().map(PathBuf::from).collect();
    below(Path::new("docs"), &mut paths);
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a folder of pages") {
        let path = folder.join(entry.expect("an entry").file_name());
        if root().join(&path).is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(root().join(&path)).expect("a readable page");
        let mut is_code = false;
        let mut lines = Vec::new();
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            } else if !is_code {
                lines.push(line.to_owned());
            }
        }
        Self { path, lines }
    }

    /// Returns the targets of its links and images.
    fn links(&self) -> Vec<String> {
        let mut found = Vec::new();
        for line in &self.lines {
            let line = without_spans(line);
            for rest in line.split("](").skip(1) {
                found.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
            }
        }
        found
    }

    /// Returns the texts between backticks.
    fn spans(&self) -> Vec<String> {
        let spans = |line: &String| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        self.lines.iter().flat_map(spans).collect()
    }

    /// Returns the anchors that links may use: its headings, as forges name them.
    fn anchors(&self) -> Vec<String> {
        let mut met: HashMap<String, usize> = HashMap::new();
        let headings = self.lines.iter().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let name = anchor(line.trim_start_matches('#').trim());
                let count = met.entry(name.clone()).or_default();
                *count += 1;
                if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
            })
            .collect()
    }
}

/// Returns the line without the texts between backticks: a link in one is no link.
fn without_spans(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// Resolves a link: `docs/guide` and `../../README.md` are `README.md`. Returns `None` outside the repository.
fn resolved(folder: &Path, link: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in folder.join(link).components() {
        match component {
            Component::ParentDir if !path.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => path.push(other),
        }
    }
    Some(path)
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&Path, Vec<String>> =
        pages.iter().map(|page| (page.path.as_path(), page.anchors())).collect();
    let mut faults = Vec::new();
    let mut count = 0;
    for page in &pages {
        for link in page.links() {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.path.parent().expect("a page is in a folder");
            let target = if file.is_empty() { Some(page.path.clone()) } else { resolved(folder, file) };
            let Some(target) = target.filter(|target| root().join(target).exists()) else {
                faults.push(format!("{}: {link}: there is no such file", page.path.display()));
                continue;
            };
            let has_anchor = |known: &Vec<String>| known.iter().any(|known| known == anchor);
            if !anchor.is_empty() && !anchors.get(target.as_path()).is_some_and(has_anchor) {
                faults.push(format!("{}: {link}: there is no such heading", page.path.display()));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_page_of_the_docs_is_linked_to() {
    let pages = pages();
    let mut linked = Vec::new();
    for page in &pages {
        let folder = page.path.parent().expect("a page is in a folder");
        linked.extend(page.links().iter().filter_map(|link| resolved(folder, link.split('#').next()?)));
    }
    let lonely: Vec<_> = pages.iter().map(|page| &page.path).filter(|path| !linked.contains(path)).collect();
    assert!(lonely.is_empty(), "no page leads to {lonely:?}");
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let mut faults = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for span in page.spans() {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder))
                && span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && !root().join(&span).exists() {
                faults.push(format!("{}: {span}", page.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "there is no such file or folder:\n{}", faults.join("\n"));
}

#[test]
fn the_readme_stays_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("README.md").lines().count();
    assert!(lines < MOST_LINES_OF_README, "{lines} lines; what is more than a first look belongs to docs");
}

#[test]
fn the_reader_of_links_is_not_fooled() {
    assert_eq!(anchor("`wharf image list`, and *more*: A/B_c"), "wharf-image-list-and-more-ab_c");
    let line = "see [a](b.md#c), ![d](e.png) and `[no](f.md)` in [g `h`](../i)";
    let page = Page { path: "docs/x.md".into(), lines: vec![line.into(), "# A".into(), "## A".into()] };
    assert_eq!(page.links(), ["b.md#c", "e.png", "../i"]);
    assert_eq!(page.anchors(), ["a", "a-1"]);
    assert_eq!(page.spans(), ["[no](f.md)", "h"]);
    assert_eq!(resolved(Path::new("docs"), "../README.md"), Some("README.md".into()));
    assert_eq!(resolved(Path::new("docs"), "../../x"), None);
}
