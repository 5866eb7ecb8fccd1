//! The configuration in effect: one change at a time, from whoever it comes, first on disk, then running.

use super::preload;
use crate::config::{
    self, Config, ConfigError, Edit, EditError, Edited, IceServer, Loaded, Overrides, Stamp, Store,
    StoreError, StreamConfig, Tls,
};
use crate::graph::{Change, Event, OpenSource, Preload, Registry};
use crate::telemetry::mask;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde_yaml::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Most sources without effect that are named.
const MAX_WARNINGS: usize = 100;

/// The configuration, its file, and what runs by it.
pub struct Live {
    registry: Arc<Registry>,
    open: OpenSource,
    settings: Box<dyn Settings>,
    store: Store,
    overrides: Overrides,
    /// With this the process was started.
    started: Arc<Config>,
    /// For readers that must not wait for a change to be on the disk.
    current: RwLock<Arc<Config>>,
    state: Mutex<State>,
}

struct State {
    /// The file's text that is in effect.
    text: String,
    /// What that text and the overrides make.
    config: Arc<Config>,
    /// What the file says by now, and why that is not in effect.
    refused: Option<(String, ConfigError)>,
    /// The certificate that the file names by now, in effect or not.
    tls: Option<Tls>,
}

/// What runs by the configuration, but for the streams.
pub trait Settings: Send + Sync {
    /// Checks what differs between `running` and `wanted`. What this returns puts it in effect and can't fail.
    ///
    /// # Errors
    /// The key and what is wrong with it, without secrets. Nothing has changed.
    fn prepare(&self, running: &Config, wanted: &Config) -> Result<Commit, ConfigError>;

    /// Reads the files again that `running` names.
    fn refresh(&self, running: &Config);
}

/// Puts checked settings in effect.
pub type Commit = Box<dyn FnOnce() + Send>;

/// A text that may become the one in effect.
struct Wanted {
    text: String,
    config: Config,
    warnings: Vec<String>,
    preloads: Vec<(String, Preload)>,
    commit: Commit,
}

/// What a change of the configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// Streams that are new.
    pub created: Vec<String>,
    /// Streams that differ from what they were.
    pub changed: Vec<String>,
    /// Streams that ended.
    pub removed: Vec<String>,
    /// Keys that differ from what runs and have an effect after a restart only.
    pub restart_required: Vec<&'static str>,
    /// What the text says without effect.
    pub warnings: Vec<String>,
}

/// Why a change was not made: nothing was changed, neither the file nor what runs.
#[derive(Debug)]
pub enum Fault {
    /// What is asked for is no valid configuration.
    Invalid(ConfigError),
    /// A source that can't be one, or too many streams.
    BadSource(String),
    /// The file on disk is broken, so nothing can be changed in it.
    BrokenFile(ConfigError),
    /// The file's text can't be changed that way.
    Impossible(String),
    /// Somebody else has changed the file meanwhile.
    Outdated,
    /// The file can't be written.
    Store(StoreError),
}

/// Whether a change of a stream is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// Yes, or there was nothing to write.
    Yes,
    /// Yes, and the file is new.
    NewFile(String),
    /// No, since a flag gave the stream.
    ByFlag,
    /// No, as was asked for.
    InMemory,
}

impl Live {
    /// Starts the streams of a configuration. `text` is what `store` holds, `settings` runs by `config` already.
    ///
    /// # Errors
    /// The first stream with a source that can't be one, and why.
    pub fn start(
        registry: Arc<Registry>,
        open: OpenSource,
        settings: Box<dyn Settings>,
        store: Store,
        text: String,
        config: Config,
        overrides: Overrides,
    ) -> Result<Live, (String, String)> {
        for (name, stream) in &config.streams {
            registry.set(name, stream.clone()).map_err(|why| (name.clone(), why))?;
        }
        let warnings = check_streams(&open, &text, &config).unwrap_or_default();
        let preloads =
            preload::of_config(&config).map_err(|(name, why)| (name, format!("preload: {why}")))?;
        registry.set_preloads(preloads);
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let config = Arc::new(config);
        let tls = config.api.tls.clone();
        Ok(Live {
            registry,
            open,
            settings,
            store,
            overrides,
            started: config.clone(),
            current: RwLock::new(config.clone()),
            state: Mutex::new(State { text, config, refused: None, tls }),
        })
    }

