//! The vectors: expressions, what they name, and how the wrong ones are refused.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use wharf::base::agent_name::{RESERVED, checked};
use wharf::fleet::error::{ErrorCode, ExpressionError};
use wharf::fleet::evaluate::{Agent, Inventory, evaluate};
use wharf::fleet::expression::{Expression, MAX_NAMES, Term};
use wharf::fleet::fold::{expand, fold};

use super::Lab;

const VECTORS: &str = include_str!("../agentset-vectors.json");

fn vectors() -> (Lab, Vec<Value>) {
    let all: Value = serde_json::from_str(VECTORS).expect("JSON");
    let of = |key: &str| all["inventory"][key].clone();
    let lab = Lab {
        agents: serde_json::from_value(of("agents")).expect("agents"),
        groups: serde_json::from_value(of("groups")).expect("groups"),
    };
    (lab, all["vectors"].as_array().expect("vectors").clone())
}

fn lab() -> Lab {
    vectors().0
}

fn refusal(text: &str) -> ExpressionError {
    lab().find(text).expect_err(text)
}

#[test]
fn every_vector_holds() {
    let (lab, vectors) = vectors();
    assert!(vectors.len() > 30);
    for vector in vectors {
        let text = vector["expr"].as_str().expect("an expression");
        let found = lab.find(text);
        if let Some(code) = vector["error"].as_str() {
            let error = found.expect_err(text);
            assert_eq!(
                (error.code.as_str(), error.position as u64),
                (code, vector["position"].as_u64().unwrap()),
                "{text}"
            );
            continue;
        }
        let wanted: BTreeSet<String> = serde_json::from_value(vector["agents"].clone()).expect("names");
        assert_eq!(found.as_ref(), Ok(&wanted), "{text}");
        let folded = vector["folded"].as_str().expect("folded");
        assert_eq!(fold(&wanted), folded, "{text}");
        assert_eq!(expand(folded).map(BTreeSet::from_iter), Ok(wanted.clone()), "{text}");
        assert_eq!(lab.find(folded), Ok(wanted), "what is folded is an expression: {folded}");
    }
}

#[test]
fn mistakes_are_told_by_kind_and_place() {
    let nested = |depth| format!("{}gpu01{}", "(".repeat(depth), ")".repeat(depth));
    assert!(lab().find(&nested(32)).is_ok());
    let padded = |length: usize| format!("gpu01{}", " ".repeat(length - 5));
    assert!(lab().find(&padded(4096)).is_ok());
    for (text, code, position) in [
        (nested(33), ErrorCode::TooDeep, 33),
        ("(".repeat(40), ErrorCode::TooDeep, 33),
        (padded(4097), ErrorCode::TooLong, 4096),
        ("x".repeat(5000), ErrorCode::TooLong, 4096),
        ("\t\r\n".into(), ErrorCode::Empty, 0),
        ("&gpu01".into(), ErrorCode::Syntax, 0),
        ("gpu01,(!gpu02)".into(), ErrorCode::Syntax, 7),
        ("()".into(), ErrorCode::Syntax, 1),
        (",gpu01".into(), ErrorCode::Syntax, 0),
        ("gpu01,,gpu02".into(), ErrorCode::Syntax, 6),
        ("gpu01!".into(), ErrorCode::Syntax, 6),
        ("gpu01&@a100,".into(), ErrorCode::Syntax, 12),
        ("(gpu01)gpu02".into(), ErrorCode::Syntax, 7),
        ("@a100{zone=a}".into(), ErrorCode::Syntax, 5),
        ("@".into(), ErrorCode::Syntax, 1),
        ("@a100:x".into(), ErrorCode::Syntax, 5),
        ("gpu01^gpu02".into(), ErrorCode::Syntax, 5),
        ("gpu* % 10".into(), ErrorCode::Syntax, 5),
        ("~gpu".into(), ErrorCode::Syntax, 0),
        ("gpü01".into(), ErrorCode::Syntax, 2),
        ("gpu[]".into(), ErrorCode::Syntax, 4),
        ("gpu[1,]".into(), ErrorCode::Syntax, 6),
        ("gpu[a]".into(), ErrorCode::Syntax, 4),
        ("gpu[1-2".into(), ErrorCode::Syntax, 3),
        ("gpu[1-".into(), ErrorCode::Syntax, 3),
        ("gpu[1-4/0]".into(), ErrorCode::Syntax, 3),
        ("gpu[1/2]".into(), ErrorCode::Syntax, 5),
        ("gpu[01-100]".into(), ErrorCode::RangePad, 3),
        ("gpu[1-9999999999999999999]".into(), ErrorCode::RangeTooLarge, 3),
        ("x[1-65537]".into(), ErrorCode::RangeTooLarge, 1),
        ("x[1-256]y[1-257]".into(), ErrorCode::RangeTooLarge, 9),
        ("x[1-40000],y[1-40000]".into(), ErrorCode::RangeTooLarge, 12),
        ("*[1-999999]*".into(), ErrorCode::RangeTooLarge, 1),
        ("gpu01!gpu02 gpu03".into(), ErrorCode::MixedOps, 12),
        ("gpu01!gpu02, gpu03".into(), ErrorCode::MixedOps, 11),
        ("gpu01!ALL".into(), ErrorCode::UnknownAgent, 6),
        ("gpu01!gpu01".into(), ErrorCode::NoMatch, 0),
        ("zzz*".into(), ErrorCode::NoMatch, 0),
        ("gpu01!(zzz*&nope)".into(), ErrorCode::UnknownAgent, 12),
        ("gpu01&zzz*&@nope".into(), ErrorCode::UnknownGroup, 11),
    ] {
        let error = refusal(&text);
        assert_eq!((error.code, error.position), (code, position), "{text}: {error}");
        assert!(!error.message.is_empty() && error.caret(&text).lines().count() == 2);
    }
}

