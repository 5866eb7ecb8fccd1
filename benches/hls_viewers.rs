//! Many LL-HLS viewers of one stream: server CPU for each answer, beside what a bare hyper server needs for static answers
//! of the same sizes in the same run; and what ten thousand requests that wait cost.
//!
//! `cargo bench --bench hls_viewers`; `HLS_VIEWERS` (1000) and `HLS_SECONDS` (8, for each row) change the load. Both servers
//! are processes of their own, their CPU is read from /proc; the load is made here and counts for neither.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const WAITERS: usize = 10_000;
const WAITERS_EACH: usize = 100;
/// Connections of the closed loop.
const BUSY: usize = 50;
/// The last viewers of a crowd stay unanswered when a row ends: so long at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A server process, ended when dropped.
struct Server {
    child: Child,
    port: u16,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Waits for the line that says the port.
    fn start(mut command: Command, folder: Option<tempfile::TempDir>) -> Server {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it can be run");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let port = loop {
            let line = lines.next().expect("a line that says the port").expect("text");
            if let Some((_, rest)) = line.split_once("listening on http://127.0.0.1:") {
                break rest.trim_end_matches('/').parse().expect("a port");
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, port, _folder: folder }
    }

    fn streamgate() -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let program = std::env::var("STREAMGATE_BIN").unwrap_or(env!("CARGO_BIN_EXE_streamgate").to_owned());
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]).current_dir(folder.path());
        Server::start(command, Some(folder))
    }

    fn floor() -> Server {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.arg("floor");
        Server::start(command, None)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it lives")
    }

    /// CPU time so far.
    fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        Duration::from_millis([11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("ticks") * 10).sum())
    }

    fn rss_kb(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `/SIZE` is answered with so many bytes, shared, as hyper does it and nothing more.
async fn floor() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    eprintln!("listening on http://127.0.0.1:{}", listener.local_addr().expect("bound").port());
    let all = Bytes::from(vec![b'x'; 16 << 20]);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let all = all.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let size: usize = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
                let body = Full::new(all.slice(..size));
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Clone)]
enum Client {
    Http1(Arc<tokio::sync::Mutex<hyper::client::conn::http1::SendRequest<Empty<Bytes>>>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn connect(port: u16, h2: bool) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        let io = TokioIo::new(stream);
        if h2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = handshake.expect("HTTP/2");
            tokio::spawn(connection);
            Client::Http2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Client::Http1(Arc::new(tokio::sync::Mutex::new(sender)))
        }
    }

    /// The body of a GET; `None` for an answer that is no success.
    async fn get(&self, port: u16, path: &str, gzip: bool) -> Option<Bytes> {
        let authority = format!("127.0.0.1:{port}");
        let mut request = Request::get(match self {
            Client::Http1(_) => path.to_owned(),
            Client::Http2(_) => format!("http://{authority}{path}"),
        });
        if matches!(self, Client::Http1(_)) {
            request = request.header("host", authority);
        }
        // What a browser sends of what matters here.
        if gzip {
            request = request.header("accept-encoding", "gzip, deflate, br, zstd");
        }
        let request = request.body(Empty::new()).expect("a request");
        let response = match self {
            Client::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.ok()?;
                sender.send_request(request).await
            }
            Client::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await.ok()?;
                sender.send_request(request).await
            }
        };
        let response = response.ok()?;
        let success = response.status().is_success();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        success.then_some(body)
    }
}

/// Answers and server CPU of a piece of load.
#[derive(Clone, Copy)]
struct Cost {
    answers: u64,
    cpu: Duration,
    wall: Duration,
}

impl Cost {
    fn micros(&self, idle: f64) -> f64 {
        let own = self.cpu.as_secs_f64() - idle * self.wall.as_secs_f64();
        own * 1e6 / self.answers.max(1) as f64
    }
}

