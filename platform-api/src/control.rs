//! The half of the API that changes things: identity and objects, with what both need.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::Timestamp;
use futures::future::BoxFuture;
use service_kit::{Clock, Problem, Tasks};
use tokio::sync::Notify;

use crate::access::{Access, Caller, Credentials, Denied, StaticAccess, secret};
use crate::audit::{self, AuditSink, Fact};
use crate::database::{Database, DatabaseError, Transaction};
use crate::identity::keys::{self, KeyKind};
use crate::identity::secret::{Purpose, Secret};
use crate::identity::{Right, Role, accounts, logins, password};
use crate::objects::{ObjectError, Objects};
use crate::oidc::OidcConfig;
use crate::oidc::provider::Provider;
use crate::registry::token::RegistryTokens;

/// When to come again after the database was too busy.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Who may make an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignUp {
    /// Whoever was invited.
    #[default]
    Invited,
    /// Everybody who can reach this API.
    Open,
}

/// Checked settings of the control half.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where published servers are reached, such as `http://127.0.0.1:8080`; the route follows.
    pub servers_url: String,
    /// Host of the registry that short image names mean.
    pub registry: Option<String>,
    pub sign_up: SignUp,
    /// Servers that one account may have; no bound when absent.
    pub servers_max: Option<u32>,
    /// Shortest time between two publications of one server; none when zero.
    pub push_cooldown: Duration,
    /// Signs what the registry lets people do; none when there is no registry of ours.
    pub registry_tokens: Option<RegistryTokens>,
    /// Who else may say who somebody is.
    pub oidc: Option<OidcConfig>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            servers_url: "http://127.0.0.1:8080".to_owned(),
            registry: None,
            sign_up: SignUp::Invited,
            servers_max: Some(5),
            push_cooldown: Duration::ZERO,
            registry_tokens: None,
            oidc: None,
        }
    }
}

/// Identity and objects. Clones are the same.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ControlConfig,
    database: Database,
    objects: Arc<dyn Objects>,
    provider: Option<Provider>,
    clock: Clock,
    /// Wakes the task that hands facts over.
    facts: Arc<Notify>,
}

impl Control {
    /// Over a database and what keeps objects. Facts about changes go to `sink`, from a task of the query stage.
    pub fn new(
        config: ControlConfig,
        database: Database,
        objects: Arc<dyn Objects>,
        sink: Arc<dyn AuditSink>,
        tasks: &Tasks,
    ) -> Self {
        let facts = Arc::new(Notify::new());
        audit::deliver(database.clone(), sink, Arc::clone(&facts), tasks);
        let provider = config.oidc.clone().map(|oidc| Provider::new(oidc, tasks.clock().clone()));
        Self(Arc::new(Inner {
            provider,
            config,
            database,
            objects,
            clock: tasks.clock().clone(),
            facts,
        }))
    }

