//! Objects in Kubernetes: the custom resources that operators act on.
//!
//! Writers of the platform wait for each other in the database, as they do for everything else, so that a quota holds; an object somebody
//! changed by other means meanwhile is told by its resource version. The fact of a change is kept in the same transaction, which ends after
//! the API server has taken the object: what was changed is told, at worst as a change that is not known to have been made.

use std::fmt;

use crds::{API_VERSION, GROUP, VERSION};
use domain::Timestamp;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::{ApiResource, ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use service_kit::{Stage, Tasks};
use tokio::sync::watch;

use super::{AuditFact, Expected, Object, ObjectError, ObjectKind, Objects, Query, Write};
use crate::audit;
use crate::database::{Database, DatabaseError};

/// Who made an object through the platform.
const OWNER: &str = "platform.mcpruntime.org/owner";
/// When it was last changed through the platform.
const UPDATED: &str = "platform.mcpruntime.org/updated-at";
/// Objects the API server gives at once.
const PAGE_MAX: u32 = 500;

/// Objects of an API server.
#[derive(Clone)]
pub struct KubernetesObjects {
    client: Client,
    database: Database,
    changes: watch::Sender<i64>,
}

impl fmt::Debug for KubernetesObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesObjects").finish_non_exhaustive()
    }
}

impl KubernetesObjects {
    /// Over a client that may read and write the three kinds, and read and make namespaces. Facts go through `database`.
    pub fn new(client: Client, database: Database, tasks: &Tasks) -> Self {
        let objects = Self {
            client,
            database,
            changes: watch::Sender::new(0),
        };
        objects.follow(tasks);
        objects
    }

    /// With the account of the pod, or of the kubeconfig on a developer's machine.
    pub async fn connect(database: Database, tasks: &Tasks) -> Result<Self, ObjectError> {
        let client = Client::try_default().await.map_err(failed)?;
        Ok(Self::new(client, database, tasks))
    }

    /// Notices what anybody changes, as a task of the query stage.
    fn follow(&self, tasks: &Tasks) {
        let shutdown = tasks.shutdown(Stage::Query);
        let changes = self.changes.clone();
        let kinds = [ObjectKind::Server, ObjectKind::Grant, ObjectKind::Session];
        let watches = kinds.map(|kind| {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource(kind));
            watcher(api, watcher::Config::default()).default_backoff().boxed()
        });
        tasks.spawn(Stage::Query, "objects", async move {
            let mut seen = futures::stream::select_all(watches);
            loop {
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    next = seen.next() => match next {
                        Some(Ok(_)) => changes.send_modify(|count| *count += 1),
                        Some(Err(error)) => tracing::debug!(%error, "following objects is taken up again"),
                        None => return Ok(()),
                    },
                }
            }
        });
    }

    fn everywhere(&self, kind: ObjectKind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(kind))
    }

    fn within(&self, kind: ObjectKind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }

    async fn find_now(&self, kind: ObjectKind, namespace: String, name: String) -> Result<Option<Object>, ObjectError> {
        let found = self.within(kind, &namespace).get_opt(&name).await.map_err(failed)?;
        Ok(found.map(|found| object(kind, found)))
    }

    async fn all(&self, kind: ObjectKind, api: &Api<DynamicObject>) -> Result<Vec<Object>, ObjectError> {
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE_MAX);
        loop {
            let page = api.list(&params).await.map_err(failed)?;
            found.extend(page.items.into_iter().map(|item| object(kind, item)));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(found),
            }
        }
    }

    async fn list_now(&self, query: Query) -> Result<Vec<Object>, ObjectError> {
        let mut found = Vec::new();
        match &query.namespaces {
            None => found = self.all(query.kind, &self.everywhere(query.kind)).await?,
            Some(namespaces) => {
                for namespace in namespaces {
                    found.extend(self.all(query.kind, &self.within(query.kind, namespace)).await?);
                }
            }
        }
        found.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        if let Some((namespace, name)) = &query.after {
            found.retain(|object| (&object.namespace, &object.name) > (namespace, name));
        }
        found.truncate(query.limit as usize);
        Ok(found)
    }

    async fn put_now(&self, write: Write, fact: AuditFact) -> Result<Object, ObjectError> {
        let mut transaction = self.database.write().await?;
        let api = self.within(write.kind, &write.namespace);
        let before = api.get_opt(&write.name).await.map_err(failed)?;
        let revision = before.as_ref().map(|before| revision(&before.metadata));
        let fits = match write.expected {
            Expected::Absent => revision.is_none(),
            Expected::Revision(expected) => revision == Some(expected),
            Expected::Anything => true,
        };
        if !fits {
            return Err(ObjectError::Conflict { revision });
        }
        if before.is_none() {
            self.check_quota(&write).await?;
        }
        let wanted = wanted(&write, before.as_ref());
        let params = PostParams::default();
        let made = match before {
            Some(_) => api.replace(&write.name, &params, &wanted).await,
            None => match api.create(&params, &wanted).await {
                Err(error) if is(&error, 404) => {
                    self.make_namespace(&write.namespace).await?;
                    api.create(&params, &wanted).await
                }
                made => made,
            },
        };
        let made = match made {
            Err(error) if is(&error, 409) => {
                let now = api.get_opt(&write.name).await.map_err(failed)?;
                return Err(ObjectError::Conflict {
                    revision: now.map(|now| self::revision(&now.metadata)),
                });
            }
            made => made.map_err(failed)?,
        };
        audit::record(&mut transaction, fact.0, write.now).await?;
        transaction.commit().await.map_err(DatabaseError::Query)?;
        Ok(object(write.kind, made))
    }

    async fn check_quota(&self, write: &Write) -> Result<(), ObjectError> {
        let Some(quota) = write.quota else { return Ok(()) };
        let all = self.all(write.kind, &self.everywhere(write.kind)).await?;
        let owned = all.iter().filter(|object| object.owner == write.owner).count();
        let count = u32::try_from(owned).unwrap_or(u32::MAX);
        if count >= quota.max {
            return Err(ObjectError::Quota { count, max: quota.max });
        }
        Ok(())
    }

    /// A namespace for what is published there first. Quotas and rules of it are for whoever runs the cluster.
    async fn make_namespace(&self, name: &str) -> Result<(), ObjectError> {
        let kind = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            plural: "namespaces".to_owned(),
        };
        let mut namespace = DynamicObject::new(name, &kind);
        namespace.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), "mcp-runtime".to_owned())].into());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        match api.create(&PostParams::default(), &namespace).await {
            Err(error) if !is(&error, 409) => Err(failed(error)),
            _ => Ok(()),
        }
    }

    async fn remove_now(&self, target: Object, fact: AuditFact, now: Timestamp) -> Result<Vec<Object>, ObjectError> {
        let mut transaction = self.database.write().await?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: Some(target.revision.to_string()),
            }),
            ..DeleteParams::default()
        };
        let api = self.within(target.kind, &target.namespace);
        if let Err(error) = api.delete(&target.name, &params).await {
            if !is(&error, 409) && !is(&error, 404) {
                return Err(failed(error));
            }
            let now = api.get_opt(&target.name).await.map_err(failed)?;
            return Err(ObjectError::Conflict {
                revision: now.map(|now| revision(&now.metadata)),
            });
        }
        let mut gone = vec![target.clone()];
        for kind in [ObjectKind::Grant, ObjectKind::Session] {
            let api = self.within(kind, &target.namespace);
            for other in self.all(kind, &api).await? {
                if other.depends_on(&target) {
                    match api.delete(&other.name, &DeleteParams::default()).await {
                        Err(error) if !is(&error, 404) => return Err(failed(error)),
                        _ => gone.push(other),
                    }
                }
            }
        }
        audit::record(&mut transaction, fact.0, now).await?;
        transaction.commit().await.map_err(DatabaseError::Query)?;
        Ok(gone)
    }
}

