//! Objects in the embedded database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::Timestamp;
use futures::future::BoxFuture;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tokio::sync::watch;

use super::{AuditFact, Expected, Object, ObjectError, ObjectKind, Objects, Query, Write};
use crate::audit;
use crate::database::{Database, DatabaseError, Transaction, time};
use crate::identity::fresh_id;

/// Longest wait for a write to be in force. Whoever follows them takes milliseconds.
const IN_FORCE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Objects in rows of a [`Database`].
///
/// What is (as against what is wanted) is kept in memory: the one process that runs the servers tells it again after every start.
#[derive(Debug)]
pub struct EmbeddedObjects {
    database: Database,
    revision: watch::Sender<i64>,
    /// The last write that whoever follows them has put in force; absent while nobody does.
    in_force: watch::Sender<Option<i64>>,
    statuses: Mutex<HashMap<String, Value>>,
}

impl EmbeddedObjects {
    pub async fn open(database: Database) -> Result<Self, DatabaseError> {
        let row = sqlx::query("SELECT revision FROM object_revision WHERE id = 1")
            .fetch_one(database.pool())
            .await?;
        let revision = watch::Sender::new(row.try_get("revision")?);
        Ok(Self {
            database,
            revision,
            in_force: watch::Sender::new(None),
            statuses: Mutex::default(),
        })
    }

    /// Notes that everything written up to a revision is in force. From the first time on, writes return only when they are: what was
    /// granted works with the next call, and what was revoked does not.
    pub fn note_in_force(&self, revision: i64) {
        self.in_force.send_replace(Some(revision));
    }

    /// Tells of a write, and waits until it is in force. One that is late is kept all the same.
    async fn written(&self, revision: i64) {
        self.revision.send_replace(revision);
        let mut in_force = self.in_force.subscribe();
        let reached = in_force.wait_for(|reached| reached.is_none_or(|reached| reached >= revision));
        if tokio::time::timeout(IN_FORCE_WAIT_MAX, reached).await.is_err() {
            tracing::warn!(revision, "a change is kept, but not in force yet");
        }
    }

    /// Notes how an object is doing. Those that are gone are forgotten with their next removal.
    pub fn set_status(&self, uid: &str, status: Value) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(uid.to_owned(), status);
    }

    fn with_status(&self, object: Object) -> Object {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let status = statuses.get(&object.uid).cloned();
        Object { status, ..object }
    }

    async fn find_now(&self, kind: ObjectKind, namespace: String, name: String) -> Result<Option<Object>, DatabaseError> {
        let row = sqlx::query("SELECT * FROM objects WHERE kind = $1 AND namespace = $2 AND name = $3")
            .bind(kind.as_str())
            .bind(namespace)
            .bind(name)
            .fetch_optional(self.database.pool())
            .await?;
        let found = row.as_ref().map(object).transpose()?;
        Ok(found.map(|object| self.with_status(object)))
    }

    async fn list_now(&self, query: Query) -> Result<Vec<Object>, DatabaseError> {
        let (after_namespace, after_name) = query.after.unwrap_or_default();
        // Namespaces go in as one text: a list has no form that both databases understand.
        let anywhere = i64::from(query.namespaces.is_none());
        let within = format!(",{},", query.namespaces.unwrap_or_default().join(","));
        let rows = sqlx::query(
            "SELECT * FROM objects WHERE kind = $1 AND ($2 = 1 OR $3 LIKE '%,' || namespace || ',%') \
             AND (namespace > $4 OR (namespace = $4 AND name > $5)) ORDER BY namespace, name LIMIT $6",
        )
        .bind(query.kind.as_str())
        .bind(anywhere)
        .bind(within)
        .bind(after_namespace)
        .bind(after_name)
        .bind(i64::from(query.limit))
        .fetch_all(self.database.pool())
        .await?;
        rows.iter()
            .map(|row| object(row).map(|object| self.with_status(object)))
            .collect()
    }

    async fn put_now(&self, write: Write, fact: AuditFact) -> Result<Object, ObjectError> {
        let mut transaction = self.database.write().await?;
        let before = locked(&mut transaction, &write).await?;
        check(&mut transaction, &write, before.as_ref()).await?;
        let revision = next_revision(&mut transaction).await?;
        let now = Timestamp::from_millis(write.now.millis());
        let after = match before {
            Some(before) => Object {
                revision,
                generation: before.generation + i64::from(before.spec != write.spec),
                labels: write.labels,
                spec: write.spec,
                updated_at: now,
                ..before
            },
            None => Object {
                kind: write.kind,
                namespace: write.namespace,
                name: write.name,
                uid: fresh_id(),
                revision,
                generation: 1,
                owner: write.owner,
                labels: write.labels,
                spec: write.spec,
                status: None,
                created_at: now,
                updated_at: now,
            },
        };
        keep(&mut transaction, &after).await?;
        audit::record(&mut transaction, fact.0, write.now).await?;
        transaction.commit().await.map_err(DatabaseError::Query)?;
        self.written(revision).await;
        Ok(self.with_status(after))
    }

    async fn remove_now(&self, target: Object, fact: AuditFact, now: Timestamp) -> Result<Vec<Object>, ObjectError> {
        let mut transaction = self.database.write().await?;
        let mut gone = Vec::new();
        let rows = sqlx::query("SELECT * FROM objects WHERE namespace = $1")
            .bind(target.namespace.as_str())
            .fetch_all(&mut *transaction)
            .await
            .map_err(DatabaseError::Query)?;
        for row in &rows {
            let other = object(row)?;
            if other.uid == target.uid || other.depends_on(&target) {
                gone.push(other);
            }
        }
        match gone.iter().find(|object| object.uid == target.uid) {
            Some(current) if current.revision == target.revision => {}
            other => {
                return Err(ObjectError::Conflict {
                    revision: other.map(|object| object.revision),
                });
            }
        }
        for object in &gone {
            sqlx::query("DELETE FROM objects WHERE uid = $1")
                .bind(object.uid.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(DatabaseError::Query)?;
        }
        let revision = next_revision(&mut transaction).await?;
        audit::record(&mut transaction, fact.0, now).await?;
        transaction.commit().await.map_err(DatabaseError::Query)?;
        self.written(revision).await;
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        for object in &gone {
            statuses.remove(&object.uid);
        }
        Ok(gone)
    }
}

