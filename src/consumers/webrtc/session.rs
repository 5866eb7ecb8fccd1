//! From an offer to a session: which tracks, which payload types, the answer, the peer.

use super::answer::{Answering, Sending};
use super::demux::{Registration, Route, Session};
use super::dtls::{self, Keys};
use super::end::End;
use super::lane::{Encoding, Lane, LaneSetup};
use super::offer::{Media, Offer, Payload};
use super::paths::add_local_candidates;
use super::peer::{Peer, PeerSetup};
use super::worker::Command;
use super::{Answer, Client, OfferError, Shared};
use crate::graph::{ConnectError, ConsumerInfo, Feed, Selection, Stream};
use crate::media::{Codec, Kind, Params, Reordering, h264};
use rand::distr::{Alphanumeric, SampleString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::crypto::Fingerprint;
use str0m::{IceCreds, Rtc, RtcConfig};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant as TokioInstant;

/// How long an offer waits to see whether the pictures have B-frames, where the parameter sets leave it open.
const REORDERING_PATIENCE: Duration = Duration::from_millis(500);
/// How often str0m says by which way it reaches the viewer.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

static NEXT_PEER: AtomicU64 = AtomicU64::new(1);

/// Letters and digits that nobody can guess.
pub fn random_text(length: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), length)
}

/// ICE credentials (RFC 8445 §5.3 asks for 24 and 128 random bits).
pub fn new_credentials() -> IceCreds {
    IceCreds { ufrag: random_text(12), pass: random_text(32) }
}

/// One kind as it was negotiated.
struct Negotiated<'a> {
    kind: Kind,
    media: &'a Media,
    payloads: Vec<Payload>,
    feed: Option<Feed>,
    ssrc: u32,
    rtx: Option<u32>,
}

/// Answers an offer; see [`super::WebRtc::offer`].
pub async fn answer(
    shared: &Shared,
    stream: &Arc<Stream>,
    sdp: &str,
    client: Client,
    permit: OwnedSemaphorePermit,
) -> Result<Answer, OfferError> {
    let offer = Offer::parse(sdp).map_err(OfferError::BadOffer)?;
    if offer.video.is_none() && offer.audio.is_none() {
        return Err(OfferError::NoMedia);
    }
    let mut selection = select(shared, stream, &offer).await?;
    let notes = notes(&offer, stream, &mut selection);
    // No await from here on: what is registered is removed by its guards.
    Building { shared, stream, offer: &offer, client }.finish(selection, notes, permit)
}

/// Finds what the viewer can be sent, and refuses what it could not show.
async fn select(shared: &Shared, stream: &Arc<Stream>, offer: &Offer) -> Result<Selection, OfferError> {
    let wants = offer.wants();
    let selection = stream.connect(&wants, shared.source_deadline).await.map_err(|error| match error {
        ConnectError::NoCommonCodec { offered, .. } => no_common_codec(offer, &offered),
        ConnectError::Source(error) => OfferError::Source(error),
        ConnectError::Removed => OfferError::Removed,
    })?;
    let has_video = selection.offered.iter().any(|codec| codec.kind() == Kind::Video);
    if offer.video.is_some() && selection.video.is_none() && has_video {
        return Err(no_common_codec(offer, &selection.offered));
    }
    if let Some(video) = &selection.video {
        let deadline = TokioInstant::now() + REORDERING_PATIENCE;
        if video.lease.producer().reordering(deadline).await == Reordering::Yes {
            return Err(OfferError::Incompatible {
                reason:
                    "the stream has B-frames, which WebRTC can't play: turn them off in the camera's encoder \
                         (e.g. profile Baseline, or \"B-frames: 0\"), or use another player mode"
                        .into(),
            });
        }
    }
    Ok(selection)
}

fn no_common_codec(offer: &Offer, offered: &[Codec]) -> OfferError {
    let of = |kind| -> Vec<&str> {
        offered.iter().filter(|codec| codec.kind() == kind).map(|codec| codec.name()).collect()
    };
    let mut parts = Vec::new();
    for (kind, line) in [(Kind::Video, offer.video), (Kind::Audio, offer.audio)] {
        let names = of(kind);
        if line.is_some() && !names.is_empty() {
            let viewer = offer.encodings(kind);
            parts.push(format!(
                "{kind}: the stream has {}, the viewer can receive {viewer}",
                names.join(", ")
            ));
        }
    }
    if parts.is_empty() {
        let names: Vec<&str> = offered.iter().map(|codec| codec.name()).collect();
        let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        parts.push(format!("the stream has {names}, and the viewer asks for none of it"));
    }
    OfferError::Incompatible { reason: format!("no codec in common; {}", parts.join("; ")) }
}

