//! Where the completeness ledger outlives the process. It is a record for people: without it events flow all the same.

use std::path::PathBuf;

use service_kit::error::Chain;

use crate::ledger::Ledger;

#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    unfinished: PathBuf,
}

impl LedgerFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            unfinished: path.with_extension("tmp"),
            path,
        }
    }

    /// What the process before has left; `None`: nothing that can be read.
    pub(crate) async fn read(&self) -> Option<Ledger> {
        let bytes = match tokio::fs::read(&self.path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the completeness ledger cannot be read; it begins anew");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                tracing::warn!(file = %self.path.display(), %error, "the completeness ledger is damaged; it begins anew");
            })
            .ok()
    }

    /// Replaces it as a whole; `false`: it is as it was.
    pub(crate) async fn write(&self, ledger: &Ledger) -> bool {
        let write = async {
            let bytes = serde_json::to_vec(ledger)?;
            tokio::fs::write(&self.unfinished, bytes).await?;
            tokio::fs::rename(&self.unfinished, &self.path).await
        };
        match write.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), error = %Chain(&error), "the completeness ledger cannot be written; the queue keeps its events until it can");
                false
            }
        }
    }
}
