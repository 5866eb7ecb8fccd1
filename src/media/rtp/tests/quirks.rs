//! What real cameras do.

use super::*;

const H264: Codec = Codec::H264;

fn h264() -> Receiver {
    Receiver::new(&track(H264, Nals(H264).params()), 1200)
}

fn stap_a(nals: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![24];
    for nal in nals {
        payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
        payload.extend_from_slice(nal);
    }
    payload
}

fn key() -> Vec<u8> {
    Nals(H264).key(true)
}

fn inter() -> Vec<u8> {
    Nals(H264).inter(true)
}

/// `(starts, ends, keyframe)` of each piece.
fn flags(receiver: &Receiver) -> Vec<(bool, bool, bool)> {
    receiver.pieces.iter().map(|piece| (piece.starts_unit, piece.ends_unit, piece.keyframe)).collect()
}

#[test]
fn sets_in_one_aggregate_stay_as_they_are() {
    let mut camera = h264();
    let sets = stap_a(&Nals(H264).sets());
    camera.send(&sets, 0, false);
    camera.send(&key(), 0, true);
    assert_eq!(camera.pieces[0].payload[..], sets);
    assert_eq!(flags(&camera), [(true, false, true), (false, true, false)]);
}

#[test]
fn sets_in_packets_with_markers_of_their_own_belong_to_the_keyframe() {
    let mut camera = h264();
    for round in 0..3u32 {
        for nal in Nals(H264).sets() {
            camera.send(&nal, round * 7200, true);
        }
        camera.send(&key(), round * 7200, true);
        camera.send(&inter(), round * 7200 + 3600, true);
    }
    assert_eq!(camera.frame_types(H264), vec![[vec![7, 8, 5], vec![1]]; 3].concat());
    assert!(camera.noted.iter().all(|noted| noted.params.is_none()));
}

#[test]
fn sets_with_a_timestamp_of_their_own_belong_to_the_keyframe() {
    let mut camera = h264();
    for round in 0..3u32 {
        for nal in Nals(H264).sets() {
            camera.send(&nal, round * 7200 - if round > 0 { 3600 } else { 0 }, round == 1);
        }
        camera.send(&key(), round * 7200, true);
        camera.send(&inter(), round * 7200 + 3600, true);
    }
    assert_eq!(camera.frame_types(H264), vec![[vec![7, 8, 5], vec![1]]; 3].concat());
    assert!(camera.frames.iter().zip(0..).all(|(frame, at)| frame.rtp_time == at * 3600));
}

#[test]
fn missing_sets_are_put_in_behind_the_delimiter() {
    let nals = Nals(H264);
    let mut camera = h264();
    for timestamp in [0, 3600] {
        camera.send(&nals.delimiter(), timestamp, false);
        camera.send(&nals.sei(), timestamp, false);
        camera.send(&key(), timestamp, true);
    }
    assert_eq!(camera.frame_types(H264), [vec![9, 7, 8, 6, 5], vec![9, 7, 8, 6, 5]]);
    assert_eq!(camera.pieces[1].payload[1..], stap_a(&nals.sets())[1..]);
    assert_eq!(camera.pieces[1].payload[0], 0x78, "as important as what is inside");
}

#[test]
fn sets_too_large_for_an_aggregate_go_singly() {
    let nals = Nals(H264);
    let params = Params::H264 { sps: filled(nals.sps(), 100).into(), pps: filled(nals.pps(), 20).into() };
    let mut camera = Receiver::new(&track(H264, params), 64);
    camera.send(&key(), 0, true);
    assert_eq!(camera.frame_types(H264), [[7, 8, 5]]);
    assert!(camera.pieces.iter().all(|piece| piece.payload.len() <= 64));
}

#[test]
fn nothing_comes_before_a_keyframe_or_without_sets() {
    let mut camera = Receiver::new(&track(H264, Params::None), 1200);
    camera.send(&inter(), 0, true);
    camera.send(&key(), 3600, true);
    camera.send(&Nals(H264).sps(), 7200, false);
    camera.send(&inter(), 7200, true);
    assert_eq!(camera.pieces, []);
    assert!(camera.noted.iter().all(|noted| !noted.dropped));
    camera.send(&Nals(H264).pps(), 10800, false);
    camera.send(&key(), 10800, true);
    assert_eq!(camera.frame_types(H264), [[7, 8, 8, 5]], "sets that were seen earlier count");
    assert_eq!(camera.normalizer.params(), &Nals(H264).params());
}