/// What the viewer does not get, in words. Sound that RTP can't carry as browsers expect it is taken out.
fn notes(offer: &Offer, stream: &Stream, selection: &mut Selection) -> Vec<String> {
    let mut notes = Vec::new();
    let clock = |feed: &Feed| feed.epoch.tracks.get(feed.track).map_or(0, |track| track.clock_rate);
    let usual = |codec| if codec == Codec::Opus { 48_000 } else { 8_000 };
    if let Some((codec, rate)) = selection.audio.as_ref().and_then(|feed| Some((feed.codec()?, clock(feed))))
        && rate != usual(codec)
    {
        notes.push(format!(
            "audio left out: the camera's {codec} has {rate} Hz, WebRTC only takes {} Hz",
            usual(codec)
        ));
        selection.audio = None;
        return notes;
    }
    let audio = selection.offered.iter().filter(|codec| codec.kind() == Kind::Audio);
    let names: Vec<&str> = audio.map(|codec| codec.name()).collect();
    if offer.audio.is_some() && stream.config().audio && selection.audio.is_none() && !names.is_empty() {
        let names = names.join(" and ");
        notes.push(if names == "AAC" {
            "audio left out: the camera's AAC can't be sent over WebRTC".into()
        } else {
            format!(
                "audio left out: the camera has {names}, the viewer can receive {}",
                offer.encodings(Kind::Audio)
            )
        });
    }
    notes
}

struct Building<'a> {
    shared: &'a Shared,
    stream: &'a Arc<Stream>,
    offer: &'a Offer,
    client: Client,
}

