//! Which tracks of which sources a consumer gets.

use crate::media::{Codec, Kind, Track};

/// The codecs a consumer can use. An empty list: that kind is not wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Video codecs.
    pub video: Vec<Codec>,
    /// Audio codecs.
    pub audio: Vec<Codec>,
}

impl Wants {
    /// The codecs of one kind.
    pub fn of(&self, kind: Kind) -> &[Codec] {
        match kind {
            Kind::Video => &self.video,
            Kind::Audio => &self.audio,
        }
    }
}

/// Indices of the sources that video and audio are taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// Source of the video.
    pub video: Option<usize>,
    /// Source of the audio.
    pub audio: Option<usize>,
}

/// The first track of a kind with a codec that is wanted.
pub fn usable(tracks: &[Track], kind: Kind, wants: &Wants) -> Option<usize> {
    tracks.iter().position(|track| track.kind() == kind && wants.of(kind).contains(&track.codec))
}

/// Chooses: video from the first source that has a codec the consumer can use; audio from the same source if it has
/// one (one connection less, one clock), else from the first that has.
///
/// `sources[i]` is `None` while that source's tracks are unknown.
pub fn choose(sources: &[Option<&[Track]>], wants: &Wants) -> Choice {
    let first =
        |kind| sources.iter().position(|tracks| tracks.is_some_and(|t| usable(t, kind, wants).is_some()));
    let video = first(Kind::Video);
    let beside =
        video.filter(|&index| sources[index].is_some_and(|t| usable(t, Kind::Audio, wants).is_some()));
    Choice { video, audio: beside.or_else(|| first(Kind::Audio)) }
}

/// Whether sources offer something of a kind that is wanted, in whatever codec.
pub fn offers(sources: &[Option<&[Track]>], kind: Kind) -> bool {
    sources.iter().flatten().any(|tracks| tracks.iter().any(|track| track.kind() == kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Params;

    fn track(codec: Codec) -> Track {
        Track { codec, clock_rate: 90_000, channels: 0, params: Params::None }
    }

    fn wants(video: &[Codec], audio: &[Codec]) -> Wants {
        Wants { video: video.to_vec(), audio: audio.to_vec() }
    }

    #[test]
    fn each_consumer_gets_the_first_source_it_can_use() {
        let main = [track(Codec::H265), track(Codec::Aac)];
        let sub = [track(Codec::H264), track(Codec::Pcma)];
        let sources = [Some(&main[..]), Some(&sub[..])];
        let modern = wants(&[Codec::H264, Codec::H265], &[Codec::Aac]);
        assert_eq!(choose(&sources, &modern), Choice { video: Some(0), audio: Some(0) });
        let browser = wants(&[Codec::H264], &[Codec::Opus, Codec::Pcma]);
        assert_eq!(choose(&sources, &browser), Choice { video: Some(1), audio: Some(1) });
    }

    #[test]
    fn audio_comes_from_another_source_only_when_it_must() {
        let camera = [track(Codec::H264), track(Codec::Aac)];
        let microphone = [track(Codec::Opus)];
        let sources = [Some(&camera[..]), Some(&microphone[..])];
        let browser = wants(&[Codec::H264], &[Codec::Opus]);
        assert_eq!(choose(&sources, &browser), Choice { video: Some(0), audio: Some(1) });
    }

    #[test]
    fn unknown_sources_are_passed_over() {
        let sub = [track(Codec::H264)];
        let sources = [None, Some(&sub[..])];
        assert_eq!(choose(&sources, &wants(&[Codec::H264], &[])), Choice { video: Some(1), audio: None });
        assert!(!offers(&[None], Kind::Video));
    }
}
