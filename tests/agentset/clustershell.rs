//! ClusterShell's own library beside ours, on the notation both share.
//!
//! Shared are names, ranges with padding and steps, unions with commas, and `!` and `&` after them. Left out, because
//! they differ on purpose:
//! - parentheses, `{labels}`, `*` and `?`, which its library does not have, and `@group`, which it asks others about;
//! - blanks as separators or around `&` and `!`: its library takes them for a part of the name, only its commands don't;
//! - a union after a filter: it goes from left to right, we ask for parentheses;
//! - names that no agent has: it knows no inventory. So all names here exist, and an empty set is our `NO_MATCH`.
//!
//! Folding agrees since ClusterShell 1.9 (before, `gpu09,gpu10` and `gpu9,gpu10` came out alike) for names with one
//! number that are padded alike, except that it sorts naturally and we by letters. Beyond that the texts differ, so
//! what they expand to is compared:
//! - with several numbers in a name, it folds over each unless told to take the last, and then leaves some runs apart;
//! - with several paddings, whether `8-12` stays one run beside `007` depends on what else is in the name.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use wharf::fleet::error::ErrorCode;
use wharf::fleet::evaluate::{Inventory, evaluate};
use wharf::fleet::expression::Expression;
use wharf::fleet::fold::{expand, fold};

use super::{Dice, Lab};
use crate::support::missing;

const DRIVER: &str = include_str!("../tools/clustershell.py");

/// Every name that [`part`] can write.
fn lab() -> Lab {
    let mut lab = Lab::default();
    for number in 0..=130 {
        for width in 1..=3 {
            lab.add(format!("n{number:0width$}"), &[]);
            lab.add(format!("gpu-{number:0width$}"), &[]);
            for rack in 1..=12 {
                lab.add(format!("r{rack}n{number:0width$}"), &[]);
                lab.add(format!("r{rack}n{number:0width$}-ib"), &[]);
            }
        }
    }
    lab
}

fn span(dice: &mut Dice) -> String {
    let first = dice.roll(110);
    let last = first + dice.roll(20);
    // Both ends have the same digits, or no zeros before them: anything else both refuse.
    let width = match dice.roll(4) {
        0 => 3,
        1 if last < 100 => 2,
        _ => 1,
    };
    match dice.roll(4) {
        0 => format!("{first:0width$}"),
        1 => format!("{first:0width$}-{last:0width$}/{}", 1 + dice.roll(5)),
        _ => format!("{first:0width$}-{last:0width$}"),
    }
}

fn part(dice: &mut Dice) -> String {
    let spans: Vec<_> = (0..=dice.roll(3)).map(|_| span(dice)).collect();
    let numbers = match spans.as_slice() {
        [one] if !one.contains(['-', '/']) && dice.roll(2) == 0 => one.clone(),
        _ => format!("[{}]", spans.join(",")),
    };
    let start = dice.pick(&["n", "gpu-", "r1n", "r[1-3]n", "r[2-12/2]n", "r[1,11-12]n"]);
    let end = if start.starts_with('r') { dice.pick(&["", "-ib"]) } else { "" };
    format!("{start}{numbers}{end}")
}

fn expression(dice: &mut Dice) -> String {
    let mut text = part(dice);
    for _ in 0..dice.roll(4) {
        text.push_str(dice.pick(&[",", ", "]));
        text.push_str(&part(dice));
    }
    for _ in 0..dice.roll(3) {
        text.push_str(dice.pick(&["!", "!", "&"]));
        text.push_str(&part(dice));
    }
    text
}

