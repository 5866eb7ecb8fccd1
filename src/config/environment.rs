//! `${VAR}` and `${VAR:default}` inside one value.

/// Longest text that a single value may expand to, in bytes.
pub(super) const MAX_EXPANDED_BYTES: usize = 256 * 1024;

/// Replaces `${VAR}` and `${VAR:default}`. A value that came in is not looked at again.
///
/// An empty variable counts as set, as in go2rtc. `${` without a name or an end stays as it is.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        // A `{` before the end is no variable either: JSON-like text passes through.
        let body = after.split_once('}').filter(|(body, _)| !body.is_empty() && !body.contains('{'));
        let Some((body, tail)) = body else {
            out.push_str("${");
            rest = after;
            continue;
        };
        let (name, default) = match body.split_once(':') {
            Some((name, default)) if !name.is_empty() => (name, Some(default)),
            _ => (body, None),
        };
        match (env(name), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the environment variable {name:?} is not set: set it, or give a default as ${{{name}:default}}"
                ));
            }
        }
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(format!(
                "the value has more than {MAX_EXPANDED_BYTES} bytes with its variables filled in"
            ));
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("cam.example.org".to_owned()),
            "EMPTY" => Some(String::new()),
            "SELF" => Some("${SELF}".to_owned()),
            "LONG" => Some("x".repeat(100_000)),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("rtsp://${HOST}/1", "rtsp://cam.example.org/1"),
            ("${HOST}${HOST}", "cam.example.orgcam.example.org"),
            ("${NONE:rtsp://a:1/b}", "rtsp://a:1/b"),
            ("${NONE:}", ""),
            ("${EMPTY:default}", ""),
            ("${SELF}", "${SELF}"),
            ("${", "${"),
            ("${}", "${}"),
            ("${a{b}", "${a{b}"),
            ("$HOST {HOST}", "$HOST {HOST}"),
            ("금${HOST}곡", "금cam.example.org곡"),
        ] {
            assert_eq!(expand(text, &env).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_unset_variable_without_default_is_named() {
        assert!(expand("a${NONE}b", &env).unwrap_err().contains("\"NONE\""));
        assert!(expand("${:x}", &env).is_err());
    }

    #[test]
    fn expansion_is_bounded() {
        assert!(expand(&"${LONG}".repeat(1000), &env).unwrap_err().contains("more than"));
    }
}
