//! The preprocessor: the features that kernels use, and errors with their place.

#[allow(dead_code, reason = "the build script uses the rest")]
#[path = "../preprocess.rs"]
mod preprocess;

use std::collections::BTreeMap;

fn run(text: &str, flags: &[&str]) -> Result<preprocess::Source, String> {
    let prelude = BTreeMap::from([("one".to_owned(), "fn one() {}\n".to_owned())]);
    preprocess::preprocess("kernel.wgsl", text, flags, &prelude)
}

#[test]
fn flags_choose_lines_and_lines_remember_their_place() {
    let text = "#import one\n#import one\n#ifdef A\na\n#else\nb\n#endif\n#ifndef A\nc\n#endif\n";
    let source = run(text, &["A"]).expect("valid");
    assert_eq!(source.wgsl, "fn one() {}\na\n", "an import enters once");
    assert_eq!(source.origin, [("prelude/one.wgsl".to_owned(), 1), ("kernel.wgsl".to_owned(), 4)], "origins");
    assert_eq!(run(text, &[]).expect("valid").wgsl, "fn one() {}\nb\nc\n", "without the flag");
}

#[test]
fn mistakes_name_their_line() {
    for (text, place) in
        [("a\n#import two\n", "kernel.wgsl:2"), ("#elif A\n", "kernel.wgsl:1"), ("#ifdef A\n", "kernel.wgsl")]
    {
        let error = run(text, &[]).err().unwrap_or_default();
        assert!(error.contains(place), "{text:?} gave {error:?}");
    }
}

#[test]
fn a_star_lists_a_kernels_variants_again_with_more_flags() {
    let list = preprocess::variants("one\n* C\n- two\n+ two_a: A\n+ two_b:\n* C D\n").expect("valid");
    let found: Vec<String> = list.iter().map(|v| format!("{} {} {}", v.kernel, v.name, v.flags.join(","))).collect();
    let expected = ["one one ", "one one_h C", "two two_a A", "two two_b ", "two two_a_h A,C,D", "two two_b_h C,D"];
    assert_eq!(found, expected);
    assert!(preprocess::variants("* C").is_err(), "variants of nothing");
}
