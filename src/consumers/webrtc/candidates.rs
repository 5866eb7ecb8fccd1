//! Where viewers may reach us: the machine's own addresses, configured ones, and the one a STUN server sees.

use super::stun::{self, TransactionId};
use super::{DatagramSocket, Options};
use crate::config::{Filters, Webrtc};
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// The machine's addresses are looked at again after this time.
const INTERFACES_TTL: Duration = Duration::from_secs(10);
/// Names and the public address are found out again after this time.
const REFRESH: Duration = Duration::from_secs(180);
/// …and earlier when something failed.
const RETRY: Duration = Duration::from_secs(20);
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses at most in an answer.
const MAX_ADDRESSES: usize = 24;

/// A configured candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Configured {
    /// An address, with a port or ours.
    Address(IpAddr, Option<u16>),
    /// A host name, resolved now and then.
    Host(String, Option<u16>),
    /// What a STUN server sees, with a port or the one it sees.
    Stun(Option<u16>),
}

/// All candidates that viewers are told.
pub struct Candidates {
    configured: Vec<Configured>,
    filters: Filters,
    bound_to: Option<IpAddr>,
    udp_port: u16,
    tcp_port: u16,
    stun_servers: Vec<String>,
    /// What configured names and STUN resolved to.
    resolved: Mutex<Vec<SocketAddr>>,
    interfaces: Mutex<Option<(Instant, Vec<IpAddr>)>>,
    question: Mutex<Option<Question>>,
    answered: Notify,
}

/// A question to a STUN server and its answer.
struct Question {
    transaction: TransactionId,
    answer: Option<SocketAddr>,
}

impl Candidates {
    /// Reads the configuration. The error names the candidate that can't be used.
    pub fn new(options: &Options, udp_port: u16, tcp_port: u16) -> Result<Candidates, String> {
        let Webrtc { candidates, filters, .. } = &options.config;
        Ok(Candidates {
            configured: candidates.iter().map(|text| parse(text)).collect::<Result<_, _>>()?,
            filters: filters.clone(),
            bound_to: options.bound_to.filter(|ip| !ip.is_unspecified()),
            udp_port,
            tcp_port,
            stun_servers: options.stun_servers.clone(),
            resolved: Mutex::new(Vec::new()),
            interfaces: Mutex::new(None),
            question: Mutex::new(None),
            answered: Notify::new(),
        })
    }

    /// `candidate:…` lines (RFC 8839 §5.1, RFC 6544 §4.5) for a client: host candidates for UDP, then passive TCP.
    pub fn lines(&self, client: IpAddr) -> Vec<String> {
        let addresses = self.addresses(client);
        let allowed = |transport: &str, ip: IpAddr| {
            let network = format!("{transport}{}", if ip.is_ipv4() { 4 } else { 6 });
            self.filters.networks.as_ref().is_none_or(|networks| networks.contains(&network))
        };
        let mut lines = Vec::new();
        for (index, (address, own)) in addresses.iter().enumerate() {
            // RFC 8445 §5.1.2.1; UDP before TCP, as browsers weigh it too.
            let priority = |kind: u32| (kind << 24) | ((65_535 - index as u32) << 8) | 255;
            let (ip, port) = (address.ip(), address.port());
            if allowed("udp", ip) {
                lines.push(format!(
                    "candidate:{} 1 udp {} {ip} {port} typ host",
                    2 * index + 1,
                    priority(126)
                ));
            }
            if allowed("tcp", ip) {
                let port = if *own { self.tcp_port } else { port };
                lines.push(format!(
                    "candidate:{} 1 tcp {} {ip} {port} typ host tcptype passive",
                    2 * index + 2,
                    priority(90)
                ));
            }
        }
        lines
    }

