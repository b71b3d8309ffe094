//! One line of comma-separated fields, as `--mount` takes: a field in double quotes may hold commas (RFC 4180).

/// Splits a line into fields; None when a quote is left open or stands inside a bare field.
#[must_use]
pub fn fields(line: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (bare, after) = rest.split_at(end);
            if bare.contains('"') {
                return None;
            }
            (bare.to_owned(), after)
        };
        all.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(all),
            None => return None,
        }
    }
}

/// The text up to the closing quote, `""` meaning one quote, and what follows.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn quotes_protect_commas_and_quotes() {
        assert_eq!(fields("a=1,b").unwrap(), ["a=1", "b"]);
        assert_eq!(fields(r#""src=/a,b",ro"#).unwrap(), ["src=/a,b", "ro"]);
        assert_eq!(fields(r#""a""b""#).unwrap(), [r#"a"b"#]);
        assert_eq!(fields("").unwrap(), [""]);
        for bad in [r#""a"#, r#""a"b"#, r#"a"b""#] {
            assert!(fields(bad).is_none(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_comes_back(wanted in proptest::collection::vec("[a-z,\"= ]{0,6}", 1..5)) {
            let line: Vec<String> = wanted.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            proptest::prop_assert_eq!(fields(&line.join(",")).unwrap(), wanted);
        }
    }
}
