//! Lists of events.
//!
//! The newest hundred of a hundred million: the newest hour is looked at first, then eight times as much, and so on, until the page
//! is full. Each look is one query whose time range lets the scan skip files and row groups.

use std::time::Duration;

use datafusion::logical_expr::{Expr, SortExpr, lit};
use datafusion::prelude::ident;
use domain::Timestamp;
use domain::analytics::StoredEvent;

use super::fault;
use super::typed::{Asking, conditions, time, times};
use crate::QueryError;
use crate::memory::terms::{Field, Terms};
use crate::parquet::convert::to_events;
use crate::parquet::schema::Table;
use crate::query::Order;

/// The first look back.
const LOOK: Duration = Duration::from_hours(1);
/// How much further each next one goes.
const GROWTH: u32 = 8;

impl Asking {
    /// At most `most` events in the given order.
    pub(super) async fn page(&self, terms: &Terms, order: Order, most: usize) -> Result<Vec<StoredEvent>, QueryError> {
        match order {
            Order::Arrival(_) => self.rows(terms, (terms.since, terms.until), order, most).await,
            Order::Newest(_)
                if terms
                    .conditions
                    .iter()
                    .any(|condition| matches!(condition.field, Field::Id | Field::TraceId)) =>
            {
                self.rows(terms, (terms.since, terms.until), order, most).await
            }
            Order::Newest(before) => self.newest(terms, before.map(|(at, _)| at), order, most).await,
        }
    }

    async fn newest(
        &self,
        terms: &Terms,
        before: Option<Timestamp>,
        order: Order,
        most: usize,
    ) -> Result<Vec<StoredEvent>, QueryError> {
        let Some((oldest, newest)) = self.tables.span() else {
            return Ok(Vec::new());
        };
        let floor = terms.since.map_or(oldest, |since| since.max(oldest));
        // One past what can match: the cursor's own time is still asked for, since events of one time are told apart by place.
        let past = |at: Timestamp| at.plus(Duration::from_nanos(1));
        let mut until = past(before.map_or(newest, |before| before.min(newest)));
        until = terms.until.map_or(until, |end| end.min(until));
        let (mut events, mut look) = (Vec::new(), LOOK);
        while until > floor && events.len() < most {
            let since = until.minus(look).max(floor);
            events.extend(
                self.rows(terms, (Some(since), Some(until)), order, most - events.len())
                    .await?,
            );
            until = since;
            look = look.saturating_mul(GROWTH);
        }
        Ok(events)
    }

    async fn rows(
        &self,
        terms: &Terms,
        part: (Option<Timestamp>, Option<Timestamp>),
        order: Order,
        most: usize,
    ) -> Result<Vec<StoredEvent>, QueryError> {
        let rows = self
            .context
            .read_table(self.tables.table(Table::Events, &terms.scope))
            .map_err(fault)?;
        let wanted = conditions(&terms.conditions)
            .and(times(Table::Events, &[part]))
            .and(beyond(order));
        let page = rows
            .filter(wanted)
            .and_then(|rows| rows.sort(sorting(order)))
            .and_then(|rows| rows.limit(0, Some(most)))
            .map_err(fault)?;
        let mut events = Vec::new();
        for batch in page.collect().await.map_err(fault)? {
            events.extend(to_events(&batch).map_err(|error| fault(error.into()))?);
        }
        Ok(events)
    }
}

fn beyond(order: Order) -> Expr {
    let (partition, offset) = (|| ident("partition"), || ident("offset"));
    match order {
        Order::Newest(None) | Order::Arrival(None) => lit(true),
        Order::Newest(Some((at, place))) => {
            let earlier = partition()
                .lt(lit(place.partition))
                .or(partition().eq(lit(place.partition)).and(offset().lt(lit(place.offset))));
            ident("timestamp")
                .lt(time(at))
                .or(ident("timestamp").eq(time(at)).and(earlier))
        }
        Order::Arrival(Some(place)) => partition()
            .gt(lit(place.partition))
            .or(partition().eq(lit(place.partition)).and(offset().gt(lit(place.offset)))),
    }
}

pub(super) fn sorting(order: Order) -> Vec<SortExpr> {
    let by = |name: &str, ascending: bool| ident(name).sort(ascending, false);
    match order {
        Order::Newest(_) => vec![by("timestamp", false), by("partition", false), by("offset", false)],
        Order::Arrival(_) => vec![by("partition", true), by("offset", true)],
    }
}
