//! Keys: of people, of programs, and for registries. Each has rights, may be confined to namespaces, and may end.

use std::time::Duration;

use domain::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::secret::{Purpose, Secret, hash};
use super::{Account, Right, accounts, fresh_id};
use crate::database::{Database, DatabaseError, Transaction, time, time_or_none};

/// Last use is noted at most this often: a busy key would otherwise write with every request.
const USE_NOTED_EVERY: Duration = Duration::from_mins(1);

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    User,
    Service,
    Registry,
}

impl KeyKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Registry => "registry",
        }
    }

    pub(crate) fn purpose(self) -> Purpose {
        match self {
            Self::User => Purpose::UserKey,
            Self::Service => Purpose::ServiceKey,
            Self::Registry => Purpose::RegistryKey,
        }
    }
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The first characters of the secret.
    pub(crate) prefix: String,
    pub(crate) rights: Vec<Right>,
    /// Where it works; everywhere its holder may when empty.
    pub(crate) namespaces: Vec<String>,
    pub(crate) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<Timestamp>,
}

/// A key that came with a request, and works.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) key: Key,
    /// Whose key it is; a program's has nobody.
    pub(crate) account: Option<Account>,
}

fn key(row: &AnyRow) -> Result<Key, sqlx::Error> {
    let list = |column| -> Result<Vec<String>, sqlx::Error> {
        let text: String = row.try_get(column)?;
        Ok(text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    };
    let revoked_at = time_or_none(row, "revoked_at")?;
    Ok(Key {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        rights: list("rights")?.iter().filter_map(|word| Right::parse(word)).collect(),
        namespaces: list("namespaces")?,
        created_at: time(row, "created_at")?,
        expires_at: time_or_none(row, "expires_at")?,
        last_used_at: time_or_none(row, "last_used_at")?,
        revoked: revoked_at.is_some(),
        revoked_at,
    })
}

/// A key to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) kind: KeyKind,
    /// Whose it will be; nobody's for programs.
    pub(crate) account: Option<String>,
    pub(crate) name: String,
    pub(crate) rights: Vec<Right>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Keeps a new key.
pub(crate) async fn create(
    transaction: &mut Transaction,
    wish: Wish,
    secret: &Secret,
    now: Timestamp,
) -> Result<Key, DatabaseError> {
    let words: Vec<_> = wish.rights.iter().map(|right| right.as_str()).collect();
    let made = Key {
        id: fresh_id(),
        name: wish.name,
        prefix: secret.start(),
        rights: wish.rights,
        namespaces: wish.namespaces,
        created_at: Timestamp::from_millis(now.millis()),
        expires_at: wish.expires_at.map(|at| Timestamp::from_millis(at.millis())),
        last_used_at: None,
        revoked: false,
        revoked_at: None,
    };
    sqlx::query(
        "INSERT INTO api_keys (id, kind, hash, account_id, name, prefix, rights, namespaces, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(made.id.as_str())
    .bind(wish.kind.as_str())
    .bind(secret.hash())
    .bind(wish.account)
    .bind(made.name.as_str())
    .bind(made.prefix.as_str())
    .bind(words.join(","))
    .bind(made.namespaces.join(","))
    .bind(now.millis())
    .bind(made.expires_at.map(Timestamp::millis))
    .execute(&mut **transaction)
    .await?;
    Ok(made)
}

/// Keys of an account, or of all programs; newest first.
pub(crate) async fn list(database: &Database, kind: KeyKind, account: Option<&str>) -> Result<Vec<Key>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT * FROM api_keys WHERE kind = $1 AND (account_id = $2 OR ($2 IS NULL AND account_id IS NULL)) ORDER BY created_at DESC, id DESC LIMIT 1000",
    )
    .bind(kind.as_str())
    .bind(account)
    .fetch_all(database.pool())
    .await?;
    Ok(rows.iter().map(key).collect::<Result<_, _>>()?)
}

/// Ends a key now; ended ones stay as they are. `None` when there is no such key of this account.
pub(crate) async fn revoke(
    transaction: &mut Transaction,
    kind: KeyKind,
    account: Option<&str>,
    id: &str,
    now: Timestamp,
) -> Result<Option<Key>, DatabaseError> {
    sqlx::query(
        "UPDATE api_keys SET revoked_at = $4 WHERE id = $1 AND kind = $2 AND (account_id = $3 OR ($3 IS NULL AND account_id IS NULL)) AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(kind.as_str())
    .bind(account)
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    let row = sqlx::query(
        "SELECT * FROM api_keys WHERE id = $1 AND kind = $2 AND (account_id = $3 OR ($3 IS NULL AND account_id IS NULL))",
    )
    .bind(id)
    .bind(kind.as_str())
    .bind(account)
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.as_ref().map(key).transpose()?)
}

/// Who holds a secret, when it is a key that works; notes its use.
pub(crate) async fn resolve(
    database: &Database,
    kind: KeyKind,
    secret: &str,
    now: Timestamp,
) -> Result<Option<Holder>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE hash = $1 AND kind = $2 AND revoked_at IS NULL")
        .bind(hash(secret))
        .bind(kind.as_str())
        .fetch_optional(database.pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (key, account_id): (Key, Option<String>) = (key(&row)?, row.try_get("account_id")?);
    if key.expires_at.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    let account = match account_id {
        None => None,
        Some(id) => match accounts::find(database, &id).await? {
            Some((account, _)) if account.disabled_at.is_none() => Some(account),
            _ => return Ok(None),
        },
    };
    if key.last_used_at.is_none_or(|last| now.since(last) > USE_NOTED_EVERY) {
        sqlx::query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
            .bind(key.id.as_str())
            .bind(now.millis())
            .execute(database.pool())
            .await?;
    }
    Ok(Some(Holder { key, account }))
}
