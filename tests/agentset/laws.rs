//! What holds for every expression, tried on many: printing and reading agree, folding loses nothing, no text breaks
//! the parser, the bound on names holds before names are made, and a slow evaluator that anybody can check agrees.

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::{collection::vec, proptest, sample::select};

use wharf::base::agent_name::checked;
use wharf::fleet::error::{ErrorCode, ExpressionError};
use wharf::fleet::evaluate::{evaluate, evaluate_known};
use wharf::fleet::expression::{Atom, Expression, MAX_NAMES, Operation, Set, Term};
use wharf::fleet::fold::{expand, fold};
use wharf::fleet::pattern::{Pattern, Piece};
use wharf::fleet::selector::Condition;

use super::{Dice, Lab};

type Names = BTreeSet<String>;

fn lab() -> Lab {
    let mut lab = Lab::default();
    for number in 0..=21 {
        let zone = ["a", "b", ""][number % 3];
        lab.add(format!("n{number}"), &[("arch", "arm64"), ("zone", zone)]);
        lab.add(format!("n{number:02}"), &[("zone", zone), ("lab.example/rack", "1")]);
        lab.add(format!("r{}n{number:02}-ib", number % 4), &[]);
    }
    for (name, picked) in
        [("odd", ["n1", "n3", "n05"].as_slice()), ("ib", &["r0n00-ib", "n1"]), ("empty", &[])]
    {
        lab.groups.insert(name.into(), picked.iter().map(|name| (*name).to_owned()).collect());
    }
    lab
}

/// What one would write on a napkin: names as text, every pattern tried on every name.
fn naive(set: &Set, lab: &Lab) -> Result<Names, (ErrorCode, usize)> {
    let mut found = Names::new();
    for atom in &set.union {
        found.extend(naive_atom(atom, lab)?);
    }
    for filter in &set.filters {
        let matched = naive_atom(&filter.atom, lab)?;
        found.retain(|name| matched.contains(name) == (filter.operation == Operation::Keep));
    }
    Ok(found)
}

fn naive_atom(atom: &Atom, lab: &Lab) -> Result<Names, (ErrorCode, usize)> {
    let agents = || lab.agents.keys().cloned();
    Ok(match &atom.term {
        Term::Everyone => agents().collect(),
        Term::Parentheses(set) => naive(set, lab)?,
        Term::Group(name) => lab.groups.get(name).cloned().ok_or((ErrorCode::UnknownGroup, atom.position))?,
        Term::Selector(selector) => {
            let value = |name: &String, key: &str| match key {
                "name" => Some(name.clone()),
                "status" | "engine" | "os" | "scaling_group" => None,
                _ => lab.agents[name].get(key).cloned(),
            };
            let fits = |name: &String| {
                selector.requirements.iter().all(|asked| {
                    let value = value(name, &asked.key);
                    match &asked.condition {
                        Condition::Present => value.is_some(),
                        Condition::Absent => value.is_none(),
                        Condition::Equal(wanted) => value.as_ref() == Some(wanted),
                        Condition::NotEqual(wanted) => value.as_ref() != Some(wanted),
                        Condition::In(wanted) => value.is_some_and(|value| wanted.contains(&value)),
                        Condition::NotIn(wanted) => value.is_none_or(|value| !wanted.contains(&value)),
                    }
                })
            };
            agents().filter(fits).collect()
        }
        Term::Pattern(pattern) => {
            let spelled = spell(pattern);
            if pattern.is_glob() {
                let fits = |name: &String| spelled.iter().any(|one| glob(one.as_bytes(), name.as_bytes()));
                agents().filter(fits).collect()
            } else if spelled.iter().all(|name| lab.agents.contains_key(name)) {
                spelled.into_iter().collect()
            } else {
                return Err((ErrorCode::UnknownAgent, atom.position));
            }
        }
    })
}

