use super::*;

fn value(text: &str) -> Json<'static> {
    from_bytes(text.as_bytes()).expect("JSON").into_owned()
}

#[test]
fn every_form_of_value() {
    let text = "\u{feff} {\"a\": [1, -2, 3.5, 1e3, 0, -0.0], \"b\": {\"c\": null, \"d\": [true, false]}, \
                \"e\": \"\\u00e9\\ud83d\\ude00\\n\\\"\\/\", \"\": [], \"f\": {}}";
    let tree = value(text);
    let Some(Json::Array(numbers)) = tree.get("a") else { panic!("{tree:?}") };
    let expected = [Json::Integer(1), Json::Integer(-2), Json::Float(3.5), Json::Float(1e3), Json::Integer(0)];
    assert_eq!(numbers[..5], expected);
    assert_eq!(tree.get("e").and_then(Json::as_str), Some("é😀\n\"/"));
    assert_eq!(tree.get(""), Some(&Json::Array(Vec::new())));
    assert_eq!(tree.get("b").and_then(|b| b.get("c")), Some(&Json::Null));
    // The same as another reader's.
    let other: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON");
    let keys: Vec<&str> = other.as_object().expect("an object").keys().map(String::as_str).collect();
    let Json::Object(entries) = &tree else { panic!("{tree:?}") };
    assert_eq!(entries.iter().map(|(key, _)| key.as_ref()).collect::<Vec<_>>(), keys);
}

#[test]
fn what_python_writes_is_an_error_only_where_it_is_read() {
    let tree = value("{\"a\": NaN, \"b\": [1.0, -Infinity], \"c\": 1e999, \"d\": Infinity, \"e\": \"NaN\", \"f\": 48}");
    let root = At::root(&tree);
    assert_eq!(root.get("f").expect("a key").read::<usize>(), Ok(48));
    assert_eq!(root.get("e").expect("a key").read::<String>(), Ok("NaN".to_owned()));
    for (key, path, found) in
        [("a", "a", "NaN"), ("b", "b[1]", "-Infinity"), ("c", "c", "Infinity"), ("d", "d", "Infinity")]
    {
        let at = root.get(key).expect("a key");
        let error = if key == "b" { at.read::<Vec<f32>>().map(|_| 0.0) } else { at.read::<f32>() };
        let error = error.expect_err("no number").to_string();
        assert!(error.starts_with(&format!("{path}: expected a number of at most")), "{error}");
        assert!(error.ends_with(&format!("found {found}")), "{error}");
    }
}

#[test]
fn errors_name_the_key_and_both_types() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "for what cannot be read")]
    struct Inner {
        list: Vec<usize>,
    }
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "for what cannot be read")]
    struct Outer {
        #[serde(rename = "a.b")]
        inner: Inner,
        count: Option<u32>,
    }
    for (text, expected) in [
        (r#"{"a.b": {"list": [1, 8.0]}}"#, r#"["a.b"].list[1]: expected a whole number, 0 or more, found 8.0"#),
        (r#"{"a.b": {"list": [-1]}}"#, r#"["a.b"].list[0]: expected a whole number, 0 or more, found -1"#),
        (r#"{"a.b": {"list": "48"}}"#, r#"["a.b"].list: expected a list, found the text "48""#),
        (r#"{"a.b": {"list": null}}"#, r#"["a.b"].list: expected a list, found null"#),
        (r#"{"a.b": {"lists": []}}"#, r#"["a.b"]: unknown field `lists`, expected `list`"#),
        (r#"{"a.b": {}}"#, r#"["a.b"].list: expected a value, found no such key"#),
        (r#"{"a.b": []}"#, r#"["a.b"]: expected"#),
        (r#"{"a.b": {"list": []}, "count": 4294967296}"#, "count: expected a whole number from 0 to 4294967295, found"),
        (
            r#"{"a.b": {"list": []}, "count": {}}"#,
            "count: expected a whole number from 0 to 4294967295, found an object",
        ),
        (
            r#"{"a.b": {"list": []}, "count": 1, "count": 2}"#,
            "count: expected a whole number from 0 to 4294967295, found several",
        ),
        ("[]", "expected an object, found"),
    ] {
        let tree = value(text);
        let error = from_tree::<Outer>(&tree).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let twice = value(r#"{"x": 0, "count": 3, "y": 0, "count": 3, "a.b": {"list": [], "list": []}}"#);
    assert!(from_tree::<Outer>(&twice).is_ok(), "given twice, and the same");
}

#[test]
fn text_that_is_no_json() {
    for (text, line, column, found) in [
        ("{\"a\": 1, // more\n}", 1, 10, "a comment"),
        ("{\"a\": 1,\n # more\n}", 2, 2, "a comment"),
        ("{\"a\": 1,}", 1, 9, "'}'"),
        ("[1,]", 1, 4, "']'"),
        ("{'a': 1}", 1, 2, "'\\''"),
        ("{\"a\": True}", 1, 7, "\"True\""),
        ("{\"a\": nan}", 1, 7, "\"nan\""),
        ("{\"a\": NaNs}", 1, 7, "\"NaNs\""),
        ("{\"a\": .5}", 1, 7, "'.'"),
        ("{\"a\": 01}", 1, 7, "\"01\""),
        ("{\"a\": 1.}", 1, 9, "'}'"),
        ("{\"a\": +1}", 1, 7, "'+'"),
        ("{\"a\": \"\\x\"}", 1, 9, "\"x\""),
        ("{\"a\": \"b", 1, 9, "the end of the file"),
        ("{\"a\": 1} 2", 1, 10, "\"2\""),
        ("{\"a\" 1}", 1, 6, "\"1\""),
    ] {
        let error = from_bytes(text.as_bytes()).expect_err(text);
        let JsonError::Syntax { line: l, column: c, found: f, .. } = &error else { panic!("{text}: {error}") };
        assert_eq!((*l, *c), (line, column), "{text}: {error}");
        assert!(f.starts_with(found), "{text}: {error}");
    }
    let deep = "[".repeat(100_000);
    let error = from_bytes(deep.as_bytes()).expect_err("too deep").to_string();
    assert!(error.contains("at most 128 levels"), "{error}");
    assert!(from_bytes(b"{\"a\": \"\xff\"}").expect_err("no UTF-8").to_string().contains("UTF-8"));
}