async fn locked(transaction: &mut Transaction, write: &Write) -> Result<Option<Object>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM objects WHERE kind = $1 AND namespace = $2 AND name = $3")
        .bind(write.kind.as_str())
        .bind(write.namespace.as_str())
        .bind(write.name.as_str())
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(object).transpose()
}

async fn check(transaction: &mut Transaction, write: &Write, before: Option<&Object>) -> Result<(), ObjectError> {
    let revision = before.map(|object| object.revision);
    let fits = match write.expected {
        Expected::Absent => before.is_none(),
        Expected::Revision(expected) => revision == Some(expected),
        Expected::Anything => true,
    };
    if !fits {
        return Err(ObjectError::Conflict { revision });
    }
    let (None, Some(quota)) = (before, write.quota) else {
        return Ok(());
    };
    let row = sqlx::query("SELECT count(*) AS owned FROM objects WHERE kind = $1 AND owner = $2")
        .bind(write.kind.as_str())
        .bind(write.owner.as_str())
        .fetch_one(&mut **transaction)
        .await
        .map_err(DatabaseError::Query)?;
    let owned: i64 = row.try_get("owned").map_err(DatabaseError::Query)?;
    let count = u32::try_from(owned).unwrap_or(u32::MAX);
    if count >= quota.max {
        return Err(ObjectError::Quota { count, max: quota.max });
    }
    Ok(())
}

async fn next_revision(transaction: &mut Transaction) -> Result<i64, DatabaseError> {
    let row = sqlx::query("UPDATE object_revision SET revision = revision + 1 WHERE id = 1 RETURNING revision")
        .fetch_one(&mut **transaction)
        .await?;
    Ok(row.try_get("revision")?)
}

async fn keep(transaction: &mut Transaction, object: &Object) -> Result<(), DatabaseError> {
    let text = |what, value: Result<String, serde_json::Error>| value.map_err(|source| DatabaseError::Damaged { what, source });
    sqlx::query(
        "INSERT INTO objects (kind, namespace, name, uid, revision, generation, owner, labels, spec, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (kind, namespace, name) DO UPDATE SET \
         revision = excluded.revision, generation = excluded.generation, labels = excluded.labels, spec = excluded.spec, \
         updated_at = excluded.updated_at",
    )
    .bind(object.kind.as_str())
    .bind(object.namespace.as_str())
    .bind(object.name.as_str())
    .bind(object.uid.as_str())
    .bind(object.revision)
    .bind(object.generation)
    .bind(object.owner.as_str())
    .bind(text("labels", serde_json::to_string(&object.labels))?)
    .bind(text("a spec", serde_json::to_string(&object.spec))?)
    .bind(object.created_at.millis())
    .bind(object.updated_at.millis())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn object(row: &AnyRow) -> Result<Object, DatabaseError> {
    let damaged = |what| move |source| DatabaseError::Damaged { what, source };
    let labels: String = row.try_get("labels")?;
    let spec: String = row.try_get("spec")?;
    let kind: String = row.try_get("kind")?;
    Ok(Object {
        kind: match kind.as_str() {
            "MCPAccessGrant" => ObjectKind::Grant,
            "MCPAgentSession" => ObjectKind::Session,
            _ => ObjectKind::Server,
        },
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        uid: row.try_get("uid")?,
        revision: row.try_get("revision")?,
        generation: row.try_get("generation")?,
        owner: row.try_get("owner")?,
        labels: serde_json::from_str(&labels).map_err(damaged("labels"))?,
        spec: serde_json::from_str(&spec).map_err(damaged("a spec"))?,
        status: None,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

impl From<DatabaseError> for ObjectError {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl Objects for EmbeddedObjects {
    fn find(&self, kind: ObjectKind, namespace: &str, name: &str) -> BoxFuture<'_, Result<Option<Object>, ObjectError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Box::pin(async move { Ok(self.find_now(kind, namespace, name).await?) })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>> {
        Box::pin(async move { Ok(self.list_now(query).await?) })
    }

    fn put(&self, write: Write, fact: AuditFact) -> BoxFuture<'_, Result<Object, ObjectError>> {
        Box::pin(self.put_now(write, fact))
    }

    fn remove(&self, object: &Object, fact: AuditFact, now: Timestamp) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>> {
        Box::pin(self.remove_now(object.clone(), fact, now))
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }
}
