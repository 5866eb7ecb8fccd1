//! An offer of any text is an offer or an error; an offer can be answered with payload types that it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::webrtc::offer::Offer;
use streamgate::media::Kind;

fuzz_target!(|text: &str| {
    let Ok(offer) = Offer::parse(text) else { return };
    for kind in [Kind::Video, Kind::Audio] {
        let codecs = offer.wants().of(kind).to_vec();
        let chosen = offer.choose(kind, codecs.last().copied(), Some([0x64, 0]));
        assert_eq!(chosen.len(), codecs.len());
        assert!(chosen.iter().all(|payload| payload.number < 128 && payload.codec.kind() == kind));
        assert_eq!(chosen.first().map(|payload| payload.codec), codecs.last().copied());
        assert!(offer.encodings(kind).chars().all(|c| !c.is_control()));
    }
});
