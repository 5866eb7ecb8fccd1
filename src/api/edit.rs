//! What a client says of a stream: the JSON form of `PUT` and `PATCH`, and the checks that both forms share.

use super::error::ApiError;
use crate::config::{StreamConfig, check_source, check_stream_name, parse_duration};
use serde_json::Value;
use std::time::Duration;

const KEYS: &str = "sources, on_demand, linger, audio";

/// What a body asks for. What is not there was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, utoipa::ToSchema)]
pub struct Edit {
    /// Source URLs, best first; a single one may be a text.
    #[schema(value_type = OneOrMore, required = false)]
    sources: Option<Vec<String>>,
    /// `false` keeps the source running without viewers. Default `true`.
    #[schema(nullable = false)]
    on_demand: Option<bool>,
    /// How long an on-demand source runs on after the last viewer, e.g. `10s`.
    #[schema(value_type = String, required = false, example = "10s")]
    linger: Option<Duration>,
    /// `false` leaves the sound out. Default `true`.
    #[schema(nullable = false)]
    audio: Option<bool>,
}

impl Edit {
    /// Reads `{"sources": ["rtsp://…"], "on_demand": true, "linger": "10s", "audio": true}`; every key may be missing.
    /// `sources` may be one text. Never quotes a source.
    ///
    /// # Errors
    /// 400 for no JSON object, an unknown key or a value of the wrong form.
    pub fn parse(body: &[u8]) -> Result<Edit, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            ApiError::bad_request("the body is no JSON")
                .detail(place)
                .hint(r#"e.g. {"sources": ["rtsp://192.168.1.10/stream1"]}"#)
        })?;
        let Value::Object(object) = value else {
            return Err(
                ApiError::bad_request("the body is no JSON object").hint(format!("it may have {KEYS}"))
            );
        };
        let mut edit = Edit::default();
        for (key, value) in object {
            match key.as_str() {
                "sources" => edit.sources = Some(sources(value)?),
                "on_demand" => edit.on_demand = Some(flag(&key, &value)?),
                "audio" => edit.audio = Some(flag(&key, &value)?),
                "linger" => edit.linger = Some(duration(&key, &value)?),
                _ => {
                    return Err(ApiError::bad_request(format!("unknown key {key:?}"))
                        .hint(format!("the keys are {KEYS}")));
                }
            }
        }
        Ok(edit)
    }

    /// Sources only, from the query form.
    ///
    /// # Errors
    /// 400 for none, too many, or one that can't be a URL.
    pub fn sources<'a>(urls: impl Iterator<Item = &'a str>) -> Result<Edit, ApiError> {
        let sources = check_sources(urls.map(|url| url.trim().to_owned()).collect())?;
        Ok(Edit { sources: Some(sources), ..Edit::default() })
    }

    /// A stream of what was said, and defaults for the rest.
    ///
    /// # Errors
    /// 400 if there is no source.
    pub fn create(self) -> Result<StreamConfig, ApiError> {
        if self.sources.is_none() {
            return Err(ApiError::bad_request("\"sources\" is missing")
                .hint(r#"e.g. {"sources": ["rtsp://192.168.1.10/stream1"]}"#));
        }
        Ok(self.merge(StreamConfig::new(Vec::new())))
    }

    /// An existing stream with what was said changed.
    pub fn merge(self, old: StreamConfig) -> StreamConfig {
        StreamConfig {
            sources: self.sources.unwrap_or(old.sources),
            on_demand: self.on_demand.unwrap_or(old.on_demand),
            linger: self.linger.unwrap_or(old.linger),
            audio: self.audio.unwrap_or(old.audio),
        }
    }
}

/// A text, or a list of up to 16.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "described only")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// 400 for a name that no stream may have.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    check_stream_name(name).map_err(|why| ApiError::bad_request("bad stream name").detail(why))
}

fn check_sources(sources: Vec<String>) -> Result<Vec<String>, ApiError> {
    if sources.is_empty() {
        return Err(ApiError::bad_request("a stream needs at least one source")
            .hint("e.g. src=rtsp://192.168.1.10/stream1"));
    }
    if sources.len() > StreamConfig::MAX_SOURCES {
        return Err(ApiError::bad_request("too many sources").detail(format!(
            "at most {}, these are {}",
            StreamConfig::MAX_SOURCES,
            sources.len()
        )));
    }
    for source in &sources {
        check_source(source).map_err(|why| ApiError::bad_request("bad source").detail(why))?;
    }
    Ok(sources)
}

fn wrong(key: &str, expected: &str) -> ApiError {
    ApiError::bad_request(format!("{key:?} must be {expected}"))
}

fn sources(value: Value) -> Result<Vec<String>, ApiError> {
    let expected = || wrong("sources", "a URL or a list of URLs");
    let texts = match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                _ => Err(expected()),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(expected()),
    };
    check_sources(texts.into_iter().map(|text| text.trim().to_owned()).collect())
}

fn flag(key: &str, value: &Value) -> Result<bool, ApiError> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false"))
}

fn duration(key: &str, value: &Value) -> Result<Duration, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong(key, "a duration such as \"10s\""))?;
    parse_duration(text).map_err(|why| wrong(key, "a duration such as \"10s\"").detail(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_arrives_and_defaults_fill_the_rest() {
        let edit = Edit::parse(
            br#"{"sources": [" rtsp://a ", "rtsp://b"], "on_demand": false, "linger": "5s", "audio": false}"#,
        );
        let expected = StreamConfig {
            sources: vec!["rtsp://a".into(), "rtsp://b".into()],
            on_demand: false,
            linger: Duration::from_secs(5),
            audio: false,
        };
        assert_eq!(edit.unwrap().create().unwrap(), expected);
        let one = Edit::parse(br#"{"sources": "rtsp://a"}"#).unwrap().create().unwrap();
        assert_eq!(one, StreamConfig::new(vec!["rtsp://a".into()]));
        let merged = Edit::parse(br#"{"audio": true}"#).unwrap().merge(expected.clone());
        assert_eq!(merged, StreamConfig { audio: true, ..expected });
    }

    #[test]
    fn bad_bodies_say_what_is_wrong() {
        for (body, part) in [
            ("", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"source": "rtsp://u:hunter2@a"}"#, "unknown key \\\"source\\\""),
            (r#"{"sources": []}"#, "at least one source"),
            (r#"{"sources": [1]}"#, "a URL or a list"),
            (r#"{"sources": ["rtsp://u:hunter2@a\n"], "x": 1}"#, "unknown key"),
            (r#"{"sources": ["rtsp://u:hunter2@a\nb"]}"#, "control characters"),
            (r#"{"on_demand": "yes"}"#, "true or false"),
            (r#"{"linger": 10}"#, "such as"),
            (r#"{"linger": "10"}"#, "such as"),
        ] {
            let error = format!("{:?}", Edit::parse(body.as_bytes()).unwrap_err());
            assert!(error.contains(part), "{body}: {error}");
            assert!(!error.contains("hunter2"), "{body}: {error}");
        }
        assert!(Edit::parse(b"{}").unwrap().create().is_err());
        let many = (0..=StreamConfig::MAX_SOURCES).map(|_| "rtsp://a");
        assert!(Edit::sources(many).is_err());
        assert!(Edit::sources(std::iter::empty()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_body_gives_an_edit_or_an_error(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Edit::parse(&body);
        }
    }
}