/// ClusterShell's answers to these cases; nothing where it can't be had.
fn ask(cases: &[Value]) -> Option<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/clustershell.sh");
    let installed = Command::new(script).output().expect("bash");
    if !installed.status.success() {
        missing("ClusterShell", String::from_utf8_lossy(&installed.stderr).trim());
        return None;
    }
    let python = String::from_utf8(installed.stdout).expect("a path");
    let mut driver = Command::new(python.trim())
        .args(["-c", DRIVER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let lines: Vec<_> = cases.iter().map(Value::to_string).collect();
    let lines = lines.join("\n");
    let mut input = driver.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = driver.wait_with_output().expect("python ends");
    writer.join().expect("no panic").expect("python reads all");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(answers.len(), cases.len());
    Some(answers)
}

fn found(inventory: &Inventory, text: &str) -> BTreeSet<String> {
    match Expression::parse(text).and_then(|tree| evaluate(&tree, inventory)) {
        Ok(found) => found.names().iter().map(|name| (*name).to_owned()).collect(),
        Err(error) if error.code == ErrorCode::NoMatch => BTreeSet::new(),
        Err(error) => panic!("{error}\n{}", error.caret(text)),
    }
}

fn names(value: &Value) -> BTreeSet<String> {
    serde_json::from_value(value.clone()).expect("names")
}

#[test]
fn clustershell_finds_the_same_names() {
    let mut dice = Dice(7);
    let texts: Vec<_> = (0..400).map(|_| expression(&mut dice)).collect();
    let cases: Vec<_> = texts.iter().map(|text| json!({ "expression": text })).collect();
    let Some(answers) = ask(&cases) else { return };
    let lab = lab();
    let inventory = lab.inventory();
    let mut empty = 0;
    for (text, answer) in texts.iter().zip(answers) {
        let found = found(&inventory, text);
        empty += usize::from(found.is_empty());
        assert_eq!(found, names(&answer["names"]), "{text}: {answer}");
    }
    assert!(empty < 200, "{empty} of 400 expressions name nothing; such a test says little");
}

#[test]
fn clustershell_refuses_the_same_ranges() {
    let texts = [
        "n[4-1]",
        "n[1-05]",
        "n[01-100]",
        "n[1-",
        "n[]",
        "n[1,]",
        "n[1-2/0]",
        "n[1/2]",
        "n[a]",
        "n1,",
        "n1!",
    ];
    let cases: Vec<_> = texts.iter().map(|text| json!({ "expression": text })).collect();
    let Some(answers) = ask(&cases) else { return };
    for (text, answer) in texts.iter().zip(answers) {
        assert!(answer["error"].is_string() && Expression::parse(text).is_err(), "{text}: {answer}");
    }
}

#[test]
fn clustershell_folds_alike() {
    let mut dice = Dice(11);
    let lab = lab();
    let inventory = lab.inventory();
    let mut sets: Vec<(bool, BTreeSet<String>)> = Vec::new();
    for _ in 0..150 {
        sets.push((true, plain(&mut dice)));
        sets.push((false, found(&inventory, &expression(&mut dice))));
    }
    sets.retain(|(_, names)| !names.is_empty());
    assert!(sets.len() > 200);
    let mut cases: Vec<_> = sets.iter().map(|(_, names)| json!({ "names": names })).collect();
    cases.extend(sets.iter().map(|(_, names)| json!({ "expression": fold(names) })));
    let Some(answers) = ask(&cases) else { return };
    let (folded, expanded) = answers.split_at(sets.len());
    for (((alike, own), folded), expanded) in sets.iter().zip(folded).zip(expanded) {
        let theirs = folded["folded"].as_str().unwrap_or_else(|| panic!("{folded}"));
        if *alike {
            assert_eq!(runs(&fold(own)), runs(theirs));
        }
        assert_eq!(expand(theirs).map(BTreeSet::from_iter).as_ref(), Ok(own), "{theirs}");
        assert_eq!(names(&expanded["names"]), *own, "they read what we folded");
    }
}

/// Names with one number in each, all padded alike or not at all.
fn plain(dice: &mut Dice) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for start in ["n", "gpu-"] {
        let (width, first) = (1 + dice.roll(3), dice.roll(110));
        for number in first..first + dice.roll(40) {
            let digits = format!("{number:0width$}");
            if dice.roll(4) > 0 && (width == 1 || digits.len() == width) {
                names.insert(format!("{start}{digits}"));
            }
        }
    }
    names
}

/// Every run of numbers by itself, with what stands around its brackets.
fn runs(folded: &str) -> BTreeSet<String> {
    let mut inside = false;
    let parts = folded.split(|c: char| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    });
    let apart = parts.flat_map(|part| {
        let (before, rest) = part.split_once('[').unwrap_or((part, "]"));
        let (runs, after) = rest.split_once(']').expect("a closed bracket");
        runs.split(',').map(|run| format!("{before}{run}{after}")).collect::<Vec<_>>()
    });
    apart.collect()
}
