//! The gateway between a real client and real servers, all in this process.

mod columns;
mod delivery;
mod passing;
mod support;
