//! Teams and who is in them.

use domain::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{TEAM_NAMESPACE_PREFIX, Team, TeamRole, fresh_id};
use crate::database::{Database, DatabaseError, Transaction, time};

/// Longest slug, so that its namespace is still a DNS label.
pub(crate) const SLUG_BYTES_MAX: usize = 63 - TEAM_NAMESPACE_PREFIX.len();

/// Somebody in a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) role: TeamRole,
    pub(crate) created_at: Timestamp,
}

/// How a change of a membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// There is no such membership.
    Nobody,
    /// The team would be left without an owner.
    LastOwner,
}

fn team(row: &AnyRow) -> Result<Team, sqlx::Error> {
    Ok(Team {
        id: row.try_get("id")?,
        slug: row.try_get("slug")?,
        name: row.try_get("name")?,
        namespace: row.try_get("namespace")?,
        created_at: time(row, "created_at")?,
    })
}

/// A new team, or `None` when the slug is taken.
pub(crate) async fn create(
    transaction: &mut Transaction,
    slug: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<Team>, DatabaseError> {
    let made = Team {
        id: fresh_id(),
        slug: slug.to_owned(),
        name: name.to_owned(),
        namespace: format!("{TEAM_NAMESPACE_PREFIX}{slug}"),
        created_at: Timestamp::from_millis(now.millis()),
    };
    let done = sqlx::query(
        "INSERT INTO teams (id, slug, name, namespace, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(made.id.as_str())
    .bind(slug)
    .bind(name)
    .bind(made.namespace.as_str())
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    Ok((done.rows_affected() > 0).then_some(made))
}

/// A team by id, slug or namespace.
pub(crate) async fn find(database: &Database, word: &str) -> Result<Option<Team>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM teams WHERE id = $1 OR slug = $1 OR namespace = $1")
        .bind(word)
        .fetch_optional(database.pool())
        .await?;
    Ok(row.as_ref().map(team).transpose()?)
}

/// Teams in order of their slugs, from the first after `after` on.
pub(crate) async fn list(database: &Database, after: &str, limit: u32) -> Result<Vec<Team>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM teams WHERE slug > $1 ORDER BY slug LIMIT $2")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(database.pool())
        .await?;
    Ok(rows.iter().map(team).collect::<Result<_, _>>()?)
}

pub(crate) async fn rename(transaction: &mut Transaction, id: &str, name: &str) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE teams SET name = $2 WHERE id = $1")
        .bind(id)
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Removes a team; its slug is free again. The caller makes sure that nothing is left in its namespace.
pub(crate) async fn remove(transaction: &mut Transaction, id: &str) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM teams WHERE id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(crate) async fn members(database: &Database, team: &str) -> Result<Vec<Member>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT a.id, a.email, m.role, m.created_at FROM memberships m JOIN accounts a ON a.id = m.account_id \
         WHERE m.team_id = $1 ORDER BY a.email",
    )
    .bind(team)
    .fetch_all(database.pool())
    .await?;
    let member = |row: &AnyRow| -> Result<Member, sqlx::Error> {
        Ok(Member {
            user_id: row.try_get("id")?,
            email: row.try_get("email")?,
            role: TeamRole::parse(row.try_get("role")?).unwrap_or(TeamRole::Member),
            created_at: time(row, "created_at")?,
        })
    };
    Ok(rows.iter().map(member).collect::<Result<_, _>>()?)
}

/// Makes somebody a member, or changes their role.
pub(crate) async fn set_member(
    transaction: &mut Transaction,
    team: &str,
    account: &str,
    role: TeamRole,
    now: Timestamp,
) -> Result<Changed, DatabaseError> {
    if role != TeamRole::Owner && is_last_owner(transaction, team, account).await? {
        return Ok(Changed::LastOwner);
    }
    sqlx::query(
        "INSERT INTO memberships (team_id, account_id, role, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (team_id, account_id) DO UPDATE SET role = excluded.role, origin = 'people'",
    )
    .bind(team)
    .bind(account)
    .bind(role.as_str())
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    Ok(Changed::Done)
}

pub(crate) async fn remove_member(transaction: &mut Transaction, team: &str, account: &str) -> Result<Changed, DatabaseError> {
    if is_last_owner(transaction, team, account).await? {
        return Ok(Changed::LastOwner);
    }
    let done = sqlx::query("DELETE FROM memberships WHERE team_id = $1 AND account_id = $2")
        .bind(team)
        .bind(account)
        .execute(&mut **transaction)
        .await?;
    Ok(if done.rows_affected() > 0 {
        Changed::Done
    } else {
        Changed::Nobody
    })
}

async fn is_last_owner(transaction: &mut Transaction, team: &str, account: &str) -> Result<bool, DatabaseError> {
    let rows = sqlx::query("SELECT account_id FROM memberships WHERE team_id = $1 AND role = 'owner' LIMIT 2")
        .bind(team)
        .fetch_all(&mut **transaction)
        .await?;
    match rows.as_slice() {
        [only] => Ok(only.try_get::<String, _>("account_id")? == account),
        _ => Ok(false),
    }
}
