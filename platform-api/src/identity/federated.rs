//! Accounts of people whom an identity provider knows.
//!
//! An account is found by provider and subject, never by address alone. A first login makes or takes an account only for an address that
//! the provider calls the person's own, and only with an invitation, by a group, or where everybody may sign up. An account that has a
//! password is not taken: whoever set it may be somebody else, so its holder links the two while logged in.

use domain::Timestamp;
use sqlx::Row as _;

use super::{Account, Role, TeamRole, accounts, invitations, teams};
use crate::control::SignUp;
use crate::database::{DatabaseError, Transaction};
use crate::oidc::{Mapped, Person};

/// How a login with an identity provider ends.
#[derive(Debug)]
pub(crate) enum Admission {
    /// With this account; `true` when it is new.
    Admitted(Account, bool),
    /// The account is kept out.
    Disabled(Account),
    /// The provider does not say that the address is theirs.
    NoEmail,
    /// An account with a password has this address.
    HasPassword(String),
    /// Nobody asked them in.
    NotInvited(String),
    /// The invitation is used, over, or for another address.
    WrongInvitation,
}

/// Finds or makes the account of somebody whom a provider named.
pub(crate) async fn admit(
    transaction: &mut Transaction,
    person: &Person,
    invitation: Option<&str>,
    sign_up: SignUp,
    now: Timestamp,
) -> Result<Admission, DatabaseError> {
    if let Some(account) = known(transaction, person).await? {
        return Ok(if account.disabled_at.is_some() {
            Admission::Disabled(account)
        } else {
            Admission::Admitted(account, false)
        });
    }
    let email = person.email.as_deref().and_then(|email| accounts::parse_email(email).ok());
    let Some(email) = email else { return Ok(Admission::NoEmail) };
    let account = match accounts::by_email(transaction, &email).await? {
        Some((account, _)) if account.disabled_at.is_some() => return Ok(Admission::Disabled(account)),
        Some((_, true)) => return Ok(Admission::HasPassword(email)),
        Some((account, false)) => account,
        None => match newcomer(transaction, &email, person, invitation, sign_up, now).await? {
            Ok(account) => account,
            Err(refused) => return Ok(refused),
        },
    };
    link(transaction, person, &account, now).await?;
    Ok(Admission::Admitted(account, true))
}

/// An account for somebody who has none.
async fn newcomer(
    transaction: &mut Transaction,
    email: &str,
    person: &Person,
    invitation: Option<&str>,
    sign_up: SignUp,
    now: Timestamp,
) -> Result<Result<Account, Admission>, DatabaseError> {
    let invited = match invitation {
        None => None,
        Some(secret) => match invitations::take(transaction, secret, now).await? {
            Some(found) if found.email == email => Some(found),
            _ => return Ok(Err(Admission::WrongInvitation)),
        },
    };
    if invited.is_none() && person.mapped.is_empty() && sign_up == SignUp::Invited {
        return Ok(Err(Admission::NotInvited(email.to_owned())));
    }
    let role = invited.as_ref().map_or(Role::User, |found| found.role);
    let Some(account) = accounts::create(transaction, email, role, None, now).await? else {
        return Ok(Err(Admission::HasPassword(email.to_owned())));
    };
    if let Some((team, role)) = invited.and_then(|found| found.team_id.zip(found.team_role)) {
        teams::set_member(transaction, &team, &account.id, role, now).await?;
    }
    Ok(Ok(account))
}

/// The account that a provider's subject was linked to.
pub(crate) async fn known(transaction: &mut Transaction, person: &Person) -> Result<Option<Account>, DatabaseError> {
    let row = sqlx::query(
        "SELECT a.* FROM identities i JOIN accounts a ON a.id = i.account_id WHERE i.provider = $1 AND i.subject = $2",
    )
    .bind(person.issuer.as_str())
    .bind(person.subject.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.as_ref().map(accounts::account).transpose()?)
}

/// From now on the person logs in to this account.
pub(crate) async fn link(
    transaction: &mut Transaction,
    person: &Person,
    account: &Account,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO identities (provider, subject, account_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(person.issuer.as_str())
    .bind(person.subject.as_str())
    .bind(account.id.as_str())
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Gives what the person's groups give, and takes what they gave before and no longer do. What people gave stays. Tells what changed.
pub(crate) async fn settle(
    transaction: &mut Transaction,
    account: &mut Account,
    mapped: &Mapped,
    now: Timestamp,
) -> Result<Vec<String>, DatabaseError> {
    let mut changes = settle_role(transaction, account, mapped).await?;
    let rows = sqlx::query(
        "SELECT t.slug, m.role, m.origin FROM memberships m JOIN teams t ON t.id = m.team_id WHERE m.account_id = $1",
    )
    .bind(account.id.as_str())
    .fetch_all(&mut **transaction)
    .await?;
    let mut held: Vec<(String, String, bool)> = Vec::new();
    for row in &rows {
        let origin: String = row.try_get("origin")?;
        held.push((row.try_get("slug")?, row.try_get("role")?, origin == "groups"));
    }
    for (slug, role) in &mapped.teams {
        let is_settled = held
            .iter()
            .any(|(known, known_role, of_groups)| known == slug && (!of_groups || known_role == role.as_str()));
        if !is_settled && join(transaction, account, slug, *role, now).await? {
            changes.push(format!("+{slug}:{}", role.as_str()));
        }
    }
    for (slug, _, of_groups) in &held {
        if *of_groups && !mapped.teams.iter().any(|(given, _)| given == slug) {
            sqlx::query(
                "DELETE FROM memberships WHERE account_id = $1 AND origin = 'groups' \
                 AND team_id = (SELECT id FROM teams WHERE slug = $2)",
            )
            .bind(account.id.as_str())
            .bind(slug.as_str())
            .execute(&mut **transaction)
            .await?;
            changes.push(format!("-{slug}"));
        }
    }
    Ok(changes)
}

/// `false` when there is no such team yet.
async fn join(
    transaction: &mut Transaction,
    account: &Account,
    slug: &str,
    role: TeamRole,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "INSERT INTO memberships (team_id, account_id, role, created_at, origin) \
         SELECT id, $1, $3, $4, 'groups' FROM teams WHERE slug = $2 \
         ON CONFLICT (team_id, account_id) DO UPDATE SET role = excluded.role",
    )
    .bind(account.id.as_str())
    .bind(slug)
    .bind(role.as_str())
    .bind(now.millis())
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn settle_role(
    transaction: &mut Transaction,
    account: &mut Account,
    mapped: &Mapped,
) -> Result<Vec<String>, DatabaseError> {
    let row = sqlx::query("SELECT role_origin FROM accounts WHERE id = $1")
        .bind(account.id.as_str())
        .fetch_one(&mut **transaction)
        .await?;
    let of_groups = row.try_get::<String, _>("role_origin")? == "groups";
    let role = match (account.role, mapped.admin) {
        (Role::User, true) => Role::Admin,
        (Role::Admin, false) if of_groups && !accounts::is_last_admin(transaction, &account.id).await? => Role::User,
        _ => return Ok(Vec::new()),
    };
    sqlx::query("UPDATE accounts SET role = $2, role_origin = 'groups' WHERE id = $1")
        .bind(account.id.as_str())
        .bind(role.as_str())
        .execute(&mut **transaction)
        .await?;
    account.role = role;
    Ok(vec![format!("role:{}", role.as_str())])
}
