//! Figures of the last minutes: how many, and how fresh. Fixed memory. Pure.

use std::time::Duration;

const MINUTES: usize = 5;
const SECONDS: usize = 60;
/// Four steps to each doubling, from 0.1 ms on: 96 steps reach half an hour, each within 19 % of the truth.
const STEPS: usize = 96;
const STEP_FIRST_MS: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Window {
    /// Freshness by minute; each belongs to the minute it names.
    minutes: [(u64, [u32; STEPS]); MINUTES],
    /// Events by second; each belongs to the second it names.
    seconds: [(u64, u64); SECONDS],
    /// When the first event came.
    since: Option<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            minutes: [(u64::MAX, [0; STEPS]); MINUTES],
            seconds: [(u64::MAX, 0); SECONDS],
            since: None,
        }
    }
}

impl Window {
    /// Takes note of an event that became visible at `now`, so long after its receipt.
    pub(crate) fn note(&mut self, now: Duration, freshness: Duration) {
        let second = now.as_secs();
        self.since.get_or_insert(second);
        let slot = &mut self.seconds[place(second, SECONDS)];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
        let minute = second / 60;
        let slot = &mut self.minutes[place(minute, MINUTES)];
        if slot.0 != minute {
            *slot = (minute, [0; STEPS]);
        }
        let step = &mut slot.1[step_of(freshness)];
        *step = step.saturating_add(1);
    }

    /// Events per second over the last minute, or since the first event when that is less.
    pub(crate) fn per_second(&self, now: Duration) -> f64 {
        let now = now.as_secs();
        let Some(since) = self.since else { return 0.0 };
        let recent = self
            .seconds
            .iter()
            .filter(|(second, _)| *second <= now && now - second < SECONDS as u64);
        let events: u64 = recent.map(|(_, events)| events).sum();
        let seconds = (now.saturating_sub(since) + 1).min(SECONDS as u64);
        as_f64(events) / as_f64(seconds)
    }

    /// The freshness in milliseconds that the share `part` of the last minutes' events is within; `None` without events.
    pub(crate) fn quantile_ms(&self, now: Duration, part: f64) -> Option<f64> {
        let minute = now.as_secs() / 60;
        let recent = || {
            self.minutes
                .iter()
                .filter(|(of, _)| *of <= minute && minute - of < MINUTES as u64)
                .map(|(_, steps)| steps)
        };
        let total: u64 = recent().flatten().map(|count| u64::from(*count)).sum();
        let wanted = as_f64(total) * part;
        let mut below = 0_u64;
        (total > 0).then_some(())?;
        (0..STEPS).find_map(|step| {
            below += recent().map(|steps| u64::from(steps[step])).sum::<u64>();
            (as_f64(below) >= wanted).then(|| upper_ms(step))
        })
    }
}

fn place(number: u64, slots: usize) -> usize {
    usize::try_from(number % slots as u64).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of minutes stay far below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the steps there are"
)]
fn step_of(freshness: Duration) -> usize {
    let doublings = (freshness.as_secs_f64() * 1_000.0 / STEP_FIRST_MS).max(1.0).log2();
    (doublings * 4.0).ceil().clamp(0.0, 95.0) as usize
}

#[expect(clippy::cast_precision_loss, reason = "fewer than a hundred steps")]
fn upper_ms(step: usize) -> f64 {
    STEP_FIRST_MS * (step as f64 / 4.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_and_old_minutes_are_forgotten() {
        let mut window = Window::default();
        assert_eq!(window.quantile_ms(Duration::ZERO, 0.5), None);
        for ms in 1..=1_000 {
            window.note(Duration::from_mins(10), Duration::from_millis(ms));
        }
        for (part, truth) in [(0.5, 500.0), (0.99, 990.0)] {
            let told = window.quantile_ms(Duration::from_secs(630), part).unwrap();
            assert!((truth..truth * 1.2).contains(&told), "{told} for {truth}");
        }
        window.note(Duration::from_mins(14), Duration::from_hours(2));
        let told = window.quantile_ms(Duration::from_secs(1_000), 0.5).unwrap();
        assert!(told > 1_000_000.0, "only the late one is left, in the last step: {told}");
        assert_eq!(window.quantile_ms(Duration::from_secs(2_000), 0.5), None);
    }

    #[test]
    fn rate_is_over_a_minute_or_since_the_first_event() {
        let mut window = Window::default();
        assert!(window.per_second(Duration::from_secs(9)) < f64::EPSILON);
        for second in 100..110 {
            for _ in 0..50 {
                window.note(Duration::from_secs(second), Duration::ZERO);
            }
        }
        assert!((window.per_second(Duration::from_secs(109)) - 50.0).abs() < 1e-9);
        assert!((window.per_second(Duration::from_secs(159)) - 500.0 / 60.0).abs() < 1e-9);
        assert!(window.per_second(Duration::from_secs(400)) < f64::EPSILON);
    }
}
