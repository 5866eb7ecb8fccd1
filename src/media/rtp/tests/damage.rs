//! Loss, and payloads that no encoder made.

use super::*;

const H264: Codec = Codec::H264;

fn playing() -> Receiver {
    let mut camera = Receiver::new(&track(H264, Nals(H264).params()), 1200);
    camera.send(&Nals(H264).key(true), 0, true);
    camera.send(&Nals(H264).inter(true), 3600, true);
    assert_eq!(camera.frames.len(), 2);
    camera
}

/// After whatever happened, nothing comes until the next keyframe, and then everything.
fn expect_recovery_at_the_next_keyframe(mut camera: Receiver, case: &str) {
    let frames = camera.frames.len();
    let pieces = camera.pieces.len();
    camera.send(&Nals(H264).inter(true), 72_000, true);
    camera.send(&[0x7c, 0x81, 0x9a, 0x02], 75_600, false);
    camera.send(&[0x7c, 0x41, 0x9a, 0x02], 75_600, true);
    assert_eq!(camera.pieces.len(), pieces, "{case}: pictures without what they refer to");
    assert!(camera.noted.last().expect("noted").dropped, "{case}");
    camera.send(&Nals(H264).key(true), 79_200, true);
    camera.send(&Nals(H264).inter(true), 82_800, true);
    assert_eq!(camera.frames.len(), frames + 2, "{case}");
    assert!(camera.pieces[pieces].starts_unit && camera.pieces[pieces].keyframe, "{case}");
    assert!(camera.noted.last().is_some_and(|noted| !noted.dropped), "{case}");
}

#[test]
fn loss_cuts_up_to_the_next_keyframe() {
    let mut camera = playing();
    camera.send_after_loss(&Nals(H264).inter(true), 10_800, true);
    assert!(camera.noted.last().is_some_and(|noted| noted.dropped));
    expect_recovery_at_the_next_keyframe(camera, "loss");
}

#[test]
fn unit_that_was_being_sent_is_never_ended() {
    let mut camera = playing();
    camera.send(&[0x7c, 0x81, 0x9a, 0x02], 7200, false);
    camera.send_after_loss(&[0x7c, 0x41, 0x02], 7200, true);
    let last = camera.pieces.last().expect("pieces");
    assert!(last.starts_unit && !last.ends_unit);
    expect_recovery_at_the_next_keyframe(camera, "fragment lost");
}

#[test]
fn damaged_payloads_cut_up_to_the_next_keyframe() {
    let cases: [(&str, &[&[u8]]); 12] = [
        ("forbidden_zero_bit", &[&[0xc1, 0x9a]]),
        ("fragment without start", &[&[0x7c, 0x01, 9]]),
        ("end without start", &[&[0x7c, 0x41, 9]]),
        ("empty fragment", &[&[0x7c, 0x81]]),
        ("bare fragment header", &[&[0x7c]]),
        ("fragment of a fragment", &[&[0x7c, 0x9c, 1]]),
        ("start within a NAL unit", &[&[0x7c, 0x81, 0x9a, 2], &[0x7c, 0x81, 0x9a, 2]]),
        ("NAL unit within fragments", &[&[0x7c, 0x81, 0x9a, 2], &[0x41, 0x9a]]),
        ("fragments of two types", &[&[0x7c, 0x81, 0x9a, 2], &[0x7c, 0x45, 2]]),
        ("aggregate that runs over the end", &[&[24, 0, 2, 0x41, 0x9a, 0, 9, 1]]),
        ("empty aggregate", &[&[24]]),
        ("interleaved mode", &[&[26, 0, 0, 0, 2, 0, 0, 0, 0x41, 0x9a]]),
    ];
    for (case, payloads) in cases {
        let mut camera = playing();
        for payload in payloads {
            camera.send(payload, 7200, false);
        }
        assert!(camera.noted.last().is_some_and(|noted| noted.dropped), "{case}");
        assert_eq!(camera.frames.len(), 2, "{case}");
        expect_recovery_at_the_next_keyframe(camera, case);
    }
}

