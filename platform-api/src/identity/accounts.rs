//! Accounts as they are kept.

use domain::Timestamp;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Account, Membership, Principal, Role, TeamRole, fresh_id};
use crate::database::{Database, DatabaseError, Transaction, time, time_or_none};

/// Longest e-mail address there can be.
const EMAIL_BYTES_MAX: usize = 254;

/// An address as it is compared and kept, or what is wrong with it.
pub(crate) fn parse_email(text: &str) -> Result<String, &'static str> {
    let email = text.trim().to_lowercase();
    let Some((name, host)) = email.rsplit_once('@') else {
        return Err("an e-mail address has an `@`");
    };
    if email.len() > EMAIL_BYTES_MAX {
        return Err("an e-mail address has at most 254 bytes");
    }
    let clean = |part: &str| !part.is_empty() && !part.chars().any(|char| char.is_whitespace() || char.is_control());
    if !clean(name) || !clean(host) || host.starts_with('.') || host.ends_with('.') || host.starts_with('[') {
        return Err("an e-mail address has a name before the `@` and a host after it");
    }
    Ok(email)
}

pub(super) fn account(row: &AnyRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        role: Role::parse(row.try_get("role")?).unwrap_or(Role::User),
        created_at: time(row, "created_at")?,
        last_login_at: time_or_none(row, "last_login_at")?,
        disabled_at: time_or_none(row, "disabled_at")?,
    })
}

/// A new account, or `None` when the address is taken.
pub(crate) async fn create(
    transaction: &mut Transaction,
    email: &str,
    role: Role,
    password_hash: Option<&str>,
    now: Timestamp,
) -> Result<Option<Account>, DatabaseError> {
    if by_email(transaction, email).await?.is_some() {
        return Ok(None);
    }
    let id = fresh_id();
    sqlx::query("INSERT INTO accounts (id, email, role, password_hash, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(id.as_str())
        .bind(email)
        .bind(role.as_str())
        .bind(password_hash)
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    Ok(Some(Account {
        id,
        email: email.to_owned(),
        role,
        created_at: Timestamp::from_millis(now.millis()),
        last_login_at: None,
        disabled_at: None,
    }))
}

/// An account by address, and whether it has a password.
pub(super) async fn by_email(transaction: &mut Transaction, email: &str) -> Result<Option<(Account, bool)>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM accounts WHERE email = $1")
        .bind(email)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let password: Option<String> = row.try_get("password_hash")?;
    Ok(Some((account(&row)?, password.is_some())))
}

/// An account by id or by address, with what is kept of its password.
pub(crate) async fn find(database: &Database, id_or_email: &str) -> Result<Option<(Account, Option<String>)>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM accounts WHERE id = $1 OR email = $2")
        .bind(id_or_email)
        .bind(id_or_email.trim().to_lowercase())
        .fetch_optional(database.pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((account(&row)?, row.try_get("password_hash")?)))
}

/// Accounts in order of their addresses, from the first after `after` on.
pub(crate) async fn list(database: &Database, after: &str, limit: u32) -> Result<Vec<Account>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM accounts WHERE email > $1 ORDER BY email LIMIT $2")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(database.pool())
        .await?;
    Ok(rows.iter().map(account).collect::<Result<_, _>>()?)
}

/// Whether nobody but this account is an administrator who can log in.
pub(crate) async fn is_last_admin(transaction: &mut Transaction, id: &str) -> Result<bool, DatabaseError> {
    let row = sqlx::query("SELECT count(*) AS others FROM accounts WHERE role = 'admin' AND disabled_at IS NULL AND id <> $1")
        .bind(id)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(row.try_get::<i64, _>("others")? == 0)
}

pub(crate) async fn set_role(transaction: &mut Transaction, id: &str, role: Role) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE accounts SET role = $2, role_origin = 'people' WHERE id = $1")
        .bind(id)
        .bind(role.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Lets an account in again, or keeps it out from `at` on.
pub(crate) async fn set_disabled(transaction: &mut Transaction, id: &str, at: Option<Timestamp>) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE accounts SET disabled_at = $2 WHERE id = $1")
        .bind(id)
        .bind(at.map(Timestamp::millis))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(crate) async fn set_password(transaction: &mut Transaction, id: &str, hash: &str) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE accounts SET password_hash = $2 WHERE id = $1")
        .bind(id)
        .bind(hash)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(crate) async fn remove(transaction: &mut Transaction, id: &str) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM accounts WHERE id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The account with its teams, first joined first.
pub(crate) async fn principal(
    database: &Database,
    account: Account,
    login: Option<String>,
) -> Result<Principal, DatabaseError> {
    let rows = sqlx::query(
        "SELECT t.id, t.slug, t.name, t.namespace, m.role FROM memberships m JOIN teams t ON t.id = m.team_id \
         WHERE m.account_id = $1 ORDER BY m.created_at, t.slug",
    )
    .bind(account.id.as_str())
    .fetch_all(database.pool())
    .await?;
    let team = |row: &AnyRow| -> Result<Membership, sqlx::Error> {
        Ok(Membership {
            id: row.try_get("id")?,
            slug: row.try_get("slug")?,
            name: row.try_get("name")?,
            namespace: row.try_get("namespace")?,
            role: TeamRole::parse(row.try_get("role")?).unwrap_or(TeamRole::Member),
        })
    };
    let teams = rows.iter().map(team).collect::<Result<_, _>>()?;
    Ok(Principal { account, teams, login })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_one_form() {
        assert_eq!(parse_email("  Ada@Example.COM ").unwrap(), "ada@example.com");
        for bad in [
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "ada@[127.0.0.1]",
            "ada@.com",
            &format!("{}@x.org", "a".repeat(260)),
        ] {
            assert!(parse_email(bad).is_err(), "{bad}");
        }
    }
}
