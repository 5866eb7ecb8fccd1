//! The life of streams, with sources that follow a script and time that the tests move.

use super::*;
use crate::graph::source::{BoxFuture, RtpIn, SourceDetails};
use crate::graph::{Change, Registry, SourceWriter};
use crate::media::Params;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{advance, sleep};

/// What a source does in one run.
#[derive(Clone)]
enum Run {
    Fail(SourceError),
    Panic,
    /// Announces the codecs, sends one audio packet for each audio track every 20 ms, for ever or for so long.
    Play(Vec<Codec>, Option<Duration>),
    /// Never answers.
    Hang,
}

struct Script {
    url: String,
    unsupported: Option<&'static str>,
    runs: Mutex<VecDeque<Run>>,
    dials: AtomicUsize,
    running: AtomicUsize,
}

impl Script {
    fn new(runs: impl IntoIterator<Item = Run>) -> Arc<Script> {
        Arc::new(Script::plain(runs))
    }

    fn plain(runs: impl IntoIterator<Item = Run>) -> Script {
        Script {
            url: "test://camera".into(),
            unsupported: None,
            runs: Mutex::new(runs.into_iter().collect()),
            dials: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        }
    }
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Source for Script {
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::SeqCst);
            self.running.fetch_add(1, Ordering::SeqCst);
            let _running = Running(&self.running);
            // The last line of the script is repeated.
            let run = {
                let mut runs = self.runs.lock();
                if runs.len() > 1 { runs.pop_front() } else { runs.front().cloned() }
            };
            match run.expect("a script has at least one line") {
                Run::Fail(error) => Err(error),
                Run::Panic => panic!("as the script says"),
                Run::Hang => std::future::pending().await,
                Run::Play(codecs, until) => {
                    let track = |&codec| Track { codec, clock_rate: 8000, channels: 1, params: Params::None };
                    out.set_tracks(codecs.iter().map(track).collect(), SourceDetails::default());
                    let started = TokioInstant::now();
                    for n in 0u32.. {
                        for (index, _) in codecs.iter().enumerate().filter(|(_, c)| c.kind() == Kind::Audio) {
                            out.write_rtp(RtpIn {
                                track: index,
                                payload: &[1; 160],
                                timestamp: n * 160,
                                marker: false,
                                loss: false,
                                arrival: TokioInstant::now().into_std(),
                            });
                        }
                        out.flush();
                        sleep(Duration::from_millis(20)).await;
                        if until.is_some_and(|until| started.elapsed() >= until) {
                            return Ok(());
                        }
                    }
                    Ok(())
                }
            }
        })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn format_name(&self) -> &'static str {
        "test"
    }

    fn unsupported(&self) -> Option<&str> {
        self.unsupported
    }
}

struct Fixture {
    dials: Arc<Dials>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dials: Arc::default(), tasks: TaskTracker::new(), cancel: CancellationToken::new() }
    }

    fn stream(&self, sources: &[&Arc<Script>]) -> Arc<Stream> {
        let config = StreamConfig::new(vec!["test://camera".into(); sources.len()]);
        self.configured(config, sources)
    }

    fn configured(&self, config: StreamConfig, sources: &[&Arc<Script>]) -> Arc<Stream> {
        let sources = sources.iter().map(|&source| source.clone() as Arc<dyn Source>).collect();
        Stream::start(
            "front".into(),
            config,
            sources,
            &self.dials,
            &Events::default(),
            &self.tasks,
            &self.cancel,
        )
    }
}

fn browser() -> Wants {
    Wants { video: vec![Codec::H264], audio: vec![Codec::Opus, Codec::Pcma] }
}

fn unreachable() -> SourceError {
    SourceError::Unreachable("connection refused".into())
}