    /// What players are told to use.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.current.read().webrtc.ice_servers.clone()
    }

    /// Whether TLS is spoken.
    pub fn has_tls(&self) -> bool {
        self.current.read().api.tls.is_some()
    }

    /// The file's text, or the last valid one with the reason why the file's is not in effect.
    pub fn text(&self) -> (String, Option<ConfigError>) {
        let state = self.state.lock();
        let read =
            self.store.read().and_then(|text| config::parse(&text, &config::environment).map(|_| text));
        match read {
            Ok(text) => (text, state.refused.as_ref().map(|(_, why)| why.clone())),
            Err(why) => (state.text.clone(), Some(why)),
        }
    }

    /// A text's version, for `ETag` and `If-Match`.
    pub fn version(text: &str) -> String {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        format!("\"{:016x}\"", hasher.finish())
    }

    /// What the file and the files that it names look like from outside, to see whether they were changed.
    pub fn stamps(&self) -> Vec<Option<Stamp>> {
        let state = self.state.lock();
        let named = [&state.config.api.tls, &state.tls].into_iter().flatten().flat_map(Tls::files);
        std::iter::once(self.store.stamp()).chain(named.map(Stamp::of)).collect()
    }

    /// Applies what the file and the files that it names say by now. `None` if the file says nothing new.
    pub fn reload(&self) -> Option<Result<Report, ConfigError>> {
        let state = &mut *self.state.lock();
        let outcome = self.reload_text(state);
        self.settings.refresh(&state.config);
        outcome
    }

    fn reload_text(&self, state: &mut State) -> Option<Result<Report, ConfigError>> {
        let read = self.store.read();
        let text = read.as_ref().map_or("", String::as_str);
        if read.is_ok() && text == state.text {
            state.refused = None;
            return None;
        }
        let loaded = read.clone().and_then(|text| config::parse(&text, &config::environment));
        if let Ok(loaded) = &loaded {
            state.tls = loaded.config.api.tls.clone();
        }
        let wanted = loaded.and_then(|loaded| self.check(state, text.to_owned(), loaded));
        match wanted {
            Ok(wanted) => {
                let report = self.adopt(state, wanted);
                tracing::info!(
                    created = report.created.len(),
                    changed = report.changed.len(),
                    removed = report.removed.len(),
                    restart_required = report.restart_required.join(", "),
                    "configuration file read again"
                );
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                Some(Ok(report))
            }
            Err(error) => {
                let error = ConfigError { path: Some(self.store.path().to_owned()), ..error };
                let refused = Some((text.to_owned(), error.clone()));
                if state.refused == refused {
                    return None;
                }
                tracing::error!("{error}; what was in effect before goes on");
                state.refused = refused;
                Some(Err(error))
            }
        }
    }

    /// Replaces the whole configuration. `***` in it is what it stood for when it was shown.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn replace(&self, text: &str, if_match: Option<&str>) -> Result<Report, Fault> {
        let mut state = self.state.lock();
        // A broken file may be replaced: that mends it.
        let old = self.store.read().unwrap_or_else(|_| state.text.clone());
        self.check_version(&old, if_match)?;
        let text = config::unmasked(text, &old, &|text| mask(text).into_owned())
            .or_else(|_| config::unmasked(text, &state.text, &|text| mask(text).into_owned()))
            .map_err(Fault::Invalid)?;
        let loaded = config::parse(&text, &config::environment).map_err(Fault::Invalid)?;
        let wanted = self.check(&state, text, loaded).map_err(Fault::Invalid)?;
        self.save(&mut state, wanted, &old)
    }

    /// Merges a mapping into the configuration; see [`Edit::Merge`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn merge(&self, mut patch: Value, if_match: Option<&str>) -> Result<Report, Fault> {
        let mut state = self.state.lock();
        let old = self.store.read().map_err(Fault::BrokenFile)?;
        self.check_version(&old, if_match)?;
        config::unmasked_value(&mut patch, &old, &|text| mask(text).into_owned()).map_err(Fault::Invalid)?;
        let Edited { text, loaded } = config::apply(&old, &Edit::Merge(&patch), &config::environment)?;
        let wanted = self.check(&state, text, loaded).map_err(Fault::Invalid)?;
        self.save(&mut state, wanted, &old)
    }

    /// Makes a stream what `make` makes of what it is. With `saved` it is in the file when this returns.
    ///
    /// # Errors
    /// What `make` says, or a [`Fault`].
    pub fn set_stream<E: From<Fault>>(
        &self,
        name: &str,
        saved: bool,
        make: impl FnOnce(Option<&StreamConfig>) -> Result<StreamConfig, E>,
    ) -> Result<(Change, Saved), E> {
        let mut state = self.state.lock();
        let old = self.registry.get(name).map(|stream| stream.config());
        let mut stream = make(old.as_deref())?;
        unmask_sources(&mut stream, old.as_deref()).map_err(Fault::BadSource)?;
        stream
            .sources
            .iter()
            .try_for_each(|source| (self.open)(source).map(drop))
            .map_err(Fault::BadSource)?;
        let saved = match saved {
            true => self.save_stream(&mut state, name, &Edit::Set { name, stream: &stream })?,
            false => Saved::InMemory,
        };
        let is_same = old.as_deref() == Some(&stream);
        // The file's streams are applied by now; what was changed in memory before may differ from it.
        self.registry.set(name, stream).map_err(Fault::BadSource)?;
        let change = match old {
            None => Change::Created,
            Some(_) if is_same => Change::Unchanged,
            Some(_) => Change::Replaced,
        };
        Ok((change, saved))
    }

    /// Ends a stream and takes it out of the file. `None` if there is none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn remove_stream(&self, name: &str) -> Result<Option<Saved>, Fault> {
        let mut state = self.state.lock();
        let was_there = self.registry.get(name).is_some();
        if !was_there && !state.config.streams.iter().any(|(other, _)| other == name) {
            return Ok(None);
        }
        let saved = self.save_stream(&mut state, name, &Edit::Remove { name })?;
        self.registry.remove(name);
        Ok(Some(saved))
    }

    fn save_stream(&self, state: &mut State, name: &str, edit: &Edit<'_>) -> Result<Saved, Fault> {
        if self.overrides.has_stream(name) {
            return Ok(Saved::ByFlag);
        }
        // The file is read each time: what was edited by hand meanwhile is not lost.
        let old = self.store.read().map_err(Fault::BrokenFile)?;
        let Edited { text, loaded } = config::apply(&old, edit, &config::environment)?;
        // A mistake that is there now can only be somebody else's.
        let wanted = self.check(state, text, loaded).map_err(Fault::BrokenFile)?;
        let is_new = !self.store.exists() && wanted.text != old;
        self.save(state, wanted, &old)?;
        let path = self.store.path().display().to_string();
        Ok(if is_new { Saved::NewFile(path) } else { Saved::Yes })
    }

    fn save(&self, state: &mut State, wanted: Wanted, old: &str) -> Result<Report, Fault> {
        if wanted.text != old {
            let is_new = !self.store.exists();
            self.store.write(&wanted.text).map_err(Fault::Store)?;
            if is_new {
                tracing::info!("configuration file created: {}", self.store.path().display());
            }
        }
        Ok(self.adopt(state, wanted))
    }

    fn check_version(&self, old: &str, if_match: Option<&str>) -> Result<(), Fault> {
        match if_match {
            Some(version) if version != "*" && version != Self::version(old) => Err(Fault::Outdated),
            _ => Ok(()),
        }
    }

    /// Whether everything in a text can be put in effect.
    fn check(&self, state: &State, text: String, loaded: Loaded) -> Result<Wanted, ConfigError> {
        let Loaded { mut config, mut warnings } = loaded;
        warnings.extend(check_streams(&self.open, &text, &config)?);
        self.overrides.apply(&mut config);
        // It was checked with the streams.
        let preloads = preload::of_config(&config).unwrap_or_default();
        let commit = self.settings.prepare(&state.config, &config).map_err(|error| error.placed_in(&text))?;
        Ok(Wanted { text, config, warnings, preloads, commit })
    }

    /// Makes a configuration that was checked the one in effect. Streams that it leaves alone are not touched.
    fn adopt(&self, state: &mut State, wanted: Wanted) -> Report {
        let Wanted { text, config, warnings, preloads, commit } = wanted;
        commit();
        let mut report = Report {
            created: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            restart_required: config::needs_restart(&self.started, &config),
            warnings,
        };
        let mut old: HashMap<&str, &StreamConfig> =
            state.config.streams.iter().map(|(name, stream)| (name.as_str(), stream)).collect();
        let mut changed = Vec::new();
        for (name, stream) in &config.streams {
            if old.remove(name.as_str()) != Some(stream) {
                changed.push((name, stream));
            }
        }
        for name in old.into_keys() {
            if self.registry.remove(name) {
                report.removed.push(name.to_owned());
            }
        }
        for (name, stream) in changed {
            match self.registry.set(name, stream.clone()) {
                Ok(Change::Created) => report.created.push(name.clone()),
                Ok(Change::Replaced | Change::Adjusted) => report.changed.push(name.clone()),
                Ok(Change::Unchanged) => {}
                Err(why) => tracing::error!(stream = name, "cannot be started: {why}"),
            }
        }
        self.registry.set_preloads(preloads);
        self.registry.events().publish(Event::Configured);
        report.removed.sort();
        let config = Arc::new(config);
        *self.current.write() = config.clone();
        let tls = config.api.tls.clone();
        *state = State { text, config, refused: None, tls };
        report
    }
}