#[test]
fn a_selector_is_what_kubectl_takes() {
    for (selector, count) in [
        ("{gpu}", 16),
        ("{!gpu}", 9),
        ("{ ! gpu , arch }", 5),
        ("{gpu==a100}", 8),
        ("{gpu notin (a100,h100)}", 9),
        ("{gpu notin(a100), zone in (a , b)}", 12),
        ("{gpu!=a100,gpu}", 8),
        ("{zone=}", 0),
        ("{zone in ()}", 0),
        ("{zone notin ()}", 25),
        ("{in}", 0),
        ("{name=gpu01}", 1),
        ("{name in (gpu01,cpu1)}", 2),
        ("{lab.example/rack=3}", 0),
    ] {
        match lab().find(selector) {
            Ok(found) => assert_eq!(found.len(), count, "{selector}"),
            Err(error) => assert_eq!((error.code, 0), (ErrorCode::NoMatch, count), "{selector}: {error}"),
        }
    }
    for bad in [
        "{",
        "{}",
        "{ }",
        "{,}",
        "{a,}",
        "{,a}",
        "{a b}",
        "{a=b",
        "{a=b c}",
        "{=b}",
        "{!a=b}",
        "{a in b}",
        "{a in (b}",
        "{a in (b c)}",
        "{a>1}",
        "{-a}",
        "{a-}",
        "{a/b/c}",
        "{/a}",
        "{A.b/c}",
        "{a/}",
        "{a=b/c}",
        "{a=-b}",
        "{é}",
        &format!("{{{}}}", "a".repeat(64)),
        &format!("{{a={}}}", "a".repeat(64)),
    ] {
        let error = refusal(&format!("gpu01 {bad}"));
        assert_eq!((error.code, error.position), (ErrorCode::Selector, 6), "{bad}: {error}");
    }
}

#[test]
fn users_cannot_overrule_what_the_lab_knows() {
    let mut lab = Lab::default();
    for (name, arch) in [("one", "arm64"), ("two", "amd64")] {
        lab.add(name, &[("arch", arch), ("name", "boss"), ("status", "alive"), ("scaling_group", "gold")]);
    }
    assert_eq!(lab.find("{name=one}").unwrap().len(), 1);
    for lie in ["{name=boss}", "{status=alive}", "{status}", "{scaling_group=gold}"] {
        assert_eq!(lab.find(lie).expect_err(lie).code, ErrorCode::NoMatch, "{lie}");
    }
    let labels = std::collections::BTreeMap::new();
    let one = Agent { status: Some("lost"), scaling_group: Some("gold"), ..Agent::new("one", &labels) };
    let inventory = Inventory::new([one, Agent::new("two", &labels)]).with_group("empty", []);
    for (text, folded) in
        [("@gold", "one"), ("{status=lost}", "one"), ("{status!=lost}", "two"), ("*!@gold,!@empty", "two")]
    {
        assert_eq!(
            evaluate(&Expression::parse(text).unwrap(), &inventory).unwrap().folded(),
            folded,
            "{text}"
        );
    }
}