    /// Addresses, best first, and whether each is the machine's own.
    fn addresses(&self, client: IpAddr) -> Vec<(SocketAddr, bool)> {
        let mut all: Vec<(SocketAddr, bool)> = Vec::new();
        let mut own: Vec<IpAddr> = match self.bound_to {
            Some(ip) => vec![ip],
            None => self.own_addresses(client.to_canonical().is_loopback()),
        };
        // The family that the client came by works for it.
        own.sort_by_key(|ip| ip.is_ipv4() != client.to_canonical().is_ipv4());
        all.extend(own.into_iter().map(|ip| (SocketAddr::new(ip, self.udp_port), true)));
        let configured = self.configured.iter().filter_map(|configured| match configured {
            Configured::Address(ip, port) => Some(SocketAddr::new(*ip, port.unwrap_or(self.udp_port))),
            _ => None,
        });
        for address in configured.chain(self.resolved.lock().iter().copied()) {
            if !all.iter().any(|(known, _)| *known == address) {
                all.push((address, false));
            }
        }
        all.truncate(MAX_ADDRESSES);
        all
    }

    fn own_addresses(&self, client_is_local: bool) -> Vec<IpAddr> {
        let all = self.interface_addresses();
        let loopback = |ip: &IpAddr| ip.is_loopback();
        let outward = all.iter().filter(|ip| !loopback(ip));
        let offer_loopback =
            self.filters.loopback.unwrap_or(client_is_local || outward.clone().next().is_none());
        // For a client on this machine nothing is nearer.
        all.iter().filter(|ip| loopback(ip) && offer_loopback).chain(outward).copied().collect()
    }

    fn interface_addresses(&self) -> Vec<IpAddr> {
        let mut cached = self.interfaces.lock();
        if let Some((when, addresses)) = &*cached
            && when.elapsed() < INTERFACES_TTL
        {
            return addresses.clone();
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!("the network interfaces can't be listed: {error}");
            Vec::new()
        });
        let Filters { candidates, interfaces: names, ips, .. } = &self.filters;
        let addresses: Vec<IpAddr> = interfaces
            .iter()
            .filter(|interface| !interface.is_link_local())
            .filter(|interface| names.as_ref().is_none_or(|names| names.contains(&interface.name)))
            .map(|interface| interface.ip())
            .filter(|ip| ips.as_ref().is_none_or(|ips| ips.contains(ip)))
            .filter(|ip| candidates.as_ref().is_none_or(|list| list.contains(&ip.to_string())))
            .collect();
        *cached = Some((Instant::now(), addresses.clone()));
        addresses
    }

    /// Takes a STUN server's answer from the port.
    pub fn on_stun_answer(&self, transaction: TransactionId, address: SocketAddr) {
        let mut question = self.question.lock();
        if let Some(asked) = question.as_mut().filter(|asked| asked.transaction == transaction) {
            asked.answer = Some(address);
            self.answered.notify_one();
        }
    }

    /// Whether [`Self::keep_fresh`] has anything to do.
    pub fn need_refresh(&self) -> bool {
        self.configured.iter().any(|configured| !matches!(configured, Configured::Address(..)))
    }

    /// Resolves names and asks STUN servers, now and then. Failures are logged, never fatal.
    pub async fn keep_fresh(self: Arc<Self>, socket: Arc<dyn DatagramSocket>) {
        loop {
            let (mut found, mut complete) = (Vec::new(), true);
            for configured in &self.configured {
                let outcome = match configured {
                    Configured::Address(..) => Ok(Vec::new()),
                    Configured::Host(host, port) => resolve(host, port.unwrap_or(self.udp_port)).await,
                    Configured::Stun(port) => self.public_address(*port, &*socket).await,
                };
                match outcome {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => {
                        complete = false;
                        tracing::warn!("candidate not found out, trying again in {RETRY:?}: {error}");
                    }
                }
            }
            if complete || !found.is_empty() {
                let mut resolved = self.resolved.lock();
                if *resolved != found {
                    tracing::info!("candidates found out: {found:?}");
                    *resolved = found;
                }
            }
            sleep(if complete { REFRESH } else { RETRY }).await;
        }
    }

    async fn public_address(
        &self,
        port: Option<u16>,
        socket: &dyn DatagramSocket,
    ) -> Result<Vec<SocketAddr>, String> {
        let mut reason = "no STUN server is configured".to_owned();
        for server in &self.stun_servers {
            match self.ask(server, socket).await {
                Ok(mut address) => {
                    address.set_port(port.unwrap_or(address.port()));
                    return Ok(vec![address]);
                }
                Err(error) => reason = format!("STUN server {server}: {error}"),
            }
        }
        Err(reason)
    }

    /// Asks one server, three times at most, through the port itself: it is the port's mapping that counts.
    async fn ask(&self, server: &str, socket: &dyn DatagramSocket) -> Result<SocketAddr, String> {
        let (host, port) = host_and_port(server)?;
        let addresses = resolve(&host, port.unwrap_or(3478)).await?;
        let address =
            addresses.iter().find(|a| a.is_ipv4()).or(addresses.first()).ok_or("it has no address")?;
        let transaction: TransactionId = rand::random();
        *self.question.lock() = Some(Question { transaction, answer: None });
        let request = stun::binding_request(transaction);
        for patience in [500, 1000, 2000] {
            socket
                .try_send(*address, None, &request, request.len())
                .map_err(|error| format!("can't be asked: {error}"))?;
            let _ = timeout(Duration::from_millis(patience), self.answered.notified()).await;
            if let Some(mapped) = self.question.lock().as_ref().and_then(|question| question.answer) {
                return Ok(mapped);
            }
        }
        Err(format!("no answer from {address}"))
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(LOOKUP_DEADLINE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.take(4).collect()),
        Ok(Err(error)) => Err(format!("{host} can't be resolved: {error}")),
        Err(_) => Err(format!("{host} can't be resolved: no answer in {LOOKUP_DEADLINE:?}")),
    }
}