fn resource(kind: ObjectKind) -> ApiResource {
    let plural = match kind {
        ObjectKind::Server => "mcpservers",
        ObjectKind::Grant => "mcpaccessgrants",
        ObjectKind::Session => "mcpagentsessions",
    };
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: kind.as_str().to_owned(),
        plural: plural.to_owned(),
    }
}

/// The object to be sent: what is there, with what is written put in its place.
fn wanted(write: &Write, before: Option<&DynamicObject>) -> DynamicObject {
    let mut wanted = DynamicObject::new(&write.name, &resource(write.kind)).within(&write.namespace);
    let mut annotations = before
        .and_then(|before| before.metadata.annotations.clone())
        .unwrap_or_default();
    annotations.entry(OWNER.to_owned()).or_insert_with(|| write.owner.clone());
    annotations.insert(UPDATED.to_owned(), write.now.to_string());
    wanted.metadata.annotations = Some(annotations);
    wanted.metadata.labels = Some(write.labels.clone());
    if let Some(before) = before {
        wanted.metadata.resource_version.clone_from(&before.metadata.resource_version);
        wanted.metadata.finalizers.clone_from(&before.metadata.finalizers);
        wanted.metadata.owner_references.clone_from(&before.metadata.owner_references);
    }
    wanted.data = json!({"spec": write.spec});
    wanted
}

/// The resource version, which API servers promise to be a number that grows.
fn revision(metadata: &ObjectMeta) -> i64 {
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    version.parse().unwrap_or_default()
}

fn object(kind: ObjectKind, found: DynamicObject) -> Object {
    let DynamicObject { metadata, mut data, .. } = found;
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
    let created = metadata.creation_timestamp.as_ref().map(|created| created.0.to_string());
    let created_at = created.and_then(|text| Timestamp::parse(&text).ok()).unwrap_or_default();
    let updated = annotation(UPDATED).and_then(|text| Timestamp::parse(&text).ok());
    Object {
        kind,
        revision: revision(&metadata),
        generation: metadata.generation.unwrap_or(1),
        owner: annotation(OWNER).unwrap_or_default(),
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        spec: data.get_mut("spec").map(Value::take).unwrap_or_default(),
        status: data.get_mut("status").map(Value::take),
        created_at,
        updated_at: updated.unwrap_or(created_at),
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// What the API server refused for what it says is told to whoever wrote it; the rest is a fault of ours.
fn failed(error: kube::Error) -> ObjectError {
    match &error {
        kube::Error::Api(status) if status.code == 422 => ObjectError::Refused(status.message.clone()),
        _ => ObjectError::Failed(Box::new(error)),
    }
}

impl Objects for KubernetesObjects {
    fn find(&self, kind: ObjectKind, namespace: &str, name: &str) -> BoxFuture<'_, Result<Option<Object>, ObjectError>> {
        Box::pin(self.find_now(kind, namespace.to_owned(), name.to_owned()))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>> {
        Box::pin(self.list_now(query))
    }

    fn put(&self, write: Write, fact: AuditFact) -> BoxFuture<'_, Result<Object, ObjectError>> {
        Box::pin(self.put_now(write, fact))
    }

    fn remove(&self, object: &Object, fact: AuditFact, now: Timestamp) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>> {
        Box::pin(self.remove_now(object.clone(), fact, now))
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }
}
