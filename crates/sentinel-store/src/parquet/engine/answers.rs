//! The typed answers, put together from counts and pages.

use std::sync::Arc;

use domain::analytics::{EventsPage, Horizon, PageMeta, SeriesReport, Served, ToolsReport, UsageReport, ValueCount};

use super::typed::Asking;
use super::{Engine, Tables};
use crate::QueryError;
use crate::memory::tally::{self, Grouping};
use crate::memory::{now, terms::Terms};
use crate::query::{EventQuery, Order, SeriesQuery, ToolsQuery, UsageQuery, ValuesQuery};

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
            let mut served_from = Served::Raw;
            Ok(UsageReport {
                totals: tally::totals(asking.tally(terms, Grouping::totals()?, &mut served_from).await?),
                servers: tally::servers(asking.tally(terms, Grouping::servers()?, &mut served_from).await?, limit),
                // People are not in the rollups: what follows always reads events.
                actors: tally::actors(asking.tally(terms, Grouping::actors()?, &mut Served::Raw).await?, limit),
                tools: tally::tool_usage(asking.tally(terms, Grouping::tool_usage()?, &mut Served::Raw).await?, limit),
                decisions: tally::decisions(asking.tally(terms, Grouping::decisions()?, &mut served_from).await?),
                series: tally::usage_series(
                    asking
                        .tally(terms, Grouping::usage_series(query.step)?, &mut served_from)
                        .await?,
                    &steps,
                ),
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
            let mut served_from = Served::Raw;
            let top = tally::top_keys(
                asking.tally(&terms, Grouping::keys(query.by)?, &mut Served::Raw).await?,
                query.top,
            );
            let grouping = Grouping::series(query.by, query.metric, query.step, top.clone())?;
            let tallies = asking.tally(&terms, grouping, &mut served_from).await?;
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
            let mut served_from = Served::Raw;
            let before = asking.tally(&before, Grouping::tool_calls()?, &mut Served::Raw).await?;
            let tools = tally::tool_rows(
                asking.tally(&terms, Grouping::tool_rows()?, &mut served_from).await?,
                &before,
                query.limit,
            );
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
            Ok(tally::values(
                asking.tally(&terms, grouping, &mut Served::Raw).await?,
                query.limit,
            ))
        })
        .await
    }
}
