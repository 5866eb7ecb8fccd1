//! How many files and sockets the process may have open, and how many of them strangers may use.

/// The soft limit is 1024 in most shells and services, and every connection, camera and file counts. The hard one is
/// there to be used; more than this is never needed.
const WANTED: u64 = 65_536;
/// What is kept for cameras, files and whatever else: a quarter.
const SHARE_OF_STRANGERS: (usize, usize) = (3, 4);

/// Raises the process's limit of open files as far as it may, and gives back what it is now. `None` where the system
/// does not tell or has none.
pub fn raise_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        let current = now.current?;
        let wanted = now.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
        if wanted <= current {
            return Some(current);
        }
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum }) {
            Ok(()) => Some(wanted),
            Err(error) => {
                tracing::debug!(%error, current, wanted, "the limit of open files cannot be raised");
                Some(current)
            }
        }
    }
    #[cfg(not(unix))]
    None
}

/// At most `connections`, but never so many that cameras and files find none left of `open_files`.
pub(super) fn share(connections: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else { return connections };
    let (part, whole) = SHARE_OF_STRANGERS;
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    connections.min(open_files / whole * part).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_cameras() {
        assert_eq!(share(8192, None), 8192);
        assert_eq!(share(8192, Some(65_536)), 8192);
        assert_eq!(share(8192, Some(1024)), 768);
        assert_eq!(share(8192, Some(0)), 1);
        assert_eq!(share(8192, Some(u64::MAX)), 8192);
    }

    #[test]
    fn the_limit_is_what_the_system_says_afterwards() {
        let raised = raise_limit();
        assert_eq!(raise_limit(), raised, "raising it again changes nothing");
        assert!(raised.is_none_or(|limit| limit > 0));
    }
}