impl Building<'_> {
    fn finish(
        self,
        mut selection: Selection,
        notes: Vec<String>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Answer, OfferError> {
        let mut negotiated: Vec<Negotiated<'_>> = Vec::new();
        for (kind, feed) in [(Kind::Video, selection.video.take()), (Kind::Audio, selection.audio.take())] {
            if let Some(media) = self.offer.line(kind) {
                let payloads =
                    self.offer.choose(kind, feed.as_ref().and_then(Feed::codec), h264_profile(&feed));
                let (ssrc, rtx) = (random_ssrc(), payloads.iter().any(|p| p.rtx.is_some()).then(random_ssrc));
                negotiated.push(Negotiated { kind, media, payloads, feed, ssrc, rtx });
            }
        }
        let credentials = new_credentials();
        let (mut rtc, keys) = self.build_rtc(&credentials)?;
        let fingerprint = rtc.direct_api().local_dtls_fingerprint().to_string();
        let candidates: Arc<[String]> = self.shared.candidates().lines(self.client.remote.ip()).into();
        if candidates.is_empty() {
            tracing::warn!("no WebRTC candidate is offered: the filters leave none, see webrtc.filters");
        }
        let id = NEXT_PEER.fetch_add(1, Ordering::Relaxed);
        let sdp = self.write_answer(&negotiated, &credentials, &fingerprint, &candidates);
        let (name, etag) = (random_text(32), random_text(16));
        let reduced_size = negotiated.iter().all(|negotiated| negotiated.media.reduced_size);
        let route = Route { worker: self.shared.workers.least_busy(), peer: id, reduced_size };
        let ended = Arc::new(AtomicBool::new(false));
        let codecs: Vec<Codec> = negotiated.iter().filter_map(|n| n.feed.as_ref()?.codec()).collect();
        let info = ConsumerInfo {
            format_name: "webrtc",
            protocol: "",
            remote_addr: self.client.remote.to_string(),
            user_agent: self.client.user_agent.clone(),
            codecs,
            left_out: notes.clone(),
            ..ConsumerInfo::default()
        };
        let mailbox = self.shared.workers.mailbox(route.worker).ok_or(OfferError::Busy)?.clone();
        let on_end = {
            let (mailbox, ended) = (mailbox.clone(), ended.clone());
            Box::new(move |_| {
                ended.store(true, Ordering::Release);
                mailbox.command(Command::End(id, End::Ended));
            })
        };
        let consumer = self.stream.add_consumer(info, on_end).map_err(|_| OfferError::Removed)?;
        let registration = self.register(&name, &etag, route, &credentials, candidates);
        let lanes = negotiated.into_iter().filter_map(Negotiated::into_lane).collect();
        let stream = self.stream.name().to_owned();
        let crypto = self.shared.crypto.clone();
        let pacing = *self.shared.pacing.read();
        let setup =
            PeerSetup { id, stream, rtc, keys, crypto, pacing, consumer, registration, permit, lanes };
        let peer = Peer::new(setup, Instant::now());
        if !mailbox.command(Command::Add(Box::new(peer))) {
            return Err(OfferError::Busy);
        }
        // The stream may have been removed meanwhile, and the worker told before it knew the peer.
        if ended.load(Ordering::Acquire) {
            mailbox.command(Command::End(id, End::Ended));
            return Err(OfferError::Removed);
        }
        tracing::info!(stream = self.stream.name(), peer = id, client = %self.client.remote, "WebRTC viewer");
        Ok(Answer { session: name, etag, sdp, notes })
    }

    fn register(
        &self,
        name: &str,
        etag: &str,
        route: Route,
        credentials: &IceCreds,
        candidates: Arc<[String]>,
    ) -> Registration {
        let offer = self.offer;
        let first =
            [offer.video, offer.audio].into_iter().flatten().min().and_then(|index| offer.media.get(index));
        let section = first.map_or_else(String::new, |media| {
            let mid = media.mid.as_ref().map_or_else(String::new, |mid| format!("a=mid:{mid}\r\n"));
            format!("m={} 9 {} 0\r\n{mid}", media.name, media.protocol)
        });
        let session = Session {
            route,
            etag: etag.to_owned(),
            local_ufrag: credentials.ufrag.clone(),
            remote: (offer.ufrag.clone(), offer.password.clone()),
            section,
            candidates,
        };
        self.shared.workers.demux().register(name, session)
    }

    fn write_answer(
        &self,
        negotiated: &[Negotiated<'_>],
        credentials: &IceCreds,
        fingerprint: &str,
        candidates: &[String],
    ) -> String {
        let sending = |kind| {
            negotiated.iter().find(|n| n.kind == kind).map(|n| Sending {
                payloads: &n.payloads,
                active: n.feed.is_some(),
                ssrc: n.ssrc,
                rtx_ssrc: n.rtx,
            })
        };
        Answering {
            offer: self.offer,
            video: sending(Kind::Video),
            audio: sending(Kind::Audio),
            credentials: (&credentials.ufrag, &credentials.pass),
            fingerprint,
            candidates,
            id: rand::random(),
        }
        .write()
    }

    /// A str0m instance for ICE and DTLS. It never sees the offer itself, nor media.
    fn build_rtc(&self, local: &IceCreds) -> Result<(Rtc, Keys), OfferError> {
        let config = RtcConfig::new()
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .set_crypto_provider(self.shared.crypto.clone())
            .set_dtls_cert(self.shared.certificate.clone())
            .set_local_ice_credentials(local.clone())
            .set_stats_interval(Some(STATS_INTERVAL))
            .clear_codecs()
            .clear_extension_map();
        let (mut rtc, keys) = dtls::with_keys(|| config.build(Instant::now()));
        let failed = |what: &str, error: String| {
            tracing::error!("WebRTC session not set up: {what}: {error}");
            OfferError::BadOffer(format!("{what}: {error}"))
        };
        add_local_candidates(&mut rtc).map_err(|error| failed("candidates", error.to_string()))?;
        let Offer { ufrag, password, fingerprint, .. } = self.offer;
        let Fingerprint { hash_func, bytes } = fingerprint;
        let mut direct = rtc.direct_api();
        direct.set_ice_controlling(false);
        direct.set_remote_ice_credentials(IceCreds { ufrag: ufrag.clone(), pass: password.clone() });
        direct.set_remote_fingerprint(Fingerprint { hash_func: hash_func.clone(), bytes: bytes.clone() });
        direct
            .start_dtls(self.offer.we_are_dtls_client)
            .map_err(|error| failed("DTLS", error.to_string()))?;
        let keys = keys.ok_or_else(|| failed("DTLS", "it has not begun".into()))?;
        Ok((rtc, keys))
    }
}

impl Negotiated<'_> {
    fn into_lane(self) -> Option<Lane> {
        let mid = self.media.mid_extension.zip(self.media.mid.clone());
        let encoding = |payload: &Payload| Encoding {
            codec: payload.codec,
            payload_type: payload.number,
            rtx_type: payload.rtx,
        };
        let setup = LaneSetup {
            kind: self.kind,
            mid,
            ssrc: self.ssrc,
            rtx: self.rtx,
            codecs: self.payloads.iter().map(encoding).collect(),
            lease: self.feed?.lease,
        };
        Some(Lane::new(setup, rand::random(), rand::random()))
    }
}

/// RTP's SSRC; zero has a special meaning to browsers and str0m.
fn random_ssrc() -> u32 {
    rand::random_range(1..=u32::MAX)
}

/// profile_idc and constraint flags of the stream's parameter set.
fn h264_profile(feed: &Option<Feed>) -> Option<[u8; 2]> {
    let feed = feed.as_ref()?;
    let Params::H264 { sps, .. } = &feed.epoch.tracks.get(feed.track)?.params else { return None };
    h264::profile_level_id(sps).map(|[profile, constraints, _]| [profile, constraints])
}
