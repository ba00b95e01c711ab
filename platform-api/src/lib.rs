//! The platform API: analytics queries over HTTP, read by the command line, the console and dashboards.
