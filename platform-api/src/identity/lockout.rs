//! Failed logins, counted by account and by address.
//!
//! An account is locked from its fifth failure on, an address from its twentieth, for 15 seconds and twice as long each further time, up
//! to 15 minutes. A success clears the account's count and leaves the address's: one good login must not wash away guesses at others.
//! An office behind one address is thus slowed only after many failures, and a guesser who changes addresses still meets the account's lock.

use std::time::Duration;

use domain::Timestamp;
use sqlx::Row as _;

use crate::database::{Database, DatabaseError, Transaction};

const LOCK_MIN: Duration = Duration::from_secs(15);
const LOCK_MAX: Duration = Duration::from_mins(15);
/// Failures older than this are forgotten.
const MEMORY: Duration = Duration::from_hours(1);

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Account(String),
    Address(String),
}

impl Subject {
    fn key(&self) -> String {
        match self {
            Self::Account(email) => format!("account:{email}"),
            Self::Address(address) => format!("address:{address}"),
        }
    }

    fn free_failures(&self) -> u32 {
        match self {
            Self::Account(_) => 5,
            Self::Address(_) => 20,
        }
    }

    /// How long the next attempt has to wait after so many failures.
    fn lock(&self, failures: u32) -> Duration {
        let beyond = failures.saturating_add(1).saturating_sub(self.free_failures());
        match beyond {
            0 => Duration::ZERO,
            times => LOCK_MIN.saturating_mul(1 << (times - 1).min(16)).min(LOCK_MAX),
        }
    }
}

/// How long the longest lock among these still holds.
pub(crate) async fn remaining(
    database: &Database,
    subjects: &[Subject],
    now: Timestamp,
) -> Result<Option<Duration>, DatabaseError> {
    let mut longest = None;
    for subject in subjects {
        let row = sqlx::query("SELECT locked_until FROM lockouts WHERE subject = $1")
            .bind(subject.key())
            .fetch_optional(database.pool())
            .await?;
        if let Some(row) = row {
            let until = crate::database::time(&row, "locked_until")?;
            longest = longest.max((until > now).then(|| until.since(now)));
        }
    }
    Ok(longest)
}

/// Counts a failure against each of these.
pub(crate) async fn failed(database: &Database, subjects: &[Subject], now: Timestamp) -> Result<(), DatabaseError> {
    let mut transaction = database.write().await?;
    for subject in subjects {
        let row = sqlx::query("SELECT failures, failed_at FROM lockouts WHERE subject = $1")
            .bind(subject.key())
            .fetch_optional(&mut *transaction)
            .await?;
        let before: i64 = match row {
            Some(row) if now.since(crate::database::time(&row, "failed_at")?) < MEMORY => row.try_get("failures")?,
            _ => 0,
        };
        let failures = before.saturating_add(1);
        let until = now.plus(subject.lock(u32::try_from(failures).unwrap_or(u32::MAX)));
        sqlx::query(
            "INSERT INTO lockouts (subject, failures, failed_at, locked_until) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (subject) DO UPDATE SET failures = excluded.failures, failed_at = excluded.failed_at, locked_until = excluded.locked_until",
        )
        .bind(subject.key())
        .bind(failures)
        .bind(now.millis())
        .bind(until.millis())
        .execute(&mut *transaction)
        .await?;
    }
    forget_old(&mut transaction, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// Forgets the failures of one that succeeded.
pub(crate) async fn succeeded(database: &Database, subject: &Subject) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM lockouts WHERE subject = $1")
        .bind(subject.key())
        .execute(database.pool())
        .await?;
    Ok(())
}

/// Keeps the table as small as an hour of failures.
async fn forget_old(transaction: &mut Transaction, now: Timestamp) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM lockouts WHERE failed_at < $1")
        .bind(now.minus(MEMORY).millis())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_double_up_to_their_bound() {
        let account = Subject::Account("a".to_owned());
        let seconds: Vec<_> = [1, 4, 5, 6, 7, 10, 11, u32::MAX]
            .map(|failures| account.lock(failures).as_secs())
            .into();
        assert_eq!(seconds, [0, 0, 15, 30, 60, 480, 900, 900]);
        let address = Subject::Address("192.0.2.1".to_owned());
        assert_eq!((address.lock(19).as_secs(), address.lock(20).as_secs()), (0, 15));
    }
}
