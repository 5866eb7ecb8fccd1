//! The least that sending can cost: AES-128-GCM over the same packets, and one system call for each run of them.

use super::process::thread_cpu;
use quinn_udp::{Transmit, UdpSocketState};
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use str0m::crypto::{AeadAes128GcmCipher, from_feature_flags};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// How long it is measured.
const LENGTH: Duration = Duration::from_secs(4);
const HEADER: usize = 12;
const TAG: usize = 16;
/// Most bytes in one run: it is one datagram to the kernel until it is cut.
const MAX_RUN: usize = 60_000;
/// Most that the kernel puts together.
const GRO_BYTES: usize = 64 << 10;

/// A packet as one viewer received it.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// UDP payload, in bytes.
    pub size: u16,
    /// The last one of a frame.
    pub ends_frame: bool,
    /// When it came.
    pub at: Instant,
}

/// CPU time of one packet, the kernel's delivery to a socket on this machine included. The frames are those of `packets`,
/// at their times, each sent to all receivers, who wait for it as the viewers of the run did.
pub async fn measure(receivers: usize, packets: Vec<Shape>) -> Result<Duration, String> {
    let mut readers = JoinSet::new();
    let mut addresses = Vec::new();
    for _ in 0..receivers.max(1) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(text)?;
        addresses.push(socket.local_addr().map_err(text)?);
        readers.spawn(read(socket));
    }
    let sender = tokio::task::spawn_blocking(move || send(&addresses, &packets));
    sender.await.map_err(|error| format!("--floor: {error}"))?
}

/// Reads with GRO, as browsers do and the load generator does.
async fn read(socket: UdpSocket) -> Result<(), std::io::Error> {
    let state = UdpSocketState::new((&socket).into())?;
    let mut buffer = vec![0; GRO_BYTES];
    loop {
        let mut metas = [quinn_udp::RecvMeta::default()];
        let receive = || state.recv((&socket).into(), &mut [IoSliceMut::new(&mut buffer)], &mut metas);
        socket.async_io(Interest::READABLE, receive).await?;
    }
}

struct Floor {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    run: Vec<u8>,
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which sends at the pace of the run")]
fn send(addresses: &[SocketAddr], packets: &[Shape]) -> Result<Duration, String> {
    let provider = from_feature_flags().srtp_provider;
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    let state = UdpSocketState::new((&socket).into()).map_err(text)?;
    let mut floor = Floor { socket, state, run: Vec::with_capacity(MAX_RUN) };
    let mut receivers: Vec<_> = (0_usize..)
        .zip(addresses)
        .map(|(number, address)| {
            let key = std::array::from_fn(|at| (number >> at) as u8);
            (*address, provider.aead_aes_128_gcm().create_cipher(key, true))
        })
        .collect();
    let (Some(first), Some(last)) = (packets.first(), packets.last()) else {
        return Err("--floor: no packets were received".to_owned());
    };
    let frames: Vec<&[Shape]> = packets.split_inclusive(|packet| packet.ends_frame).collect();
    let pause = (last.at - first.at) / frames.len() as u32;
    let (mut cpu, mut sent, start) = (Duration::ZERO, 0_u32, Instant::now());
    for (number, frame) in (0..).zip(frames.iter().cycle()) {
        let due = pause * number;
        if due > LENGTH {
            break;
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let before = thread_cpu().ok_or("--floor: the system doesn't tell a thread's CPU time")?;
        for (address, cipher) in &mut receivers {
            floor.frame(*address, cipher.as_mut(), frame)?;
            sent += frame.len() as u32;
        }
        cpu += thread_cpu().unwrap_or(before).saturating_sub(before);
    }
    cpu.checked_div(sent).ok_or_else(|| "--floor: nothing was sent".to_owned())
}

impl Floor {
    fn frame(
        &mut self,
        to: SocketAddr,
        cipher: &mut dyn AeadAes128GcmCipher,
        frame: &[Shape],
    ) -> Result<(), String> {
        const PAYLOAD: [u8; 1500] = [0x5a; 1500];
        let mut segment = 0;
        for packet in frame {
            let size = usize::from(packet.size).clamp(HEADER + TAG + 1, PAYLOAD.len());
            // The kernel cuts a run into equal parts; only its last one may be shorter.
            let shorter_before = !self.run.len().is_multiple_of(segment.max(1));
            if shorter_before || size > segment || self.run.len() + size > MAX_RUN {
                self.flush(to, segment)?;
                segment = size;
            }
            let start = self.run.len();
            self.run.resize(start + size, 0);
            let Some((header, sealed)) =
                self.run.get_mut(start..).and_then(|new| new.split_at_mut_checked(HEADER))
            else {
                continue;
            };
            let payload = PAYLOAD.get(..size - HEADER - TAG).unwrap_or_default();
            cipher
                .encrypt(&[7; HEADER], header, payload, sealed)
                .map_err(|error| format!("--floor: {error}"))?;
        }
        self.flush(to, segment)
    }

    fn flush(&mut self, destination: SocketAddr, segment: usize) -> Result<(), String> {
        let run_size = segment.max(1) * self.state.max_gso_segments();
        for contents in self.run.chunks(run_size) {
            let segment_size = (contents.len() > segment).then_some(segment);
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            self.state.try_send((&self.socket).into(), &transmit).map_err(text)?;
        }
        self.run.clear();
        Ok(())
    }
}

fn text(error: std::io::Error) -> String {
    format!("--floor: {error}")
}