#[test]
fn a_miss_by_case_alone_gets_the_right_spelling() {
    for (text, meant) in [
        ("GPU01", "gpu01?"),
        ("*!Jetson-1", "jetson-1?"),
        ("GPU[03-04]", "gpu03?"),
        ("@A100", "@a100?"),
        ("ALL", "all?"),
    ] {
        let message = refusal(text).message;
        assert!(message.ends_with(&format!("did you mean {meant}")), "{message}");
    }
    assert!(!refusal("nope1").message.contains("did you mean"));
    let message = refusal("gpu[01-99]").message;
    assert_eq!(message, "no such agent: gpu17,gpu18,gpu19,gpu20,gpu21,... (83 in all)");
}

#[test]
fn wildcards_and_ranges_mix() {
    for (text, folded) in [
        ("gpu?[1-2]", "gpu[01-02,11-12]"),
        ("*[1-2]n0?", "dc1n[01-02],dc2n[01-02]"),
        ("?pu[3-4]", "cpu[3-4]"),
        ("*-[1-3]", "jetson-1"),
        ("*[1,11]", "cpu1,dc1n01,dc2n01,gpu[01,11],jetson-1"),
        ("g*[01-03]", "gpu[01-03]"),
        ("g**1*", "gpu[01,10-16]"),
        ("*u*1?", "gpu[10-16]"),
    ] {
        assert_eq!(fold(lab().find(text).unwrap()), folded, "{text}");
    }
}

#[test]
fn an_agent_cannot_be_called_what_means_something_else() {
    let texts = ["gpu01", "a", "0", "All", "a_b.c-d", "", "all", "*", "a b", "a,b", "é", "a[1]", "@a", "a!b"];
    let texts = texts.into_iter().chain(RESERVED);
    for text in texts {
        let names = Expression::parse(text).ok().and_then(|parsed| match parsed.set.union.as_slice() {
            [atom] if parsed.set.filters.is_empty() => match &atom.term {
                Term::Pattern(pattern) if pattern.to_string() == text => Some(expand(text).ok()?),
                _ => None,
            },
            _ => None,
        });
        let is_itself = names.is_some_and(|names| names == [text]);
        assert_eq!(checked("id", text).is_ok(), is_itself, "{text:?}");
    }
}

#[test]
#[ignore = "prints how long a large lab takes; run it with --release -- --ignored --nocapture"]
fn a_large_lab_is_quick() {
    let mut lab = Lab::default();
    for number in 1..=10_000 {
        let zone = ["a", "b", "c"][number % 3];
        lab.add(format!("gpu{number:04}"), &[("arch", "amd64"), ("zone", zone), ("lab.example/rack", "7")]);
    }
    let start = Instant::now();
    let inventory = lab.inventory();
    println!("{:>12?} inventory of {} agents", start.elapsed(), lab.agents.len());
    let racks = format!("{}*", "*[0-9]".repeat(4));
    let wild = vec!["*1*"; 1000].join(",");
    for text in ["*!(gpu[0001-5000],{zone=a})", "gpu[0001-9999]", &racks, &wild, "x[1-65536]"] {
        assert!(text.len() < 4096 && MAX_NAMES == 65_536);
        let shown: String = text.chars().take(40).collect();
        let rounds = (0..5).map(|_| {
            let start = Instant::now();
            let count =
                Expression::parse(text).and_then(|tree| Ok(evaluate(&tree, &inventory)?.names().len()));
            (start.elapsed(), count.map_err(|error| error.code))
        });
        let (fastest, count) = rounds.min_by_key(|(elapsed, _)| *elapsed).unwrap();
        println!("{fastest:>12?} {shown}: {count:?}");
    }
    let start = Instant::now();
    let folded = fold(lab.agents.keys());
    println!("{:>12?} folded: {folded}", start.elapsed());
}
