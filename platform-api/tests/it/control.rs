//! What tests of the control half share: an API over a database in a temporary folder, with people, teams and a sink for facts.

use std::sync::{Arc, Mutex};

use axum::response::Response;
use domain::Event;
use futures::future::BoxFuture;
use platform_api::objects::Objects;
use platform_api::objects::embedded::EmbeddedObjects;
use platform_api::{Api, AuditSink, Control, ControlConfig, Database};
use serde_json::{Value, json};
use service_kit::Tasks;

use crate::world::{DEADLINE, Store, World, config, json_body, system};

pub(crate) const ROOT: &str = "root@example.com";
/// Everybody's, where it matters not whose.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Facts as the queue would get them.
#[derive(Debug, Default)]
pub(crate) struct Facts(Mutex<Vec<Event>>);

impl AuditSink for Facts {
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), anyhow::Error>> {
        self.0.lock().unwrap().extend(events);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// An API with accounts and objects.
pub(crate) struct Platform {
    pub(crate) world: World,
    pub(crate) facts: Arc<Facts>,
    pub(crate) objects: Arc<EmbeddedObjects>,
    /// Token of an administrator.
    pub(crate) root: String,
    _folder: tempfile::TempDir,
}

impl Platform {
    pub(crate) async fn new() -> Self {
        Self::with(ControlConfig::default()).await
    }

    pub(crate) async fn with(control: ControlConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&crate::database::fresh(&folder)).await.unwrap();
        Self::over(database, folder, control).await
    }

    pub(crate) async fn over(database: Database, folder: tempfile::TempDir, config_of_control: ControlConfig) -> Self {
        let objects = Arc::new(EmbeddedObjects::open(database.clone()).await.unwrap());
        let kept: Arc<dyn Objects> = Arc::<EmbeddedObjects>::clone(&objects);
        Self {
            objects,
            ..Self::over_objects(database, folder, config_of_control, kept).await
        }
    }

    /// Over whatever keeps objects.
    pub(crate) async fn over_objects(
        database: Database,
        folder: tempfile::TempDir,
        config_of_control: ControlConfig,
        kept: Arc<dyn Objects>,
    ) -> Self {
        let running = Tasks::for_test();
        let tasks = running.tasks();
        let facts = Arc::new(Facts::default());
        let objects = Arc::new(EmbeddedObjects::open(database.clone()).await.unwrap());
        let sink: Arc<dyn AuditSink> = Arc::<Facts>::clone(&facts);
        let control = Control::new(config_of_control, database, kept, sink, &tasks);
        control.ensure_admin(ROOT, PASSWORD.to_owned()).await.unwrap();
        let store = Arc::new(Store::default());
        let reader: Arc<dyn sentinel_store::Reader> = Arc::<Store>::clone(&store);
        let api = Api::with_control(config(), reader, system(), control, &tasks);
        let world = World {
            app: platform_api::router(api),
            store,
            running,
        };
        let mut platform = Self {
            world,
            facts,
            objects,
            root: String::new(),
            _folder: folder,
        };
        platform.root = platform.login(ROOT).await;
        platform
    }

    pub(crate) async fn login(&self, email: &str) -> String {
        let (status, answer) = self
            .ask(
                "POST",
                "/api/v1/auth/login",
                None,
                &json!({"email": email, "password": PASSWORD}),
            )
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn send(&self, method: &str, uri: &str, token: Option<&str>, body: &Value) -> Response {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.world.call(method, uri, token, &text).await
    }

    pub(crate) async fn ask(&self, method: &str, uri: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let response = self.send(method, uri, token, body).await;
        (response.status().as_u16(), json_body(response).await)
    }

    /// A request that must work.
    pub(crate) async fn done(&self, method: &str, uri: &str, token: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, uri, Some(token), &body).await;
        assert!((200..300).contains(&status), "{method} {uri}: {status} {answer}");
        answer
    }

    /// An account in teams, logged in.
    pub(crate) async fn person(&self, email: &str, teams: &[(&str, &str)]) -> String {
        self.done(
            "POST",
            "/api/v1/users",
            &self.root,
            json!({"email": email, "password": PASSWORD}),
        )
        .await;
        for (slug, role) in teams {
            let (status, _) = self
                .ask(
                    "GET",
                    &format!("/api/v1/runtime/teams/{slug}"),
                    Some(&self.root),
                    &Value::Null,
                )
                .await;
            if status == 404 {
                self.done("POST", "/api/v1/runtime/teams", &self.root, json!({"slug": slug}))
                    .await;
            }
            let body = json!({"user": email, "role": role});
            self.done("POST", &format!("/api/v1/runtime/teams/{slug}/members"), &self.root, body)
                .await;
        }
        self.login(email).await
    }

    /// Waits for a fact of this action, and gives it.
    pub(crate) async fn fact(&self, action: &str) -> Event {
        self.fact_with("action", action).await
    }

    /// Waits for a fact that tells this.
    pub(crate) async fn fact_with(&self, name: &str, text: &str) -> Event {
        let found = async {
            loop {
                let facts = self.facts.0.lock().unwrap().clone();
                let is = |event: &&Event| event.payload.attributes.get(name).is_some_and(|told| told == text);
                if let Some(event) = facts.iter().rev().find(is) {
                    return event.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|_| panic!("no fact with {name} `{text}`"))
    }
}

pub(crate) fn server(name: &str) -> Value {
    json!({
        "name": name,
        "spec": {
            "image": "payments", "imageTag": "v1.0.0", "description": "Invoices",
            "tools": [
                {"name": "list_invoices", "requiredTrust": "low", "sideEffect": "read"},
                {"name": "refund_invoice", "requiredTrust": "high", "sideEffect": "destructive"},
            ],
        },
    })
}
