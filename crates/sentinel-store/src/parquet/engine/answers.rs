//! The typed answers, put together from counts and pages.

use std::sync::Arc;

use domain::analytics::{EventsPage, Horizon, PageMeta, SeriesReport, Served, ToolsReport, UsageReport, ValueCount};

use super::typed::{Asking, coarser};
use super::{Engine, Tables};
use crate::QueryError;
use crate::memory::grouping::Grouping;
use crate::memory::tally::{self, Tallies};
use crate::memory::{now, terms::Terms};
use crate::query::{Dimension, EventQuery, Order, SeriesQuery, ToolsQuery, UsageQuery, ValuesQuery};

fn horizon(tables: &dyn Tables) -> Horizon {
    Horizon {
        as_of: now(),
        complete_through: tables.complete_through(),
    }
}

impl Engine {
    fn asking(&self, tables: &Arc<dyn Tables>) -> Asking {
        Asking {
            context: self.session(),
            tables: Arc::clone(tables),
            cache: Arc::clone(&self.cache),
            groups_max: self.groups_max,
        }
    }

    pub(in crate::parquet) async fn events(
        &self,
        tables: Arc<dyn Tables>,
        query: EventQuery,
    ) -> Result<EventsPage, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (horizon, asking) = (horizon(&*tables), self.asking(&tables));
        self.run(async move {
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            // One more than asked for tells whether there is more.
            let mut events = asking.page(&terms, query.order, limit.saturating_add(1)).await?;
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
        })
        .await
    }

    pub(in crate::parquet) async fn usage(
        &self,
        tables: Arc<dyn Tables>,
        query: UsageQuery,
    ) -> Result<UsageReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let steps = tally::steps(since, until, query.step)?;
        let (horizon, asking) = (horizon(&*tables), self.asking(&tables));
        self.run(async move {
            let (terms, limit) = (&terms, query.limit);
            let mut wanted = vec![
                (Grouping::totals()?, u32::MAX),
                (Grouping::decisions()?, u32::MAX),
                (Grouping::usage_series(query.step)?, u32::MAX),
            ];
            // Without rows there is nothing to look for: people and tools by caller are in no rollup.
            if limit > 0 {
                wanted.extend([
                    (Grouping::servers()?, limit),
                    (Grouping::actors()?, limit),
                    (Grouping::tool_usage()?, limit),
                ]);
            }
            let mut counted = asking.count(terms, wanted).await?.into_iter();
            let served_from = counted
                .as_slice()
                .iter()
                .map(|(_, served)| *served)
                .fold(Served::Raw, coarser);
            let mut next = || counted.next().map(|(tallies, _)| tallies).unwrap_or_default();
            Ok(UsageReport {
                totals: tally::totals(next()),
                decisions: tally::decisions(next()),
                series: tally::usage_series(next(), &steps),
                servers: tally::servers(next(), limit),
                actors: tally::actors(next(), limit),
                tools: tally::tool_usage(next(), limit),
                recent: asking
                    .page(terms, Order::Newest(None), usize::try_from(limit).unwrap_or(usize::MAX))
                    .await?,
                horizon,
                served_from,
            })
        })
        .await
    }

    pub(in crate::parquet) async fn series(
        &self,
        tables: Arc<dyn Tables>,
        query: SeriesQuery,
    ) -> Result<SeriesReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let buckets = tally::steps(since, until, query.step)?;
        let (horizon, asking) = (horizon(&*tables), self.asking(&tables));
        self.run(async move {
            let top = match query.by {
                Dimension::None => Vec::new(),
                by => {
                    let keys = asking.count(&terms, vec![(Grouping::keys(by)?, query.top)]).await?;
                    let keys = keys.into_iter().next().map(|(keys, _)| keys).unwrap_or_default();
                    tally::top_keys(keys, query.top)
                }
            };
            let grouping = Grouping::series(query.by, query.metric, query.step, top.clone())?;
            let (tallies, served_from) = asking.tally(&terms, grouping).await?;
            let series = tally::series(tallies, top, query.by, query.metric, &buckets);
            Ok(SeriesReport {
                step_seconds: query.step.as_secs(),
                buckets,
                series,
                horizon,
                served_from,
            })
        })
        .await
    }

    pub(in crate::parquet) async fn tools(
        &self,
        tables: Arc<dyn Tables>,
        query: ToolsQuery,
    ) -> Result<ToolsReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let before = terms.window_before()?;
        let (horizon, asking) = (horizon(&*tables), self.asking(&tables));
        self.run(async move {
            let (before, _) = asking.tally(&before, Grouping::tool_calls()?).await?;
            let counted = asking.count(&terms, vec![(Grouping::tool_rows()?, query.limit)]).await?;
            let (tools, served_from) = counted.into_iter().next().unwrap_or((Tallies::new(), Served::Raw));
            let tools = tally::tool_rows(tools, &before, query.limit);
            Ok(ToolsReport {
                tools,
                horizon,
                served_from,
            })
        })
        .await
    }

    pub(in crate::parquet) async fn values(
        &self,
        tables: Arc<dyn Tables>,
        query: ValuesQuery,
    ) -> Result<Vec<ValueCount>, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (grouping, asking) = (Grouping::values(&query.column)?, self.asking(&tables));
        self.run(async move {
            let counted = asking.count(&terms, vec![(grouping, query.limit)]).await?;
            let values = counted.into_iter().next().map(|(values, _)| values).unwrap_or_default();
            Ok(tally::values(values, query.limit))
        })
        .await
    }
}
