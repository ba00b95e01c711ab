//! The typed answers, put together from counts and pages.

use domain::analytics::{EventsPage, Horizon, PageMeta, SeriesReport, Served, ToolsReport, UsageReport, ValueCount};
use futures::try_join;

use super::ClickHouseStore;
use super::count::{coarser, tally};
use super::pages::page;
use crate::QueryError;
use crate::memory::grouping::Grouping;
use crate::memory::tally;
use crate::memory::{now, terms::Terms};
use crate::query::{EventQuery, Order, SeriesQuery, ToolsQuery, UsageQuery, ValuesQuery};

impl ClickHouseStore {
    pub(super) fn horizon_now(&self) -> Horizon {
        Horizon {
            as_of: now(),
            complete_through: self.watermark.borrow().complete_through,
        }
    }

    pub(super) async fn events_page(&self, query: EventQuery) -> Result<EventsPage, QueryError> {
        let terms = Terms::check(&query.filter)?;
        // Before the events are looked at, so that it never promises what the page does not have.
        let horizon = self.horizon_now();
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        // One more than asked for tells whether there is more.
        let mut events = page(&self.link, &terms, query.order, u64::from(query.limit) + 1).await?;
        let has_more = events.len() > limit;
        events.truncate(limit);
        Ok(EventsPage {
            events,
            meta: PageMeta {
                limit: query.limit,
                has_more,
                next_cursor: None,
            },
            horizon,
        })
    }

    pub(super) async fn usage_report(&self, query: UsageQuery) -> Result<UsageReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let steps = tally::steps(since, until, query.step)?;
        let horizon = self.horizon_now();
        let (link, terms, limit) = (&self.link, &terms, Some(query.limit));
        let groupings = (
            Grouping::totals()?,
            Grouping::servers()?,
            Grouping::actors()?,
            Grouping::tool_usage()?,
            Grouping::decisions()?,
            Grouping::usage_series(query.step)?,
        );
        let (totals, servers, actors, tools, decisions, series, recent) = try_join!(
            tally(link, terms, &groupings.0, None),
            tally(link, terms, &groupings.1, limit),
            tally(link, terms, &groupings.2, limit),
            tally(link, terms, &groupings.3, limit),
            tally(link, terms, &groupings.4, None),
            tally(link, terms, &groupings.5, None),
            page(link, terms, Order::Newest(None), u64::from(query.limit)),
        )?;
        // People are not in the rollups of tools: what asks for them always reads events, and is not told of.
        let served_from = [totals.1, servers.1, decisions.1, series.1]
            .into_iter()
            .fold(Served::Raw, coarser);
        Ok(UsageReport {
            totals: tally::totals(totals.0),
            servers: tally::servers(servers.0, query.limit),
            actors: tally::actors(actors.0, query.limit),
            tools: tally::tool_usage(tools.0, query.limit),
            decisions: tally::decisions(decisions.0),
            series: tally::usage_series(series.0, &steps),
            recent,
            horizon,
            served_from,
        })
    }

    pub(super) async fn series_report(&self, query: SeriesQuery) -> Result<SeriesReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let buckets = tally::steps(since, until, query.step)?;
        let horizon = self.horizon_now();
        let keys = tally(&self.link, &terms, &Grouping::keys(query.by)?, Some(query.top))
            .await?
            .0;
        let top = tally::top_keys(keys, query.top);
        let grouping = Grouping::series(query.by, query.metric, query.step, top.clone())?;
        let (tallies, served_from) = tally(&self.link, &terms, &grouping, None).await?;
        Ok(SeriesReport {
            step_seconds: query.step.as_secs(),
            series: tally::series(tallies, top, query.by, query.metric, &buckets),
            buckets,
            horizon,
            served_from,
        })
    }

    pub(super) async fn tools_report(&self, query: ToolsQuery) -> Result<ToolsReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let before = terms.window_before()?;
        let horizon = self.horizon_now();
        let (now, then) = (Grouping::tool_rows()?, Grouping::tool_calls()?);
        let (tools, before) = try_join!(
            tally(&self.link, &terms, &now, Some(query.limit)),
            tally(&self.link, &before, &then, None)
        )?;
        Ok(ToolsReport {
            tools: tally::tool_rows(tools.0, &before.0, query.limit),
            horizon,
            served_from: tools.1,
        })
    }

    pub(super) async fn value_counts(&self, query: ValuesQuery) -> Result<Vec<ValueCount>, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let grouping = Grouping::values(&query.column)?;
        let (tallies, _) = tally(&self.link, &terms, &grouping, Some(query.limit)).await?;
        Ok(tally::values(tallies, query.limit))
    }
}