#[test]
fn nal_unit_without_end_before_another_picture_is_damage() {
    let mut camera = playing();
    camera.send(&[0x7c, 0x81, 0x9a, 2], 7200, true);
    camera.send(&Nals(H264).inter(true), 10_800, true);
    assert_eq!(camera.frames.len(), 2);
    expect_recovery_at_the_next_keyframe(camera, "no end");
}

#[test]
fn payloads_of_no_meaning_are_left_out() {
    let mut camera = playing();
    for payload in [&[][..], &[0], &[30, 1, 2], &[31]] {
        camera.send(payload, 7200, false);
    }
    camera.send(&Nals(H264).inter(true), 7200, true);
    assert_eq!(camera.frames.len(), 3);
}

#[test]
fn endless_nal_unit_is_given_up() {
    let mut camera = playing();
    camera.send(&[0x7c, 0x81, 0x9a, 2], 7200, false);
    let part = [&[0x7c, 0x01][..], &[7; 60_000]].concat();
    let mut sent = 0;
    while !camera.noted.last().expect("noted").dropped {
        camera.send(&part, 7200, false);
        sent += part.len();
        assert!(sent < 5 << 20);
    }
    expect_recovery_at_the_next_keyframe(camera, "endless");
}

#[test]
fn endless_prefixes_are_bounded() {
    let mut camera = playing();
    for at in 0..10_000u32 {
        camera.send(&filled(Nals(H264).sei(), 1000), 7200 + at, false);
    }
    assert_eq!(camera.pieces.len(), 3);
    camera.send(&Nals(H264).inter(true), 50_000, true);
    expect_recovery_at_the_next_keyframe(camera, "prefixes");
}

#[test]
fn keyframe_right_behind_a_loss_is_taken_if_it_is_whole() {
    let nals = Nals(H264);
    let mut camera = Receiver::new(&track(H264, nals.params()), 1200);
    for (timestamp, loss_at) in [(0, usize::MAX), (3600, usize::MAX), (7200, 0), (10_800, 1), (14_400, 2)] {
        let list = [nals.sps(), nals.pps(), nals.key(true), nals.key(false)];
        for (at, nal) in list.iter().enumerate().skip(if loss_at == usize::MAX { 0 } else { loss_at }) {
            let marker = at == 3;
            camera.push(Incoming { payload: nal, timestamp, marker, loss: at == loss_at });
        }
    }
    let times: Vec<_> = camera.frames.iter().map(|frame| frame.rtp_time).collect();
    assert_eq!(times, [0, 3600, 7200], "its first NAL unit tells whether something of it is missing");
}

#[test]
fn depacketizer_gives_nothing_of_broken_units() {
    let piece = |payload: &[u8], starts_unit, ends_unit, keyframe| {
        packet(Piece { payload: payload.into(), timestamp: 0, starts_unit, ends_unit, keyframe })
    };
    let cases: [(&str, Vec<Packet>); 6] = [
        ("unended", vec![piece(&[0x65, 0x88], true, false, true), piece(&[0x41, 0x9a], true, true, false)]),
        ("no start", vec![piece(&[0x65, 0x88], false, true, false)]),
        ("no keyframe", vec![piece(&[0x41, 0x9a], true, true, false)]),
        ("open NAL unit", vec![piece(&[0x7c, 0x85, 0x88], true, true, true)]),
        ("no fragment start", vec![piece(&[0x7c, 0x45, 0x88], true, true, true)]),
        ("broken aggregate", vec![piece(&[24, 0, 9, 1], true, true, true)]),
    ];
    for (case, packets) in cases {
        let mut depacketizer = Depacketizer::new(&track(H264, Params::None));
        let mut frames = Vec::new();
        for packet in &packets {
            depacketizer.push(packet, &mut frames);
        }
        assert_eq!(frames, [], "{case}");
        depacketizer.push(&piece(&[0x41, 0x9a], true, true, false), &mut frames);
        assert_eq!(frames, [], "{case}");
        depacketizer.push(&piece(&[0x65, 0x88], true, true, true), &mut frames);
        depacketizer.push(&piece(&[0x41, 0x9a], true, true, false), &mut frames);
        assert_eq!(frames.len(), 2, "{case}");
    }
}
