//! Invitations: a secret that lets one address make an account, once, until it ends.

use domain::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::secret::{Secret, hash};
use super::{Role, TeamRole, fresh_id};
use crate::database::{Database, DatabaseError, Transaction, time, time_or_none};

/// An invitation without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Invitation {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) team_role: Option<TeamRole>,
    pub(crate) created_by: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_at: Option<Timestamp>,
}

fn invitation(row: &AnyRow) -> Result<Invitation, sqlx::Error> {
    let team_role: Option<String> = row.try_get("team_role")?;
    Ok(Invitation {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        role: Role::parse(row.try_get("role")?).unwrap_or(Role::User),
        team_id: row.try_get("team_id")?,
        team_role: team_role.and_then(|word| TeamRole::parse(&word)),
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        used_at: time_or_none(row, "used_at")?,
    })
}

/// An invitation to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) email: String,
    pub(crate) role: Role,
    pub(crate) team: Option<(String, TeamRole)>,
    pub(crate) created_by: String,
    pub(crate) expires_at: Timestamp,
}

pub(crate) async fn create(
    transaction: &mut Transaction,
    wish: Wish,
    secret: &Secret,
    now: Timestamp,
) -> Result<Invitation, DatabaseError> {
    let (team_id, team_role) = wish.team.unzip();
    let made = Invitation {
        id: fresh_id(),
        email: wish.email,
        role: wish.role,
        team_id,
        team_role,
        created_by: wish.created_by,
        created_at: Timestamp::from_millis(now.millis()),
        expires_at: Timestamp::from_millis(wish.expires_at.millis()),
        used_at: None,
    };
    sqlx::query(
        "INSERT INTO invitations (id, hash, email, role, team_id, team_role, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(made.id.as_str())
    .bind(secret.hash())
    .bind(made.email.as_str())
    .bind(made.role.as_str())
    .bind(made.team_id.clone())
    .bind(made.team_role.map(TeamRole::as_str))
    .bind(made.created_by.as_str())
    .bind(now.millis())
    .bind(made.expires_at.millis())
    .execute(&mut **transaction)
    .await?;
    Ok(made)
}

/// Every invitation that is neither used nor ended, newest first.
pub(crate) async fn list(database: &Database, now: Timestamp) -> Result<Vec<Invitation>, DatabaseError> {
    let rows =
        sqlx::query("SELECT * FROM invitations WHERE used_at IS NULL AND expires_at > $1 ORDER BY created_at DESC LIMIT 1000")
            .bind(now.millis())
            .fetch_all(database.pool())
            .await?;
    Ok(rows.iter().map(invitation).collect::<Result<_, _>>()?)
}

/// Uses up the invitation a secret belongs to; `None` when there is none that still holds.
pub(crate) async fn take(
    transaction: &mut Transaction,
    secret: &str,
    now: Timestamp,
) -> Result<Option<Invitation>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM invitations WHERE hash = $1 AND used_at IS NULL AND expires_at > $2")
        .bind(hash(secret))
        .bind(now.millis())
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(found) = row.as_ref().map(invitation).transpose()? else {
        return Ok(None);
    };
    sqlx::query("UPDATE invitations SET used_at = $2 WHERE id = $1")
        .bind(found.id.as_str())
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
    Ok(Some(found))
}

/// Withdraws an invitation; `None` when there is no such one.
pub(crate) async fn withdraw(transaction: &mut Transaction, id: &str) -> Result<Option<Invitation>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM invitations WHERE id = $1 AND used_at IS NULL")
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    let found = row.as_ref().map(invitation).transpose()?;
    sqlx::query("DELETE FROM invitations WHERE id = $1 AND used_at IS NULL")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(found)
}
