//! Reading metrics as services tell them: sums over their labels, and quantiles of histograms. Pure.

use std::collections::BTreeMap;

/// What one or more services tell, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Exposition {
    sums: BTreeMap<String, f64>,
    /// By name: counts up to each bound, which is kept as the bits of a number so that bounds are in order.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Exposition {
    /// Adds what a service tells. Lines that are no samples are passed over: they are comments, or of a later version.
    pub(super) fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, labels, value)) = sample(line) else { continue };
            if let (Some(name), Some(bound)) = (name.strip_suffix("_bucket"), bound(labels)) {
                let buckets = self.buckets.entry(name.to_owned()).or_default();
                match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                    Some((_, count)) => *count += value,
                    None => buckets.push((bound, value)),
                }
            } else {
                *self.sums.entry(name.to_owned()).or_default() += value;
            }
        }
        for buckets in self.buckets.values_mut() {
            buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        }
    }

    /// The sum of a metric over all labels and services; 0 when nobody tells it.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.sums.get(name).copied().unwrap_or_default()
    }

    /// The same as a whole number.
    pub(super) fn count(&self, name: &str) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts; casting saturates"
        )]
        let count = self.sum(name).round() as u64;
        count
    }

    /// A quantile of a histogram, between the bounds of the bucket it is in; absent before the first observation.
    pub(super) fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let buckets = self.buckets.get(name)?;
        let (_, total) = *buckets.last()?;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut low, mut before) = (0.0, 0.0);
        for &(bound, count) in buckets {
            if count >= rank {
                // Beyond the last bound nothing is known but that it is beyond.
                let share = if count > before {
                    (rank - before) / (count - before)
                } else {
                    1.0
                };
                return Some(if bound.is_finite() { low + (bound - low) * share } else { low });
            }
            (low, before) = (bound, count);
        }
        None
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, labels, rest) = if let Some((name, rest)) = line.split_once('{') {
        let (labels, rest) = rest.rsplit_once('}')?;
        (name, labels, rest)
    } else {
        let (name, rest) = line.split_once(' ')?;
        (name, "", rest)
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The bound of a bucket.
fn bound(labels: &str) -> Option<f64> {
    let (_, rest) = labels.split_once("le=\"")?;
    let (text, _) = rest.split_once('"')?;
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "# HELP events_total Events.\n\
        events_total{namespace=\"a\"} 3\n\
        events_total{namespace=\"b } \\\" {\"} 4\n\
        lag 2.5\n\
        nonsense\n\
        insert_seconds_bucket{le=\"0.1\"} 5\n\
        insert_seconds_bucket{le=\"0.2\"} 10\n\
        insert_seconds_bucket{le=\"+Inf\"} 10\n\
        insert_seconds_count 10\n\
        # EOF\n";

    #[test]
    fn labels_and_services_are_added_up() {
        let mut told = Exposition::default();
        told.add(TOLD);
        assert_eq!(
            (told.count("events_total"), told.sum("lag"), told.count("unknown")),
            (7, 2.5, 0)
        );
        told.add(TOLD);
        assert_eq!((told.count("events_total"), told.sum("lag")), (14, 5.0));
    }

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let mut told = Exposition::default();
        assert_eq!(told.quantile("insert_seconds", 0.5), None);
        told.add(TOLD);
        let about = |quantile: f64, expected: f64| {
            let got = told.quantile("insert_seconds", quantile).unwrap();
            assert!((got - expected).abs() < 1e-9, "{quantile}: {got}");
        };
        about(0.5, 0.1);
        about(0.75, 0.15);
        about(1.0, 0.2);
    }
}