/// Whether every source of a configuration can be one, and which of them have no effect, in words. `text` is what it
/// was read from.
///
/// # Errors
/// The first source that can't be one, with its place.
pub fn check_streams(open: &OpenSource, text: &str, config: &Config) -> Result<Vec<String>, ConfigError> {
    preload::of_config(config).map_err(|(name, why)| ConfigError::at_preload(text, &name, &why))?;
    let mut warnings = Vec::new();
    let mut left_out = 0;
    for (name, stream) in &config.streams {
        for (index, source) in stream.sources.iter().enumerate() {
            let source = open(source).map_err(|why| ConfigError::at_stream(text, name, &mask(&why)))?;
            let Some(why) = source.unsupported() else { continue };
            match (warnings.len() < MAX_WARNINGS, stream.sources.len()) {
                (false, _) => left_out += 1,
                (true, 1) => warnings.push(format!("streams.{name}: {why}")),
                (true, _) => warnings.push(format!("streams.{name}[{index}]: {why}")),
            }
        }
    }
    if left_out > 0 {
        warnings.push(format!("streams: {left_out} more sources are not supported and have no effect"));
    }
    Ok(warnings)
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Fault {
        match error {
            EditError::Broken(error) => Fault::BrokenFile(error),
            EditError::Invalid(error) => Fault::Invalid(error),
            EditError::Impossible(why) => Fault::Impossible(why),
        }
    }
}

