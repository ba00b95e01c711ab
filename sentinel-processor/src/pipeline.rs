//! The loop: lease, insert, commit. While one batch goes into the store, the next is read.

use anyhow::Context as _;
use sentinel_queue::dead_letters::DeadLetters;
use sentinel_queue::{EventTail, Lease, Remedy};
use sentinel_store::EventWriter;
use service_kit::Shutdown;
use tokio::time::sleep;

use crate::intake::{CommitWhen, Fetched, IDLE, Intake, TICK};
use crate::outlet::{Outlet, Settled};

/// The queue may hold an append whose event was received a moment ago. An idle pipeline vouches for what is older than this.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(250);

pub(crate) async fn run<T, W, D>(mut intake: Intake<T>, outlet: Outlet<W, D>, shutdown: Shutdown) -> anyhow::Result<()>
where
    T: EventTail,
    W: EventWriter,
    D: DeadLetters,
{
    intake.restore(&outlet.status).await;
    outlet.ready.set_ready();
    intake.health.starts();
    outlet.status.set_aside(outlet.dead_letters.count());
    let (mut next, mut patience) = (None, IDLE);
    loop {
        if intake.is_over(&shutdown) {
            tracing::info!(
                waiting = intake.lag().events,
                "stopping with events left in the queue; they stay there"
            );
            break;
        }
        let fetched = match next.take() {
            Some(lease) => Fetched::Lease(lease),
            None => wait(&mut intake, &shutdown, patience).await?,
        };
        match fetched {
            Fetched::Lease(lease) => {
                patience = IDLE;
                intake.seen(lease.span.partition);
                let (settled, read) = settle(&mut intake, &outlet, lease).await?;
                if settled == Settled::Abandoned {
                    tracing::warn!(
                        waiting = intake.lag().events,
                        "stopping while the store refuses events; they stay in the queue"
                    );
                    return Ok(());
                }
                next = read;
                intake
                    .commit(CommitWhen::Seldom, &outlet.status, |partition| {
                        outlet.store.durable_end(partition)
                    })
                    .await
                    .context("committing to the queue")?;
            }
            Fetched::Nothing if intake.is_empty() => {
                if shutdown.is_requested() {
                    break;
                }
                patience = TICK;
                outlet.store.advance(outlet.now().minus(SETTLED));
                intake
                    .commit(CommitWhen::Now, &outlet.status, |partition| {
                        outlet.store.durable_end(partition)
                    })
                    .await
                    .context("committing to the queue")?;
            }
            Fetched::Nothing => {}
            Fetched::Closed => break,
        }
        tell(&intake, &outlet);
    }
    finish(intake, outlet).await
}

/// Waits for events, but no longer than until shutdown, after which only what is there already is taken.
async fn wait<T: EventTail>(
    intake: &mut Intake<T>,
    shutdown: &Shutdown,
    patience: std::time::Duration,
) -> anyhow::Result<Fetched> {
    let fetched = if shutdown.is_requested() {
        intake.fetch(IDLE).await
    } else {
        match shutdown.or(intake.fetch(patience)).await {
            Some(fetched) => fetched,
            None => return Ok(Fetched::Nothing),
        }
    };
    match fetched {
        Err(error) if error.remedy() == Remedy::Retry => {
            intake.health.refused(&error);
            sleep(TICK).await;
            return Ok(Fetched::Nothing);
        }
        Ok(Fetched::Nothing) => intake.health.gave_nothing(),
        Ok(_) => intake.health.gave(),
        Err(_) => {}
    }
    fetched.context("reading from the queue")
}

/// Settles a lease, and reads the next one meanwhile.
async fn settle<T, W, D>(
    intake: &mut Intake<T>,
    outlet: &Outlet<W, D>,
    lease: Lease,
) -> anyhow::Result<(Settled, Option<Lease>)>
where
    T: EventTail,
    W: EventWriter,
    D: DeadLetters,
{
    let settling = outlet.settle(lease);
    tokio::pin!(settling);
    let mut next = None;
    let mut may_read = true;
    loop {
        tokio::select! {
            biased;
            settled = &mut settling => return Ok((settled?, next)),
            // Faults of the queue come again when this batch is done, and are handled there.
            fetched = intake.fetch(TICK), if may_read => match fetched {
                Ok(Fetched::Lease(lease)) => (next, may_read) = (Some(lease), false),
                Ok(Fetched::Nothing) => tell(intake, outlet),
                Ok(Fetched::Closed) | Err(_) => may_read = false,
            },
            () = sleep(TICK), if !may_read => tell(intake, outlet),
        }
    }
}

/// Shows how it stands to whoever looks.
fn tell<T: EventTail, W: EventWriter, D: DeadLetters>(intake: &Intake<T>, outlet: &Outlet<W, D>) {
    let lag = intake.lag();
    outlet.metrics.lag(lag, outlet.dead_letters.count());
    outlet.status.set_lag(lag);
}

async fn finish<T: EventTail, W: EventWriter, D: DeadLetters>(
    mut intake: Intake<T>,
    outlet: Outlet<W, D>,
) -> anyhow::Result<()> {
    tell(&intake, &outlet);
    outlet.store.flush().await.context("flushing the store")?;
    intake
        .commit(CommitWhen::Now, &outlet.status, |partition| {
            outlet.store.durable_end(partition)
        })
        .await
        .context("committing to the queue")?;
    tracing::info!(waiting = intake.lag().events, "everything handed out is stored and committed");
    Ok(())
}
