//! A policy that comes as a file: looked at often, read when it changed, and put in force when it can be read.
//!
//! A file that is missing, empty or wrong leaves the last good policy in force until that is too old; then everything is refused. Before
//! the first good one everything is refused, too.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use domain::policy::{Document, DocumentError};
use service_kit::{Stage, Tasks};

use super::intake::Intake;

/// How often the file is looked at: a change must be in force within a second.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Larger documents are no policies.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// Why a file was not put in force.
#[derive(Debug, thiserror::Error)]
enum ReadFault {
    #[error("reading the policy file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the policy file has {0} bytes, at most {BYTES_MAX} are read")]
    TooLarge(u64),
    #[error("taking in the policy file")]
    Document(#[source] DocumentError),
}

/// Time and size: enough to see a change.
type Picture = Option<(SystemTime, u64)>;

struct Watcher {
    path: PathBuf,
    intake: Intake,
    seen: Picture,
    /// Revision that the file holds; `None` while it cannot be read.
    holds: Option<String>,
    is_first: bool,
}

/// Takes in a file, now and whenever it changes.
pub(super) async fn watch(path: PathBuf, intake: Intake, tasks: &Tasks) {
    let mut watcher = Watcher {
        path,
        intake,
        seen: None,
        holds: None,
        is_first: true,
    };
    watcher.look().await;
    let stop = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "policy file", async move {
        while stop.or(tokio::time::sleep(LOOK_PAUSE)).await.is_some() {
            watcher.look().await;
        }
        Ok(())
    });
}

impl Watcher {
    async fn look(&mut self) {
        let picture = tokio::fs::metadata(&self.path).await.ok();
        let picture = picture.and_then(|facts| Some((facts.modified().ok()?, facts.len())));
        if let Some(holds) = &self.holds
            && picture == self.seen
            && picture.is_some()
        {
            return self.intake.confirm(holds);
        }
        let is_news = picture != self.seen || self.is_first;
        self.is_first = false;
        self.seen = picture;
        match self.read().await {
            Ok(document) => {
                self.holds = Some(document.revision.clone());
                self.intake.offer(document);
            }
            Err(fault) => {
                self.holds = None;
                self.intake.fail("file", &fault, is_news);
            }
        }
    }

    async fn read(&self) -> Result<Document, ReadFault> {
        let bytes = self.seen.map_or(0, |(_, bytes)| bytes);
        if bytes > BYTES_MAX as u64 {
            return Err(ReadFault::TooLarge(bytes));
        }
        let text = tokio::fs::read(&self.path).await.map_err(|source| ReadFault::File {
            path: self.path.clone(),
            source,
        })?;
        parse(&text).map_err(ReadFault::Document)
    }
}

/// Reads a document; entries that cannot be read are left out and told.
pub(super) fn parse(text: &[u8]) -> Result<Document, DocumentError> {
    let (document, faults) = Document::parse(text)?;
    for fault in &faults {
        tracing::error!(
            place = fault.place,
            fault = fault.message,
            "an entry of the policy is left out"
        );
    }
    Ok(document)
}