    /// Makes sure that an administrator with this address and password exists. An account that is there keeps its password, so that a
    /// restart does not undo a change of it.
    pub async fn ensure_admin(&self, email: &str, password: String) -> anyhow::Result<()> {
        let email = accounts::parse_email(email).map_err(|why| anyhow::anyhow!("the administrator's address: {why}"))?;
        let password = password::Password::from(password);
        if let Some((account, _)) = accounts::find(self.database(), &email).await? {
            if account.role != Role::Admin {
                let mut transaction = self.database().write().await?;
                accounts::set_role(&mut transaction, &account.id, Role::Admin).await?;
                transaction.commit().await?;
            }
            return Ok(());
        }
        let fit = password::check(&password, &email);
        fit.map_err(|problem| anyhow::anyhow!("the administrator's password: {}", problem.message))?;
        let hash = password::hash(password)
            .await
            .map_err(|_| anyhow::anyhow!("hashing the administrator's password"))?;
        let mut transaction = self.database().write().await?;
        accounts::create(&mut transaction, &email, Role::Admin, Some(&hash), self.now()).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Makes sure that an administrator with this address has a key that works, and gives it: `key`, if it still does, or a new one.
    ///
    /// For whoever owns the machine and its folders: they need no password, and a key that was revoked or lost is made anew.
    pub async fn ensure_owner(&self, email: &str, key: Option<String>) -> anyhow::Result<String> {
        let email = accounts::parse_email(email).map_err(|why| anyhow::anyhow!("the owner's address: {why}"))?;
        if let Some(key) = key {
            let holder = keys::resolve(self.database(), KeyKind::User, &key, self.now()).await?;
            let owner = holder.and_then(|holder| holder.account);
            if owner.is_some_and(|account| account.email == email && account.role == Role::Admin) {
                return Ok(key);
            }
        }
        let found = accounts::find(self.database(), &email).await?;
        let mut transaction = self.database().write().await?;
        let id = if let Some((account, _)) = found {
            accounts::set_role(&mut transaction, &account.id, Role::Admin).await?;
            accounts::set_disabled(&mut transaction, &account.id, None).await?;
            account.id
        } else {
            let made = accounts::create(&mut transaction, &email, Role::Admin, None, self.now()).await?;
            made.context("making the owner's account")?.id
        };
        let secret = Secret::fresh(Purpose::UserKey).context("making the owner's key")?;
        let wish = keys::Wish {
            kind: KeyKind::User,
            account: Some(id),
            name: "this machine".to_owned(),
            rights: vec![Right::Write, Right::Adapter, Right::Pull, Right::Push],
            namespaces: Vec::new(),
            expires_at: None,
        };
        keys::create(&mut transaction, wish, &secret, self.now()).await?;
        transaction.commit().await?;
        Ok(secret.reveal().to_owned())
    }

    pub(crate) fn config(&self) -> &ControlConfig {
        &self.0.config
    }

    pub(crate) fn provider(&self) -> Option<&Provider> {
        self.0.provider.as_ref()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(crate) fn objects(&self) -> &dyn Objects {
        &*self.0.objects
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.clock.unix_ns())
    }

    /// Makes a change so, together with the fact that tells of it.
    pub(crate) async fn commit(&self, mut transaction: Transaction, fact: Fact) -> Result<(), Problem> {
        audit::record(&mut transaction, fact, self.now()).await?;
        transaction.commit().await.map_err(DatabaseError::Query)?;
        self.facts_written();
        Ok(())
    }

    /// Says that there may be facts to hand over.
    pub(crate) fn facts_written(&self) {
        self.0.facts.notify_one();
    }

    /// Who a secret of ours speaks for.
    pub(crate) async fn resolve(&self, purpose: Purpose, secret: &str) -> Result<Option<Caller>, DatabaseError> {
        let (database, now) = (self.database(), self.now());
        let kind = match purpose {
            Purpose::Access => {
                let principal = logins::resolve(database, secret, now).await?;
                return Ok(principal.map(Caller::of_principal));
            }
            Purpose::UserKey => KeyKind::User,
            Purpose::ServiceKey => KeyKind::Service,
            Purpose::RegistryKey => KeyKind::Registry,
            Purpose::Refresh | Purpose::Invitation | Purpose::Adapter | Purpose::Device => return Ok(None),
        };
        let Some(holder) = keys::resolve(database, kind, secret, now).await? else {
            return Ok(None);
        };
        Ok(Some(match holder.account {
            Some(account) => Caller::of_key(accounts::principal(database, account, None).await?, &holder.key),
            None => Caller::of_service_key(&holder.key),
        }))
    }
}

/// Names callers by what the database knows, and everybody else as [`StaticAccess`] does.
#[derive(Debug)]
pub(crate) struct ControlAccess {
    pub(crate) fixed: StaticAccess,
    pub(crate) control: Control,
}

impl Access for ControlAccess {
    fn caller<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Caller, Denied>> {
        Box::pin(async move {
            let ours = secret(credentials.headers)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .and_then(|text| Some((Purpose::of(text)?, text)));
            let Some((purpose, text)) = ours else {
                return self.fixed.caller(credentials).await;
            };
            self.fixed.check_page(credentials.headers)?;
            match self.control.resolve(purpose, text).await {
                Ok(Some(caller)) => Ok(caller),
                Ok(None) => Err(Denied::Unknown),
                Err(error) => {
                    tracing::error!(error = %service_kit::error::Chain(&error), "a credential cannot be checked");
                    Err(Denied::Unavailable)
                }
            }
        })
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Query(sqlx::Error::PoolTimedOut) => {
                Self::unavailable("too many requests wait for the database", BUSY_RETRY_AFTER)
                    .with_code("busy")
                    .with_hint("try again in a moment")
            }
            other => Self::internal(other),
        }
    }
}

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Conflict { revision: Some(now) } => {
                Self::conflict(format!("it was changed meanwhile and is at revision {now}"))
                    .with_hint("read it again, and send your change with the header `If-Match` of what you read")
            }
            ObjectError::Conflict { revision: None } => Self::conflict("it was removed meanwhile").with_hint("read it again"),
            ObjectError::Quota { count, max } => Self::new(
                http::StatusCode::TOO_MANY_REQUESTS,
                "active_server_limit_reached",
                format!("you have {count} servers, and {max} is the most one account may have"),
            )
            .with_hint("retire a server with `mcp-runtime server delete NAME`, or ask an administrator for more"),
            ObjectError::Refused(why) => Self::unprocessable(why).with_code("invalid"),
            failed @ ObjectError::Failed(_) => Self::internal(failed),
        }
    }
}
