//! What requests bring: query parameters, names in paths, bodies up to a size.

use super::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Query parameters at most: more is no honest request.
const MAX_PARAMETERS: usize = 64;
/// How long the rest of a refused body is read and thrown away. A client that is still sending would otherwise
/// find its connection reset before it has read the answer.
const DISCARD_FOR: Duration = Duration::from_secs(2);
const DISCARD_BYTES: usize = 64 * 1024 * 1024;

/// The query of a URL, decoded as a form: `+` is a space.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`.
    ///
    /// # Errors
    /// 400 for what is no UTF-8 after decoding, or for more parameters than anybody needs.
    pub fn parse(query: &str) -> Result<Query, ApiError> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8().map(|text| text.into_owned());
            decoded.map_err(|_| {
                ApiError::bad_request("query is no UTF-8")
                    .hint("percent-encode the UTF-8 bytes of names, e.g. %EA%B8%88 for 금")
            })
        };
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() >= MAX_PARAMETERS {
                return Err(ApiError::bad_request("too many query parameters")
                    .detail(format!("at most {MAX_PARAMETERS} are taken")));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(key)?, decode(value)?));
        }
        Ok(Query(pairs))
    }

    /// The first value of a parameter, if it is there and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next().filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All parameters in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether a parameter is there, with or without value.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// The value of a parameter that must be there, once.
    ///
    /// # Errors
    /// 400 if it is missing, or there twice: who reads the request on its way may take the other one for it. `example`
    /// shows the whole request.
    pub fn require(&self, key: &str, example: &str) -> Result<&str, ApiError> {
        if self.all(key).count() > 1 {
            return Err(ApiError::bad_request(format!(
                "the query parameter {key:?} is there more than once"
            ))
            .hint(format!("e.g. {example}")));
        }
        self.get(key).ok_or_else(|| {
            ApiError::bad_request(format!("the query parameter {key:?} is missing"))
                .hint(format!("e.g. {example}"))
        })
    }

    /// A parameter that is none of `known`.
    pub fn unknown<'a>(&'a self, known: &[&str]) -> Option<&'a str> {
        self.0.iter().map(|(key, _)| key.as_str()).find(|key| !known.contains(key))
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Query, ApiError> {
        Query::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The one name in a path, decoded.
#[derive(Debug)]
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Name, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| {
            ApiError::bad_request("the name in the path is no UTF-8")
                .hint("percent-encode the UTF-8 bytes of names, e.g. %EA%B8%88 for 금")
        })?;
        Ok(Name(name))
    }
}

/// A piece of a path, decoded.
///
/// # Errors
/// 400 for what is no UTF-8.
pub fn decode_path(piece: &str) -> Result<Cow<'_, str>, ApiError> {
    percent_decode_str(piece).decode_utf8().map_err(|_| {
        ApiError::bad_request("the name in the path is no UTF-8")
            .hint("percent-encode the UTF-8 bytes of names, e.g. %EA%B8%88 for 금")
    })
}

/// The media type of `Content-Type`, in lower case and without parameters; empty if there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A header's text; empty if there is none or it is no text.
pub fn text_header<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads request bodies, and bounds what all of them together may hold in memory: on one HTTP/2 connection a stranger can
/// begin a hundred of them and finish none.
#[derive(Debug)]
pub struct Bodies {
    /// Of one body, in bytes.
    limit: usize,
    /// Bytes that are left for all.
    left: Arc<Semaphore>,
}

/// A body that was read. Its bytes count as held until it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// The same as text.
#[derive(Debug)]
pub struct HeldText {
    text: String,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for HeldText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Bodies {
    /// `limit` for one body and `total` for all at the same time, in bytes.
    pub fn new(limit: usize, total: usize) -> Bodies {
        Bodies { limit, left: Arc::new(Semaphore::new(total)) }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// 413 as soon as it is known to be too large; 503 if all bodies together are; 400 if it breaks off.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held, ApiError> {
        let announced = text_header(headers, &header::CONTENT_LENGTH).parse::<u64>().unwrap_or(0);
        let mut chunks = body.into_data_stream();
        let mut held = Held { bytes: Vec::new(), _permit: None };
        if announced > self.limit as u64 {
            discard(chunks);
            return Err(self.too_large());
        }
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk
                .map_err(|error| ApiError::bad_request("the body broke off").detail(error.to_string()))?;
            if held.bytes.len() + chunk.len() > self.limit {
                discard(chunks);
                return Err(self.too_large());
            }
            let permit = u32::try_from(chunk.len())
                .ok()
                .and_then(|bytes| self.left.clone().try_acquire_many_owned(bytes).ok())
                .ok_or_else(too_many)?;
            match &mut held._permit {
                Some(known) => known.merge(permit),
                none => *none = Some(permit),
            }
            held.bytes.extend_from_slice(&chunk);
        }
        Ok(held)
    }

