//! HTTP/1.1 and HTTP/2 on one connection, with a deadline for everything a slow client could hold up.

use super::auth;
use super::listener::Limits;
use super::stream::WriteDeadline;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tower_http::timeout::RequestBodyDeadline;

/// What a handler may ask of the connection: a request extension, beside axum's `ConnectInfo<SocketAddr>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The other end. IPv4 is IPv4 here, also on a dual-stack socket.
    pub peer: SocketAddr,
    /// This end: the address that the client used.
    pub local: SocketAddr,
    /// It is encrypted.
    pub tls: bool,
}

/// HTTP/1 buffer, in bytes: bounds the request's header.
const H1_BUFFER: usize = 32 * 1024;
/// Header fields of an HTTP/1 request.
const H1_MAX_HEADERS: usize = 100;
/// All header fields of an HTTP/2 request, in bytes (RFC 9113, 6.5.2).
const H2_MAX_HEADER_LIST: u32 = 32 * 1024;
/// Requests at the same time on one HTTP/2 connection.
const H2_MAX_STREAMS: u32 = 128;
/// How often a quiet HTTP/2 client is pinged, and how long it has to answer.
const H2_PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What a connection needs of its server.
#[derive(Clone)]
pub(super) struct Http {
    pub(super) router: auth::Protected,
    pub(super) limits: Limits,
    /// Requests of HTTP/2 connections: tasks of their own.
    pub(super) tasks: TaskTracker,
    /// Finish what was begun, begin nothing new.
    pub(super) shutdown: CancellationToken,
    /// Stop at once.
    pub(super) kill: CancellationToken,
}

impl Http {
    /// Serves one connection until it ends.
    pub(super) async fn serve<S>(&self, stream: S, connection: Connection, h2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = RequestBodyDeadline::new(self.router.clone(), self.limits.request_body);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(connection);
            request.extensions_mut().insert(ConnectInfo(connection.peer));
            router.clone().oneshot(request)
        });
        let mut builder = Builder::new(Spawn { tasks: self.tasks.clone(), kill: self.kill.clone() });
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.request_header)
            .max_buf_size(H1_BUFFER)
            .max_headers(H1_MAX_HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_MAX_STREAMS)
            .max_header_list_size(H2_MAX_HEADER_LIST)
            .keep_alive_interval(H2_PING.0)
            .keep_alive_timeout(H2_PING.1);
        // The protocol is known: the builder's own look at it would have no deadline.
        let builder = if h2 { builder.http2_only() } else { builder.http1_only() };
        let stream = TokioIo::new(WriteDeadline::new(stream, self.limits.write));
        let http = builder.serve_connection_with_upgrades(stream, service);
        tokio::pin!(http);
        let result = tokio::select! {
            result = http.as_mut() => result,
            () = self.shutdown.cancelled() => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(peer = %connection.peer, error, "HTTP connection failed");
        }
    }
}

/// Runs hyper's tasks where they are counted and can be stopped.
#[derive(Clone)]
struct Spawn {
    tasks: TaskTracker,
    kill: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = kill.cancelled() => {}
            }
        });
    }
}
