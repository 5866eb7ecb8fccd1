//! The least that sending can cost: AES-128-GCM over the same payloads, and one system call for each run of packets.

use super::process::thread_cpu;
use quinn_udp::{Transmit, UdpSocketState};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use str0m::crypto::from_feature_flags;

/// How long it is measured.
const LENGTH: Duration = Duration::from_secs(2);
const HEADER: usize = 12;
const TAG: usize = 16;
/// Most packets in one run, as the kernel takes them.
const MAX_RUN: usize = 44;

/// The frame that is sent: so many packets, so large on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub packets: usize,
    pub datagram: usize,
}

/// CPU time of one packet, the kernel's delivery to a socket on this machine included.
pub fn measure(receivers: usize, shape: Shape) -> Result<Duration, String> {
    let text = |error: std::io::Error| format!("--floor: {error}");
    let provider = from_feature_flags().srtp_provider;
    let length = shape.datagram.clamp(HEADER + TAG + 1, 1472);
    let payload = vec![0x5a_u8; length - HEADER - TAG];
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    let state = UdpSocketState::new((&sender).into()).map_err(text)?;
    let mut viewers = Vec::new();
    for number in 0..receivers.max(1) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        // With GRO, as browsers' and the load generator's.
        let receiver = UdpSocketState::new((&socket).into()).map_err(text)?;
        let key = std::array::from_fn(|at| (number >> at) as u8);
        let cipher = provider.aead_aes_128_gcm().create_cipher(key, true);
        viewers.push((socket.local_addr().map_err(text)?, cipher, socket, receiver));
    }
    let mut run = vec![0; length * MAX_RUN];
    let mut received = vec![0; 64 << 10];
    let (mut cpu, mut sent, start) = (Duration::ZERO, 0_u32, Instant::now());
    while start.elapsed() < LENGTH {
        let before = thread_cpu().ok_or("--floor: the system doesn't tell a thread's CPU time")?;
        for (address, cipher, ..) in &mut viewers {
            let mut left = shape.packets.max(1);
            while left > 0 {
                let packets = left.min(MAX_RUN).min(state.max_gso_segments());
                for datagram in run.chunks_mut(length).take(packets) {
                    let (header, sealed) = datagram.split_at_mut(HEADER);
                    cipher
                        .encrypt(&[7; HEADER], header, &payload, sealed)
                        .map_err(|error| format!("--floor: {error}"))?;
                }
                let contents = run.get(..packets * length).unwrap_or_default();
                let segment_size = (packets > 1).then_some(length);
                let transmit =
                    Transmit { destination: *address, ecn: None, contents, segment_size, src_ip: None };
                state.try_send((&sender).into(), &transmit).map_err(text)?;
                (left, sent) = (left - packets, sent + packets as u32);
            }
        }
        cpu += thread_cpu().unwrap_or(before).saturating_sub(before);
        // Not measured: it is the viewers' part.
        for (.., socket, receiver) in &viewers {
            let mut meta = [quinn_udp::RecvMeta::default()];
            while receiver
                .recv(socket.into(), &mut [std::io::IoSliceMut::new(&mut received)], &mut meta)
                .is_ok()
            {}
        }
    }
    cpu.checked_div(sent).ok_or_else(|| "--floor: nothing was sent".to_owned())
}