/// Reads `1.2.3.4:1984`, `[2001:db8::1]:1984`, `home.example.org:1984`, `stun:1984`, each also without the port.
fn parse(text: &str) -> Result<Configured, String> {
    let text = text.trim();
    if text == "stun" {
        return Ok(Configured::Stun(None));
    }
    if let Some(port) = text.strip_prefix("stun:") {
        let port = port.parse().map_err(|_| format!("webrtc.candidates: {text:?}: expected stun:PORT"))?;
        return Ok(Configured::Stun(Some(port)));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Configured::Address(ip, None));
    }
    let (host, port) = host_and_port(text).map_err(|error| format!("webrtc.candidates: {error}"))?;
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) => Configured::Address(ip, port),
        Err(_) => Configured::Host(host, port),
    })
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let bad = || format!("{text:?} is no address: expected e.g. 1.2.3.4:1984 or home.example.org:1984");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), Some(address.port())));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| bad())?)),
        None => (text, None),
    };
    let fits = (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if fits { Ok((host.to_owned(), port)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn with(config: Webrtc) -> Candidates {
        Candidates::new(&Options { config, ..Options::default() }, 1984, 1985).unwrap()
    }

    fn only_configured(candidates: &[&str]) -> Webrtc {
        let filters = Filters { candidates: Some(Vec::new()), ..Filters::default() };
        Webrtc { candidates: candidates.iter().map(|c| (*c).into()).collect(), filters, ..Webrtc::default() }
    }

    #[test]
    fn configured_addresses_are_offered_for_udp_and_tcp() {
        let lines = with(only_configured(&["192.0.2.1:8555", "[2001:db8::1]:9", "192.0.2.3"])).lines(REMOTE);
        assert_eq!(lines[0], "candidate:1 1 udp 2130706431 192.0.2.1 8555 typ host");
        assert_eq!(lines[1], "candidate:2 1 tcp 1526726655 192.0.2.1 8555 typ host tcptype passive");
        assert!(lines[2].contains(" 2001:db8::1 9 typ host"), "{lines:?}");
        assert!(lines[4].contains(" 192.0.2.3 1984 "), "{lines:?}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn own_addresses_have_the_ports_we_listen_on() {
        let filters = Filters { loopback: Some(true), ips: Some(vec![LOCAL]), ..Filters::default() };
        let lines = with(Webrtc { filters, ..Webrtc::default() }).lines(REMOTE);
        assert!(lines[0].ends_with(" 127.0.0.1 1984 typ host"), "{lines:?}");
        assert!(lines[1].ends_with(" 127.0.0.1 1985 typ host tcptype passive"), "{lines:?}");
    }

    #[test]
    fn loopback_is_for_clients_on_this_machine() {
        let candidates = with(Webrtc::default());
        let has_loopback = |client| candidates.lines(client).iter().any(|line| line.contains(" 127.0.0.1 "));
        assert!(has_loopback(LOCAL));
        let outward = candidates.interface_addresses().iter().any(|ip| !ip.is_loopback());
        assert_eq!(has_loopback(REMOTE), !outward);
    }

    #[test]
    fn filters_leave_out_networks_and_interfaces() {
        let mut config = only_configured(&["192.0.2.1:8555", "[2001:db8::1]:9"]);
        config.filters.networks = Some(vec!["udp4".into()]);
        assert_eq!(with(config).lines(REMOTE), ["candidate:1 1 udp 2130706431 192.0.2.1 8555 typ host"]);
        let filters = Filters { interfaces: Some(vec!["none0".into()]), ..Filters::default() };
        assert!(with(Webrtc { filters, ..Webrtc::default() }).lines(LOCAL).is_empty());
    }

    #[test]
    fn a_port_bound_to_one_address_offers_only_that() {
        let options = Options { bound_to: Some(LOCAL), ..Options::default() };
        let lines = Candidates::new(&options, 1, 1).unwrap().lines(REMOTE);
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in ["", "stun:x", "stun:99999", "host:port", "a b", "1.2.3.4:x", "[::1", "ho/st:1", ":1984"]
        {
            let options = Options { config: only_configured(&[text]), ..Options::default() };
            let error = Candidates::new(&options, 1, 1).err().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert!(error.contains("webrtc.candidates"), "{error}");
        }
    }

    /// A STUN server that sees us at 203.0.113.9:7777, and answers only the second question.
    struct Server(Mutex<Vec<TransactionId>>, std::sync::OnceLock<Arc<Candidates>>);

    impl DatagramSocket for Server {
        fn try_send(&self, _: SocketAddr, _: Option<IpAddr>, contents: &[u8], _: usize) -> io::Result<()> {
            let mut asked = self.0.lock();
            let transaction: TransactionId = contents[8..20].try_into().unwrap();
            asked.push(transaction);
            if asked.len() >= 2 {
                let candidates = self.1.get().unwrap();
                candidates.on_stun_answer([0; 12], "192.0.2.66:6".parse().unwrap());
                candidates.on_stun_answer(transaction, "203.0.113.9:7777".parse().unwrap());
            }
            Ok(())
        }
        fn max_segments(&self) -> usize {
            1
        }
        fn local_port(&self) -> u16 {
            1984
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_public_address_is_found_out_through_the_port() {
        let options = Options {
            config: only_configured(&["stun:1984"]),
            stun_servers: vec!["192.0.2.53:3478".into()],
            ..Options::default()
        };
        let candidates = Arc::new(Candidates::new(&options, 1984, 1984).unwrap());
        assert!(candidates.need_refresh() && candidates.lines(REMOTE).is_empty());
        let server = Arc::new(Server(Mutex::default(), std::sync::OnceLock::from(candidates.clone())));
        let task = tokio::spawn(candidates.clone().keep_fresh(server.clone()));
        for _ in 0..100 {
            sleep(Duration::from_millis(100)).await;
        }
        task.abort();
        assert!(candidates.lines(REMOTE)[0].contains(" 203.0.113.9 1984 "), "{:?}", candidates.lines(REMOTE));
        assert_eq!(server.0.lock().len(), 2, "asked again after no answer, then no more");
    }
}
