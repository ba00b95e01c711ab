//! Mergeable summaries: latencies and distinct counts.