/// Runs viewers until the time is over: each calls `step` again and again, which says how many answers it got.
async fn load<F>(server: &Server, h2: bool, viewers: usize, time: Duration, step: F) -> Cost
where
    F: AsyncViewer,
{
    let mut clients = Vec::new();
    for _ in 0..viewers {
        clients.push(Client::connect(server.port, h2).await);
    }
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for client in clients {
        let (stop, answers, mut step) = (stop.clone(), answers.clone(), step.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let got = step.step(&client).await.expect("each request is answered with success");
                answers.fetch_add(got, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(time / 4).await;
    let (before, at, counted) = (server.cpu(), Instant::now(), answers.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let cost = Cost {
        answers: answers.load(Ordering::Relaxed) - counted,
        cpu: server.cpu() - before,
        wall: at.elapsed(),
    };
    stop.store(true, Ordering::Relaxed);
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, all).await.expect("all viewers end");
    cost
}

/// One viewer's loop body.
trait AsyncViewer: Clone + Send + 'static {
    fn step(&mut self, client: &Client) -> impl Future<Output = Option<u64>> + Send;
}

/// The same address again and again.
#[derive(Clone)]
struct Again {
    port: u16,
    path: String,
    gzip: bool,
}

impl AsyncViewer for Again {
    async fn step(&mut self, client: &Client) -> Option<u64> {
        client.get(self.port, &self.path, self.gzip).await.map(|_| 1)
    }
}

/// A low-latency player: the playlist once it names the next part, then that part.
#[derive(Clone)]
struct Live {
    port: u16,
    base: String,
    next: (u64, u64),
}

impl AsyncViewer for Live {
    async fn step(&mut self, client: &Client) -> Option<u64> {
        let (segment, part) = self.next;
        let path = format!("{}index.m3u8?_HLS_msn={segment}&_HLS_part={part}", self.base);
        let text = plain(&client.get(self.port, &path, true).await?);
        let part = last_part(&text)?;
        client.get(self.port, &format!("{}{part}", self.base), false).await?;
        self.next = hint(&text)?;
        Some(2)
    }
}

/// The same rhythm of static answers.
#[derive(Clone)]
struct Paced {
    port: u16,
    sizes: [usize; 2],
    every: Duration,
    due: tokio::time::Instant,
}

impl AsyncViewer for Paced {
    async fn step(&mut self, client: &Client) -> Option<u64> {
        self.due += self.every;
        tokio::time::sleep_until(self.due).await;
        for size in self.sizes {
            client.get(self.port, &format!("/{size}"), true).await?;
        }
        Some(2)
    }
}

fn plain(body: &[u8]) -> String {
    let mut text = String::new();
    match body {
        [0x1f, 0x8b, ..] => {
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(body), &mut text).expect("gzip");
            text
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// The last part that the playlist names.
fn last_part(text: &str) -> Option<&str> {
    text.rsplit_once("#EXT-X-PART:")?.1.split_once("URI=\"")?.1.split('"').next()
}

/// Segment and part that the preload hint names.
fn hint(text: &str) -> Option<(u64, u64)> {
    let name = text.split_once("TYPE=PART,URI=\"part")?.1.split_once(".mp4")?.0;
    let (segment, part) = name.split_once('.')?;
    Some((segment.parse().ok()?, part.parse().ok()?))
}

struct Bench {
    streamgate: Server,
    floor: Server,
    base: String,
    time: Duration,
    /// Cores that Streamgate uses without viewers.
    idle: f64,
}

impl Bench {
    async fn start(time: Duration) -> Bench {
        let (streamgate, floor) = (Server::streamgate(), Server::floor());
        let client = Client::connect(streamgate.port, false).await;
        let text = client.get(streamgate.port, "/hls/demo/index.m3u8", false).await.expect("a playlist");
        let text = String::from_utf8_lossy(&text).into_owned();
        let base =
            format!("/hls/demo/{}", text.lines().last().expect("a line").trim_end_matches("index.m3u8"));
        let mut bench = Bench { streamgate, floor, base, time, idle: 0.0 };
        let (before, at) = (bench.streamgate.cpu(), Instant::now());
        while at.elapsed() < time {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bench.playlist().await;
        }
        bench.idle = (bench.streamgate.cpu() - before).as_secs_f64() / at.elapsed().as_secs_f64();
        println!("without viewers, one segmenter running: {:.1} % of a core\n", bench.idle * 100.0);
        bench
    }

    async fn get(&self, path: &str, gzip: bool) -> Bytes {
        let client = Client::connect(self.streamgate.port, false).await;
        client.get(self.streamgate.port, path, gzip).await.expect("an answer")
    }

    async fn playlist(&self) -> String {
        plain(&self.get(&format!("{}index.m3u8", self.base), false).await)
    }

    fn row(&self, what: &str, ours: Cost, floor: Cost) {
        let (ours_us, floor_us) = (ours.micros(self.idle), floor.micros(0.0));
        println!(
            "{what:<44} {:>8} answers {ours_us:>6.1} µs   bare hyper {:>8} {floor_us:>6.1} µs   ratio {:.2}",
            ours.answers,
            floor.answers,
            ours_us / floor_us
        );
    }

    /// Answers as fast as they go.
    async fn busy(&self, h2: bool) {
        let version = if h2 { "HTTP/2" } else { "HTTP/1.1" };
        let text = self.playlist().await;
        let part = last_part(&text).expect("a part").to_owned();
        for (what, file, gzip) in [("playlist, gzip", "index.m3u8", true), ("part", part.as_str(), false)] {
            let path = format!("{}{file}", self.base);
            let size = self.get(&path, gzip).await.len();
            let again = Again { port: self.streamgate.port, path, gzip };
            let ours = load(&self.streamgate, h2, BUSY, self.time, again).await;
            let again = Again { port: self.floor.port, path: format!("/{size}"), gzip };
            let floor = load(&self.floor, h2, BUSY, self.time, again).await;
            self.row(&format!("{version}, {what} ({size} bytes)"), ours, floor);
        }
    }

    /// A crowd at the live edge: blocked playlists and new parts, in the rhythm of the parts.
    async fn crowd(&self, h2: bool, viewers: usize) {
        let version = if h2 { "HTTP/2" } else { "HTTP/1.1" };
        let text = self.playlist().await;
        let part = last_part(&text).expect("a part").to_owned();
        let sizes = [
            self.get(&format!("{}index.m3u8", self.base), true).await.len(),
            self.get(&format!("{}{part}", self.base), false).await.len(),
        ];
        let next = hint(&text).expect("a hint");
        let live = Live { port: self.streamgate.port, base: self.base.clone(), next };
        let ours = load(&self.streamgate, h2, viewers, self.time, live).await;
        let every = ours.wall.mul_f64(2.0 * viewers as f64 / ours.answers.max(1) as f64);
        let paced = Paced { port: self.floor.port, sizes, every, due: tokio::time::Instant::now() };
        let floor = load(&self.floor, h2, viewers, self.time, paced).await;
        self.row(&format!("{version}, {viewers} live viewers"), ours, floor);
    }

    /// Ten thousand requests that wait for the same segment.
    async fn waiters(&self) {
        let mut clients = Vec::new();
        for _ in 0..WAITERS / WAITERS_EACH {
            clients.push(Client::connect(self.streamgate.port, true).await);
        }
        let text = self.playlist().await;
        let before = self.streamgate.rss_kb();
        let path = format!("{}index.m3u8?_HLS_msn={}", self.base, hint(&text).expect("a hint").0 + 1);
        let (mut tasks, port) = (JoinSet::new(), self.streamgate.port);
        let begun = Instant::now();
        for client in &clients {
            for _ in 0..WAITERS_EACH {
                let (client, path) = (client.clone(), path.clone());
                tasks.spawn(async move { client.get(port, &path, true).await.map(|body| body.len()) });
            }
        }
        // What is asked behind them on each connection is answered: the server has read them all.
        for client in &clients {
            client.get(port, &format!("{}init0.mp4", self.base), false).await.expect("an answer");
        }
        let (sent, most, at) = (self.streamgate.cpu(), self.streamgate.rss_kb(), Instant::now());
        let mut answered = 0;
        while let Some(answer) = tasks.join_next().await {
            answered += usize::from(answer.expect("no panic").is_some());
        }
        let waking = self.streamgate.cpu() - sent;
        let cost = Cost { answers: answered as u64, cpu: waking, wall: at.elapsed() };
        println!(
            "\n{answered} of {WAITERS} waiters answered over {} HTTP/2 connections: {:.1} kB each, {:.1} µs for each wake-up and answer ({:.1} s in all)",
            clients.len(),
            most.saturating_sub(before) as f64 / WAITERS as f64,
            cost.micros(self.idle),
            begun.elapsed().as_secs_f64(),
        );
    }
}

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        return floor().await;
    }
    let time = Duration::from_secs(number("HLS_SECONDS", 8));
    let viewers = usize::try_from(number("HLS_VIEWERS", 1000)).expect("a number");
    let bench = Bench::start(time).await;
    for h2 in [false, true] {
        bench.busy(h2).await;
        bench.crowd(h2, viewers).await;
    }
    bench.waiters().await;
}
