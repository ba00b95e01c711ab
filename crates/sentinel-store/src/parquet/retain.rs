//! Retention: days that ended too long ago leave as whole files.

use std::time::Duration;

use domain::Timestamp;

use super::flush::FlushError;
use super::manifest::{Edit, FileEntry};
use super::shared::Shared;

const DAY_SECONDS: i64 = 86_400;

/// Removes what is older than the configured retention.
pub(super) fn run(shared: &Shared) -> Result<(), FlushError> {
    let Some(retention) = shared.config.retention else {
        return Ok(());
    };
    let remove = outdated(&shared.view.load().manifest.files, shared.now(), retention);
    if remove.is_empty() {
        return Ok(());
    }
    tracing::info!(files = remove.len(), "removing files older than the retention");
    shared.commit(
        &Edit {
            remove,
            ..Edit::default()
        },
        |view| view,
    )
}

/// Files all of whose rows are older than the retention.
fn outdated(files: &[FileEntry], now: Timestamp, retention: Duration) -> Vec<String> {
    let first = now.minus(retention);
    let over = |day: i32| Timestamp::from_seconds((i64::from(day) + 1) * DAY_SECONDS) <= first;
    files
        .iter()
        .filter(|file| over(file.day))
        .map(|file| file.name.clone())
        .collect()
}
