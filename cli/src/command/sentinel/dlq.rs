//! `sentinel dlq`: records that could not be stored.

use clap::Subcommand;
use domain::operations::DeadLetter;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

const PATH: &str = "/api/v1/sentinel/dlq";

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, oldest first
    #[command(after_help = "Example:\n  mcp-runtime sentinel dlq list")]
    List {
        /// Only those after this id
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Most letters
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one with its record
    #[command(after_help = "Example:\n  mcp-runtime sentinel dlq show 3")]
    Show {
        /// Id, as listed
        id: u64,
    },
    /// Send one through the queue again, and take it off the list when the queue has it
    #[command(after_help = "Example:\n  mcp-runtime sentinel dlq replay 3")]
    Replay {
        /// Id, as listed
        id: u64,
    },
    /// Take one off the list for good
    #[command(after_help = "Example:\n  mcp-runtime sentinel dlq discard 3")]
    Discard {
        /// Id, as listed
        id: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Letters {
    dead_letters: Vec<DeadLetter>,
}

/// What became of a dead letter.
#[derive(Debug, Serialize, Deserialize)]
struct Settled {
    id: u64,
    done: String,
}

pub(crate) async fn run(client: &Client, output: Output, command: DlqCommand) -> Result<Done, Fault> {
    match command {
        DlqCommand::List { after, limit } => {
            let query = [("after", after.to_string()), ("limit", limit.to_string())];
            let letters: Letters = client.get(PATH, &query).await?;
            render::document(output, &letters, list)?;
        }
        DlqCommand::Show { id } => {
            let letter: DeadLetter = client.get(&format!("{PATH}/{id}"), &[]).await?;
            render::document(output, &letter, |letter| {
                format!(
                    "{}\n\n{}\n\n{}",
                    heading(letter),
                    text::safe(&letter.reason),
                    text::safe(&letter.record)
                )
            })?;
        }
        DlqCommand::Replay { id } => {
            let done: Settled = client.send(Method::POST, &format!("{PATH}/{id}/replay"), None).await?;
            render::document(output, &done, |done| {
                format!("Dead letter {} is in the queue again.", done.id)
            })?;
        }
        DlqCommand::Discard { id } => {
            let done: Settled = client.send(Method::DELETE, &format!("{PATH}/{id}"), None).await?;
            render::document(output, &done, |done| format!("Dead letter {} is discarded.", done.id))?;
        }
    }
    Ok(Done::Well)
}

fn heading(letter: &DeadLetter) -> String {
    format!(
        "Dead letter {}, set aside {} UTC, from partition {} offset {}",
        letter.id,
        text::moment(letter.set_aside_at),
        letter.partition,
        letter.offset
    )
}

fn list(letters: &Letters) -> String {
    if letters.dead_letters.is_empty() {
        return "No dead letters.".to_owned();
    }
    let rows = letters.dead_letters.iter().map(|letter| {
        vec![
            letter.id.to_string(),
            text::moment(letter.set_aside_at),
            format!("{}:{}", letter.partition, letter.offset),
            text::safe(&letter.reason),
        ]
    });
    render::table(&["ID", "SET ASIDE (UTC)", "FROM", "REASON"], rows)
}