#[test]
fn changed_sets_begin_an_epoch_once() {
    let nals = Nals(H264);
    let mut camera = h264();
    let mut other = nals.sps();
    other[3] = 40;
    for round in 0..4u32 {
        // A second picture parameter set in each keyframe is not a change.
        let sps = if round < 2 { nals.sps() } else { other.clone() };
        camera.send(&stap_a(&[sps, nals.pps(), filled(nals.pps(), 9)]), round * 3600, false);
        camera.send(&key(), round * 3600, true);
    }
    let epochs: Vec<_> = camera.noted.iter().map(|noted| noted.params.is_some()).collect();
    assert_eq!(epochs, [false, false, false, false, false, true, false, false]);
    assert_eq!(camera.frames.len(), 4);
}

#[test]
fn camera_without_markers_plays() {
    let mut camera = h264();
    for at in 0..12u32 {
        let keyframe = at % 4 == 0;
        camera.send(&if keyframe { key() } else { inter() }, at * 3600, false);
        camera.send(&Nals(H264).inter(false), at * 3600, false);
    }
    // The first unit came out unended, which costs the frames its GOP. The last unit waits for the next packet.
    assert_eq!(camera.frames.len(), 7);
    assert!(camera.frames[0].keyframe && camera.frames[0].rtp_time == 4 * 3600);
    let units: Vec<_> = camera.pieces.iter().filter(|piece| piece.starts_unit).collect();
    assert_eq!(units.len(), 12, "viewers get every unit");
    let last = camera.pieces.last().expect("pieces");
    assert!(!last.ends_unit && last.timestamp == 11 * 3600);
    assert_eq!(camera.pieces.iter().filter(|piece| piece.ends_unit).count(), 10);
}

#[test]
fn camera_with_a_marker_on_every_slice_plays() {
    let nals = Nals(H264);
    let mut camera = h264();
    for at in 0..12u32 {
        let keyframe = at % 4 == 0;
        camera.send(&if keyframe { key() } else { inter() }, at * 3600, true);
        camera.send(&if keyframe { nals.key(false) } else { nals.inter(false) }, at * 3600, true);
    }
    let whole: Vec<_> = camera.frames.iter().filter(|frame| frame.rtp_time >= 4 * 3600).collect();
    assert_eq!(whole.len(), 7);
    for frame in whole {
        assert_eq!(slices(H264, &nals_of(frame)).len(), 2);
    }
}

#[test]
fn marker_is_trusted_again_when_it_is_right() {
    let mut camera = h264();
    camera.send(&key(), 0, false);
    for at in 1..40u32 {
        camera.send(&inter(), at * 3600, true);
    }
    let last = camera.pieces.last().expect("pieces");
    assert_eq!((last.timestamp, last.ends_unit), (39 * 3600, true), "nothing waits any more");
}

#[test]
fn two_fields_with_one_timestamp_are_two_units() {
    let mut camera = h264();
    camera.send(&key(), 0, true);
    camera.send(&inter(), 0, true);
    camera.send(&inter(), 3600, true);
    assert_eq!(camera.frames.len(), 3);
    assert_eq!(camera.noted.iter().map(|noted| noted.access_units).sum::<u32>(), 2);
}

#[test]
fn open_gop_without_idr_starts_at_an_i_slice_with_sets() {
    let nals = Nals(H264);
    let intra = vec![0x41, 0x88, 0x84];
    let mut camera = h264();
    camera.send(&intra, 0, true);
    assert_eq!(camera.pieces, []);
    camera.send(&nals.sps(), 3600, false);
    camera.send(&nals.pps(), 3600, false);
    camera.send(&intra, 3600, true);
    assert_eq!(camera.frame_types(H264), [[7, 8, 1]]);
    assert!(camera.frames[0].keyframe);
    // With IDR pictures around it is none.
    camera.send(&key(), 7200, true);
    camera.send(&nals.sps(), 10800, false);
    camera.send(&intra, 10800, true);
    assert!(!camera.frames[2].keyframe);
}

