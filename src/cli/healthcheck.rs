//! `streamgate healthcheck`: one small HTTP request, for containers that have no curl.

use super::{Failure, HealthcheckArgs};
use crate::config::ListenAddress;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use url::Url;

const DEADLINE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &HealthcheckArgs) -> Result<(), Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => default_url(std::env::var("STREAMGATE_LISTEN").ok().as_deref()),
    };
    let mut url = Url::parse(&url)
        .ok()
        .filter(|url| url.scheme() == "http" && url.has_host())
        .ok_or_else(|| Failure::misused("--url needs an address such as http://127.0.0.1:1984"))?;
    if url.path() == "/" {
        url.set_path("/healthz");
    }
    match ask(&url) {
        Ok(status) if status.contains(" 200 ") => {
            println!("ok");
            Ok(())
        }
        Ok(status) => Err(Failure::failed(format!("{url} answers {status:?}"))),
        Err(error) => Err(Failure::failed(format!("{url} does not answer: {error}"))),
    }
}

/// Where a server that was started with the same environment listens, seen from this machine.
fn default_url(listen: Option<&str>) -> String {
    let listen: ListenAddress = listen.and_then(|text| text.parse().ok()).unwrap_or_default();
    let host =
        listen.host.as_deref().filter(|host| !matches!(*host, "0.0.0.0" | "::")).unwrap_or("127.0.0.1");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("http://{host}:{}", listen.port)
}

/// The status line of the answer.
fn ask(url: &Url) -> io::Result<String> {
    let end = Instant::now() + DEADLINE;
    let left = || match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    let mut connection = None;
    for address in (host.trim_matches(['[', ']']), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => {
                connection = Some(stream);
                break;
            }
            Err(error) => failure = error,
        }
    }
    let mut stream = connection.ok_or(failure)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n", url.path())?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < 1024 {
        stream.set_read_timeout(Some(left()?))?;
        let mut chunk = [0; 256];
        match stream.read(&mut chunk)? {
            0 => break,
            read => answer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_the_environment() {
        for (listen, url) in [
            (None, "http://127.0.0.1:1984"),
            (Some(":8080"), "http://127.0.0.1:8080"),
            (Some("0.0.0.0:80"), "http://127.0.0.1:80"),
            (Some("[::]:81"), "http://127.0.0.1:81"),
            (Some("[::1]:82"), "http://[::1]:82"),
            (Some("nonsense"), "http://127.0.0.1:1984"),
        ] {
            assert_eq!(default_url(listen), url, "{listen:?}");
        }
    }
}