    /// Reads a body that must be UTF-8 text.
    ///
    /// # Errors
    /// As [`Self::read`], and 400 for other bytes.
    pub async fn read_text(&self, headers: &HeaderMap, body: Body) -> Result<HeldText, ApiError> {
        let held = self.read(headers, body).await?;
        let text = String::from_utf8(held.bytes)
            .map_err(|_| ApiError::bad_request("the body is no UTF-8 text").hint("send it as UTF-8"))?;
        Ok(HeldText { text, _permit: held._permit })
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body too large")
            .detail(format!("at most {} KiB are taken here", self.limit / 1024))
    }
}

fn too_many() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at the same time")
        .detail("the bodies of all requests together have reached their limit")
        .hint("try again in some seconds")
        .header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// Throws the rest of a body away for a moment, while the answer is on its way. Ends with the connection.
fn discard(mut chunks: axum::body::BodyDataStream) {
    tokio::spawn(tokio::time::timeout(DISCARD_FOR, async move {
        let mut total = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            total += chunk.len();
            if total > DISCARD_BYTES {
                return;
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;

    #[test]
    fn queries_are_decoded_as_forms() {
        let query = Query::parse("src=%EA%B8%88%EA%B3%A1IC&src=a+b%2Bc&video&=x&&audio=").unwrap();
        assert_eq!(query.all("src").collect::<Vec<_>>(), ["금곡IC", "a b+c"]);
        assert_eq!(query.get("src"), Some("금곡IC"));
        assert!(query.has("video") && query.has("audio") && !query.has("x"));
        assert_eq!(query.get("audio"), None);
        assert_eq!(query.unknown(&["src", "video", ""]), Some("audio"));
        for missing_or_twice in ["name", "src"] {
            let error = query.require(missing_or_twice, "GET /").unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn queries_that_are_no_utf8_or_endless_are_refused() {
        assert!(Query::parse("src=%FF").is_err());
        assert!(Query::parse(&"a&".repeat(MAX_PARAMETERS)).is_ok());
        assert!(Query::parse(&"a&".repeat(MAX_PARAMETERS + 1)).is_err());
        assert_eq!(Query::parse("a=%zz&b=%").unwrap().get("a"), Some("%zz"));
    }

    #[tokio::test]
    async fn bodies_end_at_the_limit() {
        let (none, bodies) = (HeaderMap::new(), Bodies::new(5, 100));
        assert_eq!(&*bodies.read(&none, Body::from("12345")).await.unwrap(), b"12345");
        let error = bodies.read(&none, Body::from("123456")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let mut announced = HeaderMap::new();
        announced.insert(header::CONTENT_LENGTH, "20000000".parse().unwrap());
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = bodies.read(&announced, never).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(bodies.read_text(&none, Body::from(vec![0xff])).await.is_err());
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_limit_and_give_back_what_they_held() {
        let (none, bodies) = (HeaderMap::new(), Bodies::new(5, 12));
        let first = bodies.read(&none, Body::from("12345")).await.unwrap();
        let second = bodies.read_text(&none, Body::from("12345")).await.unwrap();
        let error = bodies.read(&none, Body::from("123")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(&*bodies.read(&none, Body::from("12")).await.unwrap(), b"12");
        drop((first, second));
        assert_eq!(bodies.left.available_permits(), 12);
    }

    proptest::proptest! {
        #[test]
        fn any_query_gives_parameters_or_an_error(text in ".{0,200}") {
            let _ = Query::parse(&text);
        }
    }
}