#[test]
fn hevc_random_access_pictures_are_keyframes() {
    for (header, keyframe) in
        [(0x26, true), (0x28, true), (0x2a, true), (0x20, true), (0x2c, false), (0x02, false)]
    {
        let mut camera = Receiver::new(&track(Codec::H265, Nals(Codec::H265).params()), 1200);
        camera.send(&[header, 1, 0x80], 0, true);
        assert_eq!(camera.frames.len(), usize::from(keyframe), "{header:#x}");
    }
}

#[test]
fn b_slices_and_timestamps_that_run_back_are_noticed() {
    let mut camera = h264();
    camera.send(&key(), 0, true);
    camera.send(&inter(), 3600, true);
    assert!(camera.noted.iter().all(|noted| !noted.reordered));
    camera.send(&[0x01, 0x9e, 0x02], 7200, true);
    assert!(camera.noted[2].reordered);

    let nals = Nals(Codec::H265);
    let mut camera = Receiver::new(&track(Codec::H265, nals.params()), 1200);
    let order = [0u32, 4, 2, 1, 3, 8, 6];
    for (at, shown) in order.into_iter().enumerate() {
        let nal = if at == 0 { nals.key(true) } else { nals.inter(true) };
        camera.send(&nal, 90_000 + shown * 3600, true);
    }
    let noticed: Vec<_> = camera.noted.iter().map(|noted| noted.reordered).collect();
    assert_eq!(noticed, [false, false, false, true, true, true, true]);
}

#[test]
fn one_timestamp_that_runs_back_is_no_proof_and_wrap_around_is_none() {
    let nals = Nals(Codec::H265);
    let mut camera = Receiver::new(&track(Codec::H265, nals.params()), 1200);
    for (at, timestamp) in
        [u32::MAX - 5000, u32::MAX - 1400, 2200, 2100, 5800, 900_000, 9400].into_iter().enumerate()
    {
        camera.send(&if at == 0 { nals.key(true) } else { nals.inter(true) }, timestamp, true);
    }
    assert!(camera.noted.iter().all(|noted| !noted.reordered));
}

#[test]
fn suffixes_stay_with_their_unit() {
    let mut camera = h264();
    camera.send(&key(), 0, false);
    camera.send(&[12, 0xff, 0x80], 0, true);
    camera.send(&inter(), 3600, true);
    // Behind the marker it belongs to nothing.
    camera.send(&[12, 0xff, 0x80], 3600, true);
    camera.send(&inter(), 7200, true);
    assert_eq!(camera.frame_types(H264), [vec![7, 8, 5, 12], vec![1], vec![1]]);
}

#[test]
fn first_piece_leaves_before_the_frame_has_come() {
    let mut camera = Receiver::new(&track(H264, Nals(H264).params()), 1000);
    let part = |flags: u8, size: usize| [&[0x7c, flags | 5, 0x88][..], &vec![1; size - 3]].concat();
    let mut delayed = 0i64;
    for (flags, size) in [(0x80, 1400), (0, 1400), (0, 900), (0, 1400), (0, 200), (0x40, 1400)] {
        camera.send(&part(flags, size), 0, flags == 0x40);
        delayed += size as i64 - 2;
        let out: usize = camera.pieces.iter().skip(1).map(|piece| piece.payload.len() - 2).sum();
        assert!(delayed - (out as i64) <= 998, "no more than one payload waits");
    }
    let sizes: Vec<_> = camera.pieces.iter().skip(1).map(|piece| piece.payload.len()).collect();
    assert_eq!(sizes, [1000, 1000, 1000, 1000, 1000, 1000, 700 + 2]);
    assert_eq!(camera.frames.len(), 1);
}

#[test]
fn fragment_that_is_start_and_end_is_a_whole_nal_unit() {
    let mut camera = h264();
    camera.send(&[0x7c, 0xc5, 0x88, 0x84], 0, true);
    assert_eq!(camera.pieces[1].payload[..], [0x65, 0x88, 0x84]);
    assert_eq!(camera.frames.len(), 1);
}

#[test]
fn large_aggregates_are_taken_apart() {
    let nals = Nals(H264);
    let mut camera = Receiver::new(&track(H264, Params::None), 100);
    camera.send(&stap_a(&[nals.sps(), nals.pps(), filled(nals.key(true), 350)]), 0, true);
    assert_eq!(camera.frame_types(H264), [[7, 8, 5]]);
    assert_eq!(camera.pieces.len(), 2 + 4);
    assert_eq!(nals_of(&camera.frames[0])[2], filled(nals.key(true), 350));
}
