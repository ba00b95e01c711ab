//! What the kernel knows of this process, read from `/proc` at each scrape. Elsewhere there is nothing to read, and the metrics
//! are absent.

use std::fmt;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Linux counts processor time for user space in hundredths of a second, whatever the kernel's own tick.
const TICK_MS: u64 = 10;

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
            put(
                "process_cpu_seconds",
                "User and system processor time",
                &ConstCounter::new(seconds),
            )?;
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(bytes) = status_number(&status, "VmRSS:").and_then(|kib| kib.checked_mul(1_024)) {
                put("process_resident_memory_bytes", "Resident memory", &ConstGauge::new(bytes))?;
            }
            if let Some(bytes) = status_number(&status, "VmSize:").and_then(|kib| kib.checked_mul(1_024)) {
                put("process_virtual_memory_bytes", "Virtual memory", &ConstGauge::new(bytes))?;
            }
            if let Some(threads) = status_number(&status, "Threads:") {
                put("process_threads", "Threads", &ConstGauge::new(threads))?;
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // Listing the folder holds one descriptor open itself.
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX).saturating_sub(1);
            put("process_open_fds", "Open file descriptors", &ConstGauge::new(open))?;
        }
        if let Some(max) = fs::read_to_string("/proc/self/limits")
            .ok()
            .as_deref()
            .and_then(open_files_max)
        {
            put(
                "process_max_fds",
                "Most file descriptors the process may open",
                &ConstGauge::new(max),
            )?;
        }
        Ok(())
    }
}

/// The name of the program is in parentheses and may itself contain any character, so counting starts after the last one.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some(Duration::from_millis(ticks.checked_mul(TICK_MS)?).as_secs_f64())
}

fn status_number(status: &str, key: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_files_max(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, open_files_max, status_number};

    #[test]
    fn processor_time_is_read_after_an_odd_program_name() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 50";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn status_lines_are_found_by_name() {
        let status = "Name:\tprobe\nVmSize:\t  2048 kB\nVmRSS:\t   512 kB\nThreads:\t3\n";
        assert_eq!(status_number(status, "VmRSS:"), Some(512));
        assert_eq!(status_number(status, "Threads:"), Some(3));
        assert_eq!(status_number(status, "VmSwap:"), None);
    }

    #[test]
    fn an_unlimited_number_of_files_is_no_number() {
        assert_eq!(
            open_files_max("Max open files            1024                 4096                 files"),
            Some(1024)
        );
        assert_eq!(
            open_files_max("Max open files            unlimited            unlimited            files"),
            None
        );
    }
}
