use super::*;
use crate::graph::SourceDetails;
use crate::media::{Codec, Params, Track};

#[derive(Default)]
struct Seen {
    /// Track, timestamp, loss, payload.
    rtp: Vec<(usize, u32, bool, Vec<u8>)>,
    reports: Vec<(usize, u64, u32)>,
}

impl Output for Seen {
    fn set_tracks(&mut self, _: Vec<Track>, _: SourceDetails) {}
    fn write_rtp(&mut self, p: RtpIn<'_>) {
        self.rtp.push((p.track, p.timestamp, p.loss, p.payload.to_vec()));
    }
    fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32) {
        self.reports.push((track, ntp, rtp));
    }
    fn flush(&mut self) {}
}

fn setup(codec: Codec, payload_type: u8, channels: (u8, u8)) -> Setup {
    let track = Track { codec, clock_rate: 90_000, channels: 0, params: Params::None };
    Setup { track, payload_type, channels: Some(channels), udp: None }
}

fn packet(payload_type: u8, sequence: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let timestamp = u32::from(sequence) * 3000;
    Header { payload_type, sequence, timestamp, ssrc: 7, marker: true }.write(&mut packet);
    packet.push(sequence as u8);
    packet
}

fn both() -> Receiver {
    Receiver::new(&[setup(Codec::Pcma, 8, (2, 3)), setup(Codec::H264, 96, (0, 1))], Instant::now())
}

#[test]
fn packets_reach_their_track_and_gaps_are_told() {
    let (mut receiver, mut seen, now) = (both(), Seen::default(), Instant::now());
    for (channel, pt, sequence) in [(0, 96, 1), (2, 8, 1), (0, 96, 2), (0, 96, 4), (9, 96, 5), (0, 97, 5)] {
        receiver.interleaved(channel, &packet(pt, sequence), now, &mut seen);
    }
    let told: Vec<_> = seen.rtp.iter().map(|(track, time, loss, _)| (*track, time / 3000, *loss)).collect();
    assert_eq!(told, [(1, 1, false), (0, 1, false), (1, 2, false), (1, 4, true)]);
}

#[test]
fn only_video_keeps_a_session_with_video_alive() {
    let (mut receiver, mut seen) = (both(), Seen::default());
    let later = receiver.last_media() + Duration::from_secs(3);
    receiver.interleaved(2, &packet(8, 1), later, &mut seen);
    assert!(receiver.last_media() < later);
    receiver.interleaved(0, &packet(96, 1), later, &mut seen);
    assert_eq!(receiver.last_media(), later);
}

#[test]
fn tracks_on_one_channel_are_told_apart() {
    let mut receiver =
        Receiver::new(&[setup(Codec::H264, 96, (0, 1)), setup(Codec::Pcma, 8, (0, 1))], Instant::now());
    let mut seen = Seen::default();
    receiver.interleaved(0, &packet(8, 1), Instant::now(), &mut seen);
    receiver.interleaved(0, &packet(96, 1), Instant::now(), &mut seen);
    assert_eq!(seen.rtp.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn a_camera_that_always_uses_another_payload_type_is_believed() {
    let (mut receiver, mut seen) = (both(), Seen::default());
    (0..40).for_each(|i| receiver.interleaved(0, &packet(102, i), Instant::now(), &mut seen));
    assert_eq!(seen.rtp.len(), 21);
    (0..40).for_each(|i| receiver.interleaved(2, &packet(13, i), Instant::now(), &mut seen));
    assert_eq!(seen.rtp.len(), 21, "comfort noise is no PCMA");
}

#[test]
fn sender_reports_and_goodbyes_are_taken() {
    let (mut receiver, mut seen, now) = (both(), Seen::default(), Instant::now());
    let mut report = Vec::new();
    let sent = header::SenderReport { ssrc: 7, ntp: 0x0001_0002_0003_0004, rtp: 5 };
    header::write_sender_report(&sent, 1, 1, &mut report);
    receiver.interleaved(1, &report, now, &mut seen);
    assert_eq!(seen.reports, [(1, 0x0001_0002_0003_0004, 5)]);
    let goodbye = [0x81, 203, 0, 1, 0, 0, 0, 7];
    for (channel, pt) in [(0, 96), (2, 8)] {
        receiver.interleaved(channel, &packet(pt, 1), now, &mut seen);
        assert!(!receiver.is_over());
        receiver.interleaved(channel + 1, &goodbye, now, &mut seen);
    }
    assert!(receiver.is_over());
}

#[test]
fn lying_packets_are_dropped() {
    let (mut receiver, mut seen) = (both(), Seen::default());
    // The payload's byte is 9: more padding than there is, when it is taken for that.
    let good = packet(96, 9);
    let mut lying = vec![vec![], vec![0x80], good[..11].to_vec(), vec![0xff; 40], vec![0; 40]];
    for flags in [0x8f, 0x90, 0xa0, 0xbf] {
        let mut bad = good.clone();
        bad[0] = flags;
        lying.push(bad);
    }
    for packet in &lying {
        (0..4).for_each(|channel| receiver.interleaved(channel, packet, Instant::now(), &mut seen));
    }
    assert_eq!(seen.rtp, []);
}

#[test]
fn receiver_reports_count_what_was_lost() {
    let (mut receiver, mut seen, now) = (both(), Seen::default(), Instant::now());
    let mut report = Vec::new();
    receiver.report(1, now, &mut report);
    assert!(report.is_empty(), "nothing to report on");
    for sequence in [65534, 65535, 1, 2] {
        receiver.interleaved(0, &packet(96, sequence), now, &mut seen);
    }
    receiver.report(1, now, &mut report);
    let word = |report: &[u8], i: usize| {
        u32::from_be_bytes([report[i], report[i + 1], report[i + 2], report[i + 3]])
    };
    assert_eq!((report[1], word(&report, 8)), (201, 7));
    assert_eq!((report[12], word(&report, 12) & 0xff_ffff), ((256 / 5) as u8, 1));
    assert_eq!(word(&report, 16), 0x1_0002, "one turn and two");
    receiver.report(1, now, &mut report);
    assert_eq!(report[12], 0, "nothing was lost since");
}

#[tokio::test]
async fn udp_packets_are_put_in_order_and_their_memory_is_used_again() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let mut video = setup(Codec::H264, 96, (0, 1));
    video.udp = Some(crate::sources::rtsp::udp::UdpPair::bind(address, address).expect("bind"));
    let (mut receiver, mut seen) = (Receiver::new(&[video], Instant::now()), Seen::default());
    let now = Instant::now();
    for sequence in [1, 3, 2, 4, 6] {
        receiver.rtp(0, &packet(96, sequence), now, &mut seen);
    }
    assert_eq!(seen.rtp.iter().map(|p| (p.3[0], p.2)).collect::<Vec<_>>(), [1, 2, 3, 4].map(|i| (i, false)));
    let due = receiver.deadline().expect("one waits");
    receiver.flush(due, &mut seen);
    assert_eq!(seen.rtp.last().map(|p| (p.3[0], p.2)), Some((6, true)));
    let Order::Restored { spare, .. } = &receiver.tracks[0].order else { panic!("UDP restores order") };
    assert!(!spare.is_empty());
}