fn wrong_password() -> SourceError {
    SourceError::Refused("401 Unauthorized".into())
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_is_dialled_by_the_first_consumer_and_left_after_the_linger() {
    let (fixture, camera) = (Fixture::new(), Script::new([Run::Play(vec![Codec::Pcma], None)]));
    let stream = fixture.stream(&[&camera]);
    settle().await;
    assert_eq!((camera.dials.load(Ordering::SeqCst), stream.state()), (0, State::Idle));
    let selection = stream.connect(&browser(), PATIENCE).await.unwrap();
    assert!(selection.audio.is_some());
    settle().await;
    assert_eq!(stream.state(), State::Live);
    drop(selection);
    settle().await;
    advance(Duration::from_secs(9)).await;
    settle().await;
    assert_eq!(camera.running.load(Ordering::SeqCst), 1, "still warm within the linger");
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!((camera.running.load(Ordering::SeqCst), stream.state()), (0, State::Idle));
}

#[tokio::test(start_paused = true)]
async fn the_first_dial_is_retried_and_the_viewer_waits_for_it() {
    let camera = Script::new([
        Run::Fail(unreachable()),
        Run::Fail(unreachable()),
        Run::Play(vec![Codec::H264, Codec::Pcma], None),
    ]);
    let fixture = Fixture::new();
    let selection = fixture.stream(&[&camera]).connect(&browser(), PATIENCE).await.unwrap();
    assert_eq!(selection.video.unwrap().codec(), Some(Codec::H264));
    assert_eq!(camera.dials.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_of_a_dead_camera_learns_what_happened_at_the_deadline() {
    let (fixture, dead) = (Fixture::new(), Script::new([Run::Fail(unreachable())]));
    let started = TokioInstant::now();
    let error = fixture.stream(&[&dead]).connect(&browser(), PATIENCE).await.err();
    assert_eq!(error, Some(ConnectError::Source(unreachable())));
    assert_eq!(started.elapsed(), PATIENCE);

    let silent = Script::new([Run::Hang]);
    let error = fixture.stream(&[&silent]).connect(&browser(), PATIENCE).await.err();
    assert!(matches!(error, Some(ConnectError::Source(SourceError::TimedOut(_)))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_waited_for_until_the_deadline() {
    let (fixture, camera) = (Fixture::new(), Script::new([Run::Fail(wrong_password())]));
    let started = TokioInstant::now();
    let error = fixture.stream(&[&camera]).connect(&browser(), PATIENCE).await.err();
    assert_eq!(error, Some(ConnectError::Source(wrong_password())));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_pause_between_dials_grows_from_one_second_to_a_minute() {
    let (fixture, dead) = (Fixture::new(), Script::new([Run::Fail(unreachable())]));
    let stream = fixture.stream(&[&dead]);
    let _viewer = stream.producers()[0].lease();
    let mut dials = Vec::new();
    for second in 0..400u64 {
        settle().await;
        let count = dead.dials.load(Ordering::SeqCst);
        if dials.len() < count {
            dials.push(second);
        }
        advance(Duration::from_secs(1)).await;
    }
    let pauses: Vec<u64> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= 2 && pauses.iter().all(|&pause| pause <= 61), "{pauses:?}");
    // Seconds are counted here, and jitter moves a pause by a fifth: so every second one is compared.
    assert!(pauses.windows(3).take(3).all(|three| three[0] < three[2]), "{pauses:?}");
    assert!(*pauses.last().unwrap() >= 47, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_viewer_shortens_the_pause() {
    let (fixture, dead) = (Fixture::new(), Script::new([Run::Fail(unreachable())]));
    let stream = fixture.stream(&[&dead]);
    let _viewer = stream.producers()[0].lease();
    advance(Duration::from_secs(200)).await;
    settle().await;
    let before = dead.dials.load(Ordering::SeqCst);
    let _another = stream.producers()[0].lease();
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert!(dead.dials.load(Ordering::SeqCst) > before);
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_comes_back_goes_on_without_its_viewers_doing_anything() {
    let play = |seconds| Run::Play(vec![Codec::Pcma], Some(Duration::from_secs(seconds)));
    let camera = Script::new([play(3), Run::Fail(unreachable()), Run::Panic, play(1000)]);
    let fixture = Fixture::new();
    let stream = fixture.stream(&[&camera]);
    let selection = stream.connect(&browser(), PATIENCE).await.unwrap();
    let ring = selection.audio.as_ref().unwrap().lease.producer().packets().clone();
    let mut reader = crate::graph::Reader::new(ring.live());
    let mut packets = Vec::new();
    let started = TokioInstant::now();
    while started.elapsed() < Duration::from_secs(20) {
        let _ = tokio::time::timeout(Duration::from_secs(1), reader.read(64, &mut packets)).await;
    }
    assert_eq!(camera.dials.load(Ordering::SeqCst), 4);
    assert_eq!(stream.state(), State::Live);
    assert!(packets.windows(2).all(|pair| pair[0].time < pair[1].time), "the timeline ran backwards");
    assert!(packets.windows(2).all(|pair| pair[0].rtp_time < pair[1].rtp_time));
    assert_eq!(reader.skipped(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_second_source_serves_whom_the_first_one_can_not() {
    let main = Script::new([Run::Play(vec![Codec::H265, Codec::Aac], None)]);
    let sub = Script::new([Run::Play(vec![Codec::H264, Codec::Pcma], None)]);
    let fixture = Fixture::new();
    let stream = fixture.stream(&[&main, &sub]);
    let selection = stream.connect(&browser(), PATIENCE).await.unwrap();
    assert!(Arc::ptr_eq(selection.video.unwrap().lease.producer(), &stream.producers()[1]));

    let both = Wants { video: vec![Codec::H265, Codec::H264], audio: vec![] };
    let selection = stream.connect(&both, PATIENCE).await.unwrap();
    assert!(Arc::ptr_eq(selection.video.unwrap().lease.producer(), &stream.producers()[0]));
}

#[tokio::test(start_paused = true)]
async fn the_second_source_steps_in_while_the_first_is_down() {
    let main = Script::new([Run::Fail(unreachable())]);
    let sub = Script::new([Run::Play(vec![Codec::H264, Codec::Pcma], None)]);
    let fixture = Fixture::new();
    let selection = fixture.stream(&[&main, &sub]).connect(&browser(), PATIENCE).await.unwrap();
    assert_eq!(selection.video.unwrap().codec(), Some(Codec::H264));
}

#[tokio::test(start_paused = true)]
async fn no_codec_in_common_names_both_sides() {
    let camera = Script::new([Run::Play(vec![Codec::H265, Codec::Aac], None)]);
    let error = Fixture::new().stream(&[&camera]).connect(&browser(), PATIENCE).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("H265, AAC") && text.contains("H264, Opus, PCMA"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn sound_is_left_out_where_the_configuration_says_so() {
    let camera = Script::new([Run::Play(vec![Codec::H264, Codec::Pcma], None)]);
    let (fixture, config) = (Fixture::new(), StreamConfig::new(vec!["test://camera".into()]));
    let stream = fixture.configured(StreamConfig { audio: false, ..config }, &[&camera]);
    assert!(stream.connect(&browser(), PATIENCE).await.unwrap().audio.is_none());
}

#[tokio::test(start_paused = true)]
async fn removing_a_stream_ends_its_consumers_its_waiters_and_its_source() {
    let (camera, silent) = (Script::new([Run::Play(vec![Codec::Pcma], None)]), Script::new([Run::Hang]));
    let opened = (camera.clone(), silent.clone());
    let registry = Registry::new(Arc::new(move |url: &str| match url {
        "test://camera" => Ok(opened.0.clone() as Arc<dyn Source>),
        "test://silent" => Ok(opened.1.clone() as Arc<dyn Source>),
        other => Err(format!("{other} is not in the script")),
    }));
    let config = |url: &str| StreamConfig::new(vec![url.into()]);
    assert_eq!(registry.set("front", config("test://camera")), Ok(Change::Created));
    assert_eq!(registry.set("front", config("test://camera")), Ok(Change::Unchanged));
    assert!(registry.set("front", config("test://nonsense")).is_err());
    let stream = registry.get("front").unwrap();
    let _selection = stream.connect(&browser(), PATIENCE).await.unwrap();
    let ended = Arc::new(Mutex::new(None));
    let told = ended.clone();
    let _listed = stream
        .add_consumer(ConsumerInfo::default(), Box::new(move |reason| *told.lock() = Some(reason)))
        .unwrap();

    // Other options alone touch neither the source nor whoever watches.
    let patient = StreamConfig { linger: Duration::from_secs(99), ..config("test://camera") };
    assert_eq!(registry.set("front", patient.clone()), Ok(Change::Adjusted));
    assert_eq!((stream.config().linger, *ended.lock()), (patient.linger, None));
    let dials = camera.dials.load(Ordering::SeqCst);
    assert_eq!(registry.set("front", StreamConfig { audio: false, ..patient }), Ok(Change::Replaced));
    settle().await;
    assert_eq!(*ended.lock(), Some(EndReason::StreamRemoved));
    assert_eq!((dials, camera.running.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(registry.set("front", config("test://silent")), Ok(Change::Replaced));
    settle().await;
    assert_eq!(camera.running.load(Ordering::SeqCst), 0);
    assert!(matches!(
        stream.add_consumer(ConsumerInfo::default(), Box::new(|_| ())),
        Err(ConnectError::Removed)
    ));

    let replaced = registry.get("front").unwrap();
    let waiting = tokio::spawn(async move { replaced.connect(&browser(), PATIENCE).await.err() });
    settle().await;
    assert_eq!(silent.running.load(Ordering::SeqCst), 1);
    assert!(registry.remove("front") && !registry.remove("front"));
    assert_eq!(waiting.await.unwrap(), Some(ConnectError::Removed));
    tokio::time::timeout(Duration::from_secs(1), registry.shutdown()).await.unwrap();
    assert_eq!(silent.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn one_consumer_can_be_ended_alone() {
    let camera = Script::new([Run::Play(vec![Codec::Pcma], None)]);
    let stream = Fixture::new().stream(&[&camera]);
    let ended = Arc::new(Mutex::new(None));
    let told = ended.clone();
    let guard = stream
        .add_consumer(ConsumerInfo::default(), Box::new(move |reason| *told.lock() = Some(reason)))
        .unwrap();
    assert!(!stream.kick(guard.id + 1000));
    assert!(stream.kick(guard.id));
    assert_eq!(*ended.lock(), Some(EndReason::Kicked));
    assert_eq!(stream.consumers().len(), 1);
    drop(guard);
    assert!(stream.consumers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_warm_stream_runs_without_consumers() {
    let camera = Script::new([Run::Play(vec![Codec::Pcma], None)]);
    let (fixture, config) = (Fixture::new(), StreamConfig::new(vec!["test://camera".into()]));
    let stream = fixture.configured(StreamConfig { on_demand: false, ..config }, &[&camera]);
    advance(Duration::from_secs(60)).await;
    settle().await;
    assert_eq!(stream.state(), State::Live);
    stream.close();
    settle().await;
    assert_eq!(camera.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_cameras_are_dialled_one_after_another_and_who_waits_is_not_behind_them() {
    let fixture = Fixture::new();
    let dead = || Script::new([Run::Fail(unreachable())]);
    let cameras: Vec<_> = (0..500).map(|_| dead()).collect();
    let warm = || StreamConfig { on_demand: false, ..StreamConfig::new(vec!["test://camera".into()]) };
    let streams: Vec<_> = cameras.iter().map(|camera| fixture.configured(warm(), &[camera])).collect();
    let dialled = |camera: &Arc<Script>| camera.dials.load(Ordering::SeqCst);
    let dials = || cameras.iter().map(dialled).sum::<usize>();
    settle().await;
    let (last, its_stream) = (cameras.last().unwrap(), streams.last().unwrap());
    assert_eq!(dialled(last), 0, "it is behind all others");
    let _viewer = its_stream.producers()[0].lease();
    settle().await;
    assert_eq!(dialled(last), 1, "somebody waits for it");

    let mut before = 0;
    for second in 0..60 {
        settle().await;
        let in_this_second = dials() - before;
        assert!(in_this_second <= 90, "{in_this_second} dials in second {second}");
        before = dials();
        advance(Duration::from_secs(1)).await;
    }
    assert!(cameras.iter().all(|camera| dialled(camera) > 0), "all had their turn");
}

#[tokio::test(start_paused = true)]
async fn linger_and_on_demand_change_while_the_source_runs() {
    let camera = Script::new([Run::Play(vec![Codec::Pcma], None)]);
    let (fixture, config) = (Fixture::new(), StreamConfig::new(vec!["test://camera".into()]));
    let stream = fixture.configured(config.clone(), &[&camera]);
    let running = || camera.running.load(Ordering::SeqCst);
    drop(stream.connect(&browser(), PATIENCE).await.unwrap());
    advance(Duration::from_secs(5)).await;
    stream.adjust(StreamConfig { linger: Duration::from_secs(60), ..config.clone() });
    advance(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(running(), 1, "the longer linger counts");
    stream.adjust(StreamConfig { linger: Duration::from_secs(1), ..config.clone() });
    settle().await;
    assert_eq!(running(), 0, "the shorter one is over already");
    stream.adjust(StreamConfig { on_demand: false, ..config.clone() });
    advance(Duration::from_secs(60)).await;
    settle().await;
    stream.adjust(StreamConfig { on_demand: false, linger: Duration::from_secs(2), ..config.clone() });
    settle().await;
    assert_eq!((running(), camera.dials.load(Ordering::SeqCst)), (1, 2), "it is kept running");
    stream.adjust(config);
    settle().await;
    advance(Duration::from_secs(11)).await;
    settle().await;
    assert_eq!(running(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_unsupported_is_never_run_and_never_waited_for() {
    let camera = Script::new([Run::Play(vec![Codec::H264], None)]);
    let never = Arc::new(Script { unsupported: Some("not here"), ..Script::plain([Run::Panic]) });
    let fixture = Fixture::new();
    let stream = fixture.stream(&[&never, &camera]);
    let since = TokioInstant::now();
    let selection = stream.connect(&browser(), PATIENCE).await.unwrap();
    assert!(selection.video.is_some() && since.elapsed() < Duration::from_secs(1));
    let wants = Wants { video: vec![Codec::H265], audio: vec![] };
    let error = stream.connect(&wants, PATIENCE).await.err().unwrap();
    assert!(matches!(&error, ConnectError::NoCommonCodec { .. }), "{error}");

    let alone = fixture.configured(
        StreamConfig { on_demand: false, ..StreamConfig::new(vec!["test://camera".into()]) },
        &[&never],
    );
    let since = TokioInstant::now();
    let error = alone.connect(&browser(), PATIENCE).await.err();
    assert_eq!(error, Some(ConnectError::Source(SourceError::Refused("not here".into()))));
    assert!(since.elapsed() < Duration::from_secs(1));
    let status = alone.producers()[0].status();
    assert_eq!(
        (status.state, status.last_error),
        (State::Idle, Some(SourceError::Refused("not here".into())))
    );
    advance(Duration::from_secs(60)).await;
    settle().await;
    assert_eq!(never.dials.load(Ordering::SeqCst), 0);
}
