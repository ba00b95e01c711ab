//! Logins and their tokens: a short access token for requests, and a refresh token that is exchanged for the next pair.
//!
//! A refresh token works once. Two processes of one person may exchange the same one at the same moment, so for a little while it is
//! answered again; after that its return means that somebody else has it, and the login ends.

use std::time::Duration;

use domain::Timestamp;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::secret::{Purpose, Secret, hash};
use super::{Account, Principal, accounts, fresh_id};
use crate::database::{Database, DatabaseError, Transaction, time, time_or_none};

pub(crate) const ACCESS_LIFETIME: Duration = Duration::from_mins(15);
pub(crate) const REFRESH_LIFETIME: Duration = Duration::from_hours(24 * 30);
/// How long an exchanged refresh token is still answered.
const REPLACED_GRACE: Duration = Duration::from_mins(1);

/// A pair of tokens in the clear.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Secret,
    pub(crate) refresh: Secret,
}

/// A login as its account sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Login {
    pub(crate) id: String,
    /// `password`, `oidc`, `invitation` or `device`.
    pub(crate) method: String,
    /// What the client called itself.
    pub(crate) client: String,
    pub(crate) created_at: Timestamp,
    pub(crate) last_used_at: Timestamp,
    /// Whether this request came with one of its tokens.
    pub(crate) current: bool,
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum Exchange {
    Done(Account, Tokens),
    /// Unknown, too old, or of an account or login that ended.
    Refused,
    /// It had been exchanged before: the login is ended.
    Stolen(Account),
}

/// Begins a login.
pub(crate) async fn begin(
    transaction: &mut Transaction,
    account: &Account,
    method: &str,
    client: &str,
    tokens: &Tokens,
    now: Timestamp,
) -> Result<String, DatabaseError> {
    let id = fresh_id();
    sqlx::query(
        "INSERT INTO logins (id, account_id, method, client, created_at, last_used_at) VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(id.as_str())
    .bind(account.id.as_str())
    .bind(method)
    .bind(client)
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    sqlx::query("UPDATE accounts SET last_login_at = $2 WHERE id = $1")
        .bind(account.id.as_str())
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    keep(transaction, &id, tokens, now).await?;
    Ok(id)
}

/// Two new tokens, not yet kept.
pub(crate) fn fresh_tokens() -> Result<Tokens, getrandom::Error> {
    Ok(Tokens {
        access: Secret::fresh(Purpose::Access)?,
        refresh: Secret::fresh(Purpose::Refresh)?,
    })
}

async fn keep(transaction: &mut Transaction, login: &str, tokens: &Tokens, now: Timestamp) -> Result<(), DatabaseError> {
    let pairs = [
        ("access", &tokens.access, ACCESS_LIFETIME),
        ("refresh", &tokens.refresh, REFRESH_LIFETIME),
    ];
    for (kind, secret, lifetime) in pairs {
        sqlx::query("INSERT INTO tokens (hash, kind, login_id, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(secret.hash())
            .bind(kind)
            .bind(login)
            .bind(now.plus(lifetime).millis())
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query("DELETE FROM tokens WHERE expires_at < $1")
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

const BY_TOKEN: &str = "SELECT a.*, t.login_id, t.replaced_at, l.ended_at FROM tokens t JOIN logins l ON l.id = t.login_id \
     JOIN accounts a ON a.id = l.account_id WHERE t.hash = $1 AND t.kind = $2 AND t.expires_at > $3";

/// Who an access token speaks for.
pub(crate) async fn resolve(database: &Database, access: &str, now: Timestamp) -> Result<Option<Principal>, DatabaseError> {
    let row = sqlx::query(BY_TOKEN)
        .bind(hash(access))
        .bind("access")
        .bind(now.millis())
        .fetch_optional(database.pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let account = accounts::account(&row)?;
    if account.disabled_at.is_some() || time_or_none(&row, "ended_at")?.is_some() {
        return Ok(None);
    }
    let login: String = row.try_get("login_id")?;
    Ok(Some(accounts::principal(database, account, Some(login)).await?))
}

/// Exchanges a refresh token.
pub(crate) async fn exchange(
    transaction: &mut Transaction,
    refresh: &str,
    next: Tokens,
    now: Timestamp,
) -> Result<Exchange, DatabaseError> {
    let row = sqlx::query(BY_TOKEN)
        .bind(hash(refresh))
        .bind("refresh")
        .bind(now.millis())
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(Exchange::Refused) };
    let account = accounts::account(&row)?;
    let login: String = row.try_get("login_id")?;
    if account.disabled_at.is_some() || time_or_none(&row, "ended_at")?.is_some() {
        return Ok(Exchange::Refused);
    }
    match time_or_none(&row, "replaced_at")? {
        Some(at) if now.since(at) > REPLACED_GRACE => {
            end(transaction, &account.id, &login, now).await?;
            return Ok(Exchange::Stolen(account));
        }
        Some(_) => {}
        None => {
            sqlx::query("UPDATE tokens SET replaced_at = $2 WHERE hash = $1")
                .bind(hash(refresh))
                .bind(now.millis())
                .execute(&mut **transaction)
                .await?;
        }
    }
    sqlx::query("UPDATE logins SET last_used_at = $2 WHERE id = $1")
        .bind(login.as_str())
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    keep(transaction, &login, &next, now).await?;
    Ok(Exchange::Done(account, next))
}

/// Ends one login of an account; `false` when it has no such login.
pub(crate) async fn end(
    transaction: &mut Transaction,
    account: &str,
    login: &str,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query("UPDATE logins SET ended_at = $3 WHERE id = $1 AND account_id = $2 AND ended_at IS NULL")
        .bind(login)
        .bind(account)
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    sqlx::query("DELETE FROM tokens WHERE kind = 'access' AND login_id = $1")
        .bind(login)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends every login of an account but one.
pub(crate) async fn end_others(
    transaction: &mut Transaction,
    account: &str,
    but: &str,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE logins SET ended_at = $3 WHERE account_id = $1 AND id <> $2 AND ended_at IS NULL")
        .bind(account)
        .bind(but)
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The logins of an account that have not ended, newest first.
pub(crate) async fn list(database: &Database, principal: &Principal) -> Result<Vec<Login>, DatabaseError> {
    let rows =
        sqlx::query("SELECT * FROM logins WHERE account_id = $1 AND ended_at IS NULL ORDER BY created_at DESC LIMIT 200")
            .bind(principal.account.id.as_str())
            .fetch_all(database.pool())
            .await?;
    let login = |row: &AnyRow| -> Result<Login, sqlx::Error> {
        let id: String = row.try_get("id")?;
        Ok(Login {
            current: principal.login.as_ref() == Some(&id),
            id,
            method: row.try_get("method")?,
            client: row.try_get("client")?,
            created_at: time(row, "created_at")?,
            last_used_at: time(row, "last_used_at")?,
        })
    };
    Ok(rows.iter().map(login).collect::<Result<_, _>>()?)
}