/// A source that comes back as it was shown, credentials hidden, is the one it was.
fn unmask_sources(stream: &mut StreamConfig, old: Option<&StreamConfig>) -> Result<(), String> {
    let olds = old.map_or(&[][..], |old| old.sources.as_slice());
    for source in stream.sources.iter_mut().filter(|source| source.contains("***")) {
        if olds.contains(source) {
            continue;
        }
        match olds.iter().find(|old| mask(old) == source.as_str()) {
            Some(old) => *source = old.clone(),
            None => {
                return Err("*** in a source stands for hidden credentials, and this stream has no such source: send the \
                            credentials themselves"
                    .to_owned());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_credentials_stand_for_the_ones_that_were_shown() {
        let stream = |sources: &[&str]| StreamConfig::new(sources.iter().map(|s| (*s).to_owned()).collect());
        let old = stream(&["rtsp://u:p@a/1", "rtsp://b"]);
        let mut new = stream(&["rtsp://b", "rtsp://***@a/1"]);
        unmask_sources(&mut new, Some(&old)).unwrap();
        assert_eq!(new, stream(&["rtsp://b", "rtsp://u:p@a/1"]));
        for (mut unknown, old) in
            [(stream(&["rtsp://***@c"]), Some(&old)), (stream(&["rtsp://***@a/1"]), None)]
        {
            assert!(unmask_sources(&mut unknown, old).unwrap_err().contains("***"));
        }
    }
}
