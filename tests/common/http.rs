//! A small HTTP client: any method, any body, the answer read to its end.

use std::sync::LazyLock;
use std::time::Duration;

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // No pool: each tokio test has its own runtime, and a pooled connection dies with the one that made it.
    reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("an HTTP client")
});

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, not JSON ({error}): {}", self.status, self.text()))
    }
}

/// Sends a request with any headers and body.
pub async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = CLIENT.request(method, url).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.unwrap_or_else(|error| panic!("{url}: {error:?}")).to_vec();
    Reply { status, headers, body }
}

pub async fn get(url: &str) -> Reply {
    request("GET", url, &[], "").await
}

/// The JSON of a GET that must succeed.
pub async fn get_json(url: &str) -> serde_json::Value {
    let reply = get(url).await;
    assert_eq!(reply.status, 200, "GET {url}: {}", reply.text());
    reply.json()
}

pub async fn delete(url: &str) -> Reply {
    request("DELETE", url, &[], "").await
}

pub async fn options(url: &str) -> Reply {
    request("OPTIONS", url, &[], "").await
}

pub async fn post(url: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    request("POST", url, &[("content-type", content_type)], body).await
}

pub async fn put(url: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    request("PUT", url, &[("content-type", content_type)], body).await
}

pub async fn patch(url: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    request("PATCH", url, &[("content-type", content_type)], body).await
}
