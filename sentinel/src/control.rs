//! The half of the platform API that changes things, over the embedded database: accounts, servers, grants and sessions.

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use domain::Event;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use platform_api::objects::embedded::EmbeddedObjects;
use platform_api::{AuditSink, Control, ControlConfig, Database};
use sentinel_queue::EventAppender as _;
use sentinel_queue::log::LogAppender;
use service_kit::{Stage, Tasks};

use crate::folder::Folder;

/// Whoever owns the data folder, as an account.
const OWNER: &str = "owner@localhost";
/// Where their key is.
pub(crate) const OWNER_KEY: &str = "owner.key";
/// Where the database is.
const DATABASE: &str = "platform.db";

/// Opens the database and everything over it. Facts about changes go into the queue, as calls do.
pub(crate) async fn open(
    folder: &Folder,
    url: &str,
    queue: &LogAppender,
    tasks: &Tasks,
) -> anyhow::Result<(Control, Arc<EmbeddedObjects>)> {
    let path = folder.path(DATABASE);
    let database = Database::open_file(&path)
        .await
        .with_context(|| format!("opening {}", path.display()))?;
    let objects = EmbeddedObjects::open(database.clone())
        .await
        .context("reading servers, grants and sessions")?;
    let objects = Arc::new(objects);
    let config = ControlConfig {
        servers_url: url.to_owned(),
        ..ControlConfig::default()
    };
    let (kept, sink): (_, Arc<dyn AuditSink>) = (Arc::clone(&objects), Arc::new(QueueSink(queue.clone())));
    let control = Control::new(config, database.clone(), kept, sink, tasks);
    let before = folder.line(OWNER_KEY)?;
    let key = control
        .ensure_owner(OWNER, before.clone())
        .await
        .context("settling the owner's account")?;
    if before.as_ref() != Some(&key) {
        folder.put_line(OWNER_KEY, &key)?;
    }
    close_at_the_end(database, tasks);
    Ok((control, objects))
}

/// SQLite folds its log into the file when it is closed.
fn close_at_the_end(database: Database, tasks: &Tasks) {
    let stop = tasks.shutdown(Stage::Admin);
    tasks.spawn(Stage::Admin, "platform database", async move {
        stop.requested().await;
        database.close().await;
        Ok(())
    });
}

/// Appends facts to the queue: then they survive this process.
struct QueueSink(LogAppender);

impl fmt::Debug for QueueSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueSink")
    }
}

impl AuditSink for QueueSink {
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), anyhow::Error>> {
        async move { self.0.append(&events).await.context("appending facts to the queue") }.boxed()
    }
}