/// The pattern with its ranges written out; wildcards stay.
fn spell(pattern: &Pattern) -> Vec<String> {
    let mut spelled = vec![String::new()];
    for piece in &pattern.pieces {
        let ends: Vec<String> = match piece {
            Piece::Text(text) => vec![text.clone()],
            Piece::Star => vec!["*".into()],
            Piece::Any => vec!["?".into()],
            Piece::Range(spans) => spans
                .iter()
                .flat_map(|span| {
                    let width = span.width;
                    let step = usize::try_from(span.step).unwrap();
                    (span.first..=span.last).step_by(step).map(move |number| format!("{number:0width$}"))
                })
                .collect(),
        };
        spelled =
            spelled.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))).collect();
    }
    spelled
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], rest) => rest.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| glob(rest, &name[skipped..])),
        ([b'?', pattern @ ..], [_, name @ ..]) => glob(pattern, name),
        ([wanted, pattern @ ..], [found, name @ ..]) => wanted == found && glob(pattern, name),
        (_, []) => false,
    }
}

/// An expression, mostly a sound one that matches something.
fn expression() -> impl Strategy<Value = String> {
    set(atom().prop_recursive(3, 24, 4, |inner| set(inner).prop_map(|set| format!("({set})"))))
}

fn set(atom: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = String> {
    let separator = select(&[",", " ", " , ", ",\t", "\r\n"]);
    let filter = (select(&["&", "!", " & ", "\n!", ", !", ",&"]), atom.clone());
    (atom.clone(), vec((separator, atom), 0..3), vec(filter, 0..3)).prop_map(|(mut text, union, filters)| {
        for (between, part) in union.into_iter().chain(filters) {
            let _ = write!(text, "{between}{part}");
        }
        text
    })
}

fn atom() -> impl Strategy<Value = String> {
    let range = || {
        (0_u64..18, 0_u64..4, 0_u64..4, any::<bool>()).prop_map(|(first, more, step, padded)| {
            let width = if padded { 2 } else { 0 };
            match (more, step) {
                (0, _) => format!("{first:0width$}"),
                (_, 0) => format!("{first:0width$}-{:0width$}", first + more),
                _ => format!("{first:0width$}-{:0width$}/{step}", first + more),
            }
        })
    };
    let ranges = move || vec(range(), 1..4).prop_map(|items| format!("[{}]", items.join(",")));
    prop_oneof![
        4 => ranges().prop_map(|ranges| format!("n{ranges}")),
        2 => (ranges(), select(&["*n", "*", "n?", "?", "r*n"])).prop_map(|(ranges, start)| format!("{start}{ranges}")),
        1 => ranges().prop_map(|ranges| format!("r[0-3]n{ranges}*")),
        3 => select(&["*", "all", "@*", "n1*", "?1?", "*-ib", "n*0", "r?n*1-??", "***", "zz*"]).prop_map(String::from),
        2 => select(&["n1", "n01", "n21", "r1n01-ib", "@odd", "@ib", "@empty"]).prop_map(String::from),
        1 => select(&["n22", "N1", "all1", "@nope", "r1n02-ib"]).prop_map(String::from),
        3 => select(&[
            "{zone=a}", "{zone!=a}", "{zone}", "{!zone}", "{zone in (a,b),arch=arm64}", "{ zone notin (a , ) }",
            "{zone==}", "{lab.example/rack in (1)}", "{name=n1}", "{arch!=arm64,zone=b}", "{status!=lost}",
        ]).prop_map(String::from),
    ]
}

/// Pieces of the language in any order.
fn soup() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        select(&[
            "(",
            ")",
            ",",
            " ",
            "&",
            "!",
            "@",
            "*",
            "?",
            "[",
            "]",
            "{",
            "}",
            "-",
            "/",
            "=",
            "!=",
            " in ",
            " notin ",
            "all",
            "n",
            "01",
            "1",
            "[1-3]",
            "[01-05/2]",
            "{zone=a}",
            "@odd",
            "n1",
            "é",
            "\u{0}",
            "^",
            "~",
            "%",
            "<",
            "999999999999999999",
            "0",
        ])
        .prop_map(String::from),
        any::<char>().prop_map(String::from),
    ];
    vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "(n|gpu|a-)[0-9]{1,3}",
        2 => "[a-c.]?[0-9]{1,2}[a-b-]{0,2}[0-9]{1,4}(-ib)?",
        1 => "[A-Za-z0-9._-]{1,24}",
        1 => "n[0-9]{17,20}",
    ]
    .prop_filter("an agent may not be called so", |name| checked("id", name).is_ok())
}

