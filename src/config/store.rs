//! The configuration's file: read whole, replaced whole, so that no crash ever leaves half of one.

use super::load::{ConfigError, read_text};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One configuration file, which may not be there yet.
#[derive(Debug)]
pub struct Store {
    /// As it was given.
    named: PathBuf,
    path: PathBuf,
    initial: Option<String>,
}

/// What tells that a file was changed, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A file that took the place of another one is another one.
    identity: (u64, u64),
}

impl Stamp {
    /// Of any file; `None` without one.
    pub fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            identity: identity(&metadata),
        })
    }
}

/// Why the file could not be written. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {why}", .path.display())]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// There is no space left.
    pub no_space: bool,
    why: String,
}

impl Store {
    /// A file that is there, and must stay there.
    pub fn at(path: &Path) -> Store {
        Store { named: path.to_owned(), path: absolute(path), initial: None }
    }

    /// A file that may be missing: then it counts as `initial`, and the first change makes it.
    pub fn or_initial(path: &Path, initial: &str) -> Store {
        Store { named: path.to_owned(), path: absolute(path), initial: Some(initial.to_owned()) }
    }

    /// Where the file is or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as it was given.
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// Whether there is a file.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The text, or the initial one.
    ///
    /// # Errors
    /// It can't be read, is too large or no UTF-8.
    pub fn read(&self) -> Result<String, ConfigError> {
        match &self.initial {
            Some(initial) if matches!(fs::metadata(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound) => {
                Ok(initial.clone())
            }
            _ => read_text(&self.path),
        }
    }

    /// What the file looks like from outside; `None` without one.
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.path)
    }

    /// Replaces the file's content, on the disk when this returns. Not to be called twice at the same time.
    ///
    /// The text goes into a new file beside it, which then takes its name; mode and owner are kept where the system
    /// lets us, and a symbolic link stays one.
    ///
    /// # Errors
    /// The disk is full, or file or folder are read-only. The file is then as it was.
    pub fn write(&self, text: &str) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError {
            path: self.path.clone(),
            no_space: matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            why: reason(&error),
        };
        let target = resolve(&self.path).map_err(failed)?;
        let old = match fs::metadata(&target) {
            Ok(metadata) if metadata.permissions().readonly() => {
                return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only")));
            }
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let new = target.with_file_name(format!(".{name}.new"));
        let replaced = write_new(&new, text, old.as_ref()).and_then(|()| {
            fs::rename(&new, &target).or_else(|error| match error.kind() {
                // A single file that was mounted into a container can't be replaced, only written to.
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => overwrite(&target, text),
                _ => Err(error),
            })
        });
        if let Err(error) = replaced {
            // What is left of it is of no use; whether it can be removed changes nothing.
            let _ = fs::remove_file(&new);
            return Err(failed(error));
        }
        // Only where it was overwritten in place it is still there.
        let _ = fs::remove_file(&new);
        // The new name is in the folder; some file systems can't make a folder durable on its own.
        let _ = target
            .parent()
            .map(File::open)
            .transpose()
            .and_then(|folder| folder.map_or(Ok(()), |f| f.sync_all()));
        Ok(())
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The file that a chain of symbolic links ends at, which may be missing.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..32 {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn write_new(path: &Path, text: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    // Left behind by a process that was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // It holds passwords: nobody else may read it, unless the old file says so.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Only root may give files away; to another group of one's own anybody may.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()))
                .or_else(|_| fchown(&file, None, Some(old.gid())));
        }
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()
}

/// Where no file can take the other's place.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::read(path)?;
    let write = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    write(text.as_bytes()).inspect_err(|_| {
        // The space of the old bytes is there still.
        if let Err(error) = write(&old) {
            tracing::error!("{} could not be put back as it was: {error}", path.display());
        }
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space is left on the disk".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotFound => "its folder is not there".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    // Seconds and nanoseconds are small enough to share a number.
    (
        metadata.ino(),
        (metadata.ctime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec() as u64),
    )
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_made_by_the_first_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::or_initial(&folder.path().join("s.yaml"), "initial");
        assert_eq!((store.read().unwrap().as_str(), store.stamp()), ("initial", None));
        store.write("new").unwrap();
        assert_eq!(store.read().unwrap(), "new");
        assert!(store.stamp().is_some());
        fs::remove_file(store.path()).unwrap();
        assert!(Store::at(store.path()).read().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn mode_and_symbolic_link_are_kept_and_nothing_is_left_behind() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.yaml"), folder.path().join("link.yaml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real.yaml", &link).unwrap();
        fs::write(folder.path().join(".real.yaml.new"), "of a process that was killed").unwrap();
        let store = Store::at(&link);
        let before = store.stamp();
        store.write("new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_ne!(store.stamp(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let fresh = Store::or_initial(&folder.path().join("fresh.yaml"), "");
        fresh.write("x").unwrap();
        assert_eq!(fs::metadata(fresh.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_read_only_file_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.yaml");
        fs::write(&file, "old").unwrap();
        let mut permissions = fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&file, permissions).unwrap();
        let error = Store::at(&file).write("new").unwrap_err();
        assert!(error.to_string().contains("read-only") && !error.no_space, "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        let lost = Store::at(&folder.path().join("none/s.yaml")).write("new").unwrap_err();
        assert!(lost.to_string().contains("folder is not there"), "{lost}");
    }

    #[test]
    fn writing_in_place_leaves_exactly_the_new_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.yaml");
        fs::write(&file, "a longer old text").unwrap();
        overwrite(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }
}