/// What `find` says, with an empty set in place of its error, and without the words of the others.
fn found(lab: &Lab, text: &str) -> Result<Names, (ErrorCode, usize)> {
    match lab.find(text) {
        Err(error) if error.code == ErrorCode::NoMatch => Ok(Names::new()),
        other => other.map_err(|error| (error.code, error.position)),
    }
}

/// Whatever the text is: no panic, and an error that can be shown.
fn try_out(text: &str, lab: &Lab) -> Option<Expression> {
    let presentable = |error: &ExpressionError| {
        assert!(
            error.position <= text.len() && text.is_char_boundary(error.position),
            "{error:?} in {text:?}"
        );
        assert!(error.message.len() < 1000, "{error}");
        let caret = error.caret(text);
        assert!(caret.lines().count() == 2 && caret.len() < 200, "{caret}");
        assert!(caret.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{caret:?}");
    };
    let tree = Expression::parse(text).inspect_err(presentable).ok()?;
    let _ = evaluate(&tree, &lab.inventory()).inspect_err(presentable);
    let printed = tree.to_string();
    assert_eq!(Expression::parse(&printed).as_ref(), Ok(&tree), "{text:?} was printed as {printed:?}");
    Some(tree)
}

/// No files of failures beside the sources: a failure is printed with its input, which goes into a test of its own.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn names_of_nobody_are_listed_up_to_a_bound_and_change_nothing_else() {
    let lab = lab();
    let known = |text: &str| {
        let inventory = lab.inventory();
        let known = evaluate_known(&Expression::parse(text).unwrap(), &inventory);
        let names = known.names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        (names.join(","), known.unknown.join(","), known.unknown_count)
    };
    assert_eq!(known("n1,n2,zz[1-2]"), ("n1,n2".into(), "zz1,zz2".into(), 2));
    assert_eq!(known("n1,n2!(n2,zz9)"), ("n1".into(), "zz9".into(), 1));
    assert_eq!(known("n1&@none"), (String::new(), "@none".into(), 1));
    let (_, listed, count) = known("zz[1-5000]");
    assert_eq!((listed.split(',').count(), count), (100, 5000));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_sound_expression_is_printed_and_read_back(text in expression()) {
        let tree = Expression::parse(&text);
        prop_assert!(tree.is_ok(), "{text}: {tree:?}");
        try_out(&text, &lab());
    }

    #[test]
    fn no_text_breaks_anything(text in prop_oneof![soup(), any::<String>()]) {
        let lab = lab();
        if let Some(tree) = try_out(&text, &lab) {
            prop_assert_eq!(found(&lab, &text), naive(&tree.set, &lab));
        }
        let _ = expand(&text);
    }

    #[test]
    fn the_slow_evaluator_agrees(text in expression()) {
        let lab = lab();
        let tree = Expression::parse(&text).unwrap();
        prop_assert_eq!(found(&lab, &text), naive(&tree.set, &lab));
    }

    #[test]
    fn what_is_nobodys_is_passed_over_and_told_of(text in expression()) {
        let lab = lab();
        let (inventory, tree) = (lab.inventory(), Expression::parse(&text).unwrap());
        let known = evaluate_known(&tree, &inventory);
        match evaluate(&tree, &inventory) {
            Ok(set) => {
                prop_assert_eq!(known.names.as_slice(), set.names());
                prop_assert_eq!(known.unknown_count, 0);
            }
            Err(error) if error.code == ErrorCode::NoMatch => {
                prop_assert!(known.names.is_empty() && known.unknown.is_empty());
            }
            Err(_) => prop_assert!(known.unknown_count > 0),
        }
    }

    #[test]
    fn sets_keep_the_laws_of_sets(a in expression(), b in expression(), c in expression()) {
        let lab = lab();
        let same = |one: String, other: String| {
            // Which of two mistakes is met first depends on the order.
            if let (Ok(one), Ok(other)) = (found(&lab, &one), found(&lab, &other)) {
                assert_eq!(one, other, "{a} | {b} | {c}");
            }
        };
        same(format!("({a}),({b})"), format!("({b}),({a})"));
        same(format!("({a})&({b})"), format!("({b})&({a})"));
        same(format!("({a}),({a})"), a.clone());
        same(format!("({a})&({a})"), a.clone());
        same(format!("({a})&*"), a.clone());
        same(format!("({a})!*"), "zz*".into());
        same(format!("*!(*!({a}))"), a.clone());
        same(format!("({a})!({b})"), format!("({a})&(*!({b}))"));
        same(format!("*!(({a}),({b}))"), format!("(*!({a}))&(*!({b}))"));
        same(format!("({a})!({b})!({c})"), format!("({a})!(({b}),({c}))"));
        same(format!("({a}),({b})&({c})"), format!("(({a})&({c})),(({b})&({c}))"));
        same(format!("({a}) ({b}) , !({c})"), format!("(({a})!({c})),(({b})!({c}))"));
    }

    #[test]
    fn folding_loses_nothing(names in vec(name(), 0..60)) {
        let folded = fold(&names);
        let names: Vec<String> = names.into_iter().collect::<Names>().into_iter().collect();
        let expanded = expand(&folded);
        prop_assert_eq!(expanded.as_ref(), Ok(&names), "{}", folded);
        prop_assert_eq!(fold(&names), folded);
    }

    #[test]
    fn ranges_are_counted_before_they_are_laid_out(
        ranges in vec((0_u64..10, prop_oneof![1_u64..400, Just(70_000), Just(999_999_999_999_999_900)], 1_u64..4), 1..5),
        between in select(&["", "x", ",y", ",z*"]),
    ) {
        let text: Vec<_> =
            ranges.iter().map(|(first, more, step)| format!("a[{first}-{}/{step}]", first + more)).collect();
        let counts = ranges.iter().map(|(_, more, step)| u128::from(more / step + 1));
        let wanted: u128 = if between.starts_with(',') { counts.sum() } else { counts.fold(1, u128::saturating_mul) };
        let parsed = Expression::parse(&text.join(between));
        if wanted > u128::from(MAX_NAMES) {
            prop_assert_eq!(parsed.unwrap_err().code, ErrorCode::RangeTooLarge);
        } else {
            prop_assert!(parsed.is_ok());
        }
    }
}

/// Random bytes, and sound expressions with random damage. `make fuzz` runs it for long.
#[test]
fn random_bytes_never_panic() {
    let setting = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let seed = setting("WHARF_FUZZ_SEED", 1);
    let lab = lab();
    let sound = [
        "n[01-15/2],@odd&{zone in (a,b),!os}!r?n*-ib",
        "*!(n[1-20],{zone=a})",
        "((n1 n2\tn3)&@ib),all",
        "r[0-3]n[00-21]-ib",
        "n[999999999999999999]",
        "{lab.example/rack!=1},n1",
    ];
    for round in 0..setting("WHARF_FUZZ_ITERATIONS", 3000) {
        let mut dice = Dice(seed.wrapping_add(round.wrapping_mul(0x5851_f42d_4c95_7f2d)));
        let mut bytes = Vec::new();
        if dice.roll(4) == 0 {
            bytes.extend((0..dice.roll(200)).map(|_| u8::try_from(dice.roll(256)).unwrap()));
        } else {
            bytes.extend_from_slice(dice.pick(&sound).as_bytes());
            for _ in 0..=dice.roll(4) {
                let start = dice.roll(bytes.len() + 1);
                let end = (start + dice.roll(6)).min(bytes.len());
                let signs = b"()[]{},&!@*?-/=019azn \n\xff";
                let instead: Vec<u8> = (0..dice.roll(4)).map(|_| dice.pick(signs)).collect();
                bytes.splice(start..end, instead);
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let fine = std::panic::catch_unwind(|| {
            try_out(&text, &lab);
            let _ = expand(&text);
        });
        assert!(fine.is_ok(), "WHARF_FUZZ_SEED={seed}, round {round}: {text:?}");
    }
}
