//! The key file as a command: keys made, listed and ended.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use domain::Timestamp;
use service_kit::error::Chain;
use service_kit::{Clock, parse_duration};

use crate::keys::KeyStoreError;
use crate::{KeyStore, NewKeyRequest};

/// Makes, lists and ends the keys in the file that ingest reads. Ingest takes changes in without a restart.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentinel-keys", version)]
pub struct Command {
    /// File with the hashed ingest keys.
    #[arg(
        long,
        env = "SENTINEL_INGEST_KEYS_FILE",
        hide_env_values = true,
        default_value = "/etc/mcp-sentinel/ingest-keys.json",
        value_name = "FILE"
    )]
    pub file: PathBuf,

    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the file.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Makes a key and prints it, the only time that it is seen.
    Create {
        /// Namespace that the key may write; `*` for any.
        #[arg(long)]
        namespace: String,
        /// Server that it may write [default: any of the namespace].
        #[arg(long)]
        server: Option<String>,
        /// How long it works, such as `90d` [default: until it is revoked].
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// Most events per second.
        #[arg(long, value_name = "COUNT")]
        events_per_second: Option<NonZeroU32>,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Lists the keys, never their secrets.
    List,
    /// Ends a key now.
    Revoke {
        /// Public part of the key.
        id: String,
    },
}

/// Does what was asked for, and gives the exit code.
pub fn run(command: Command) -> ExitCode {
    let (text, code) = match carry_out(command) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("error: {:#}\n", Chain(&error)), ExitCode::FAILURE),
    };
    // Nobody is left to tell when the output is closed.
    let _closed = if code == ExitCode::SUCCESS {
        io::stdout().write_all(text.as_bytes())
    } else {
        io::stderr().write_all(text.as_bytes())
    };
    code
}

fn carry_out(command: Command) -> Result<String, KeyStoreError> {
    let clock = Clock::system();
    let now = Timestamp::from_nanos(clock.unix_ns());
    let store = KeyStore::new(command.file, clock);
    match command.action {
        Action::Create {
            namespace,
            server,
            expires_in,
            events_per_second,
            note,
        } => {
            let request = NewKeyRequest {
                namespace,
                server,
                expires_at: expires_in.map(|time| now.plus(time)),
                events_per_second_max: events_per_second,
                note,
            };
            Ok(format!("{}\n", store.create(request)?.key))
        }
        Action::Revoke { id } => Ok(format!("revoked {}\n", store.revoke(&id)?.id)),
        Action::List => {
            let mut text = String::new();
            for key in store.list()? {
                let state = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => format!("revoked {at}"),
                    (None, Some(at)) if at <= now => format!("expired {at}"),
                    (None, Some(at)) => format!("works until {at}"),
                    (None, None) => "works".to_owned(),
                };
                let server = key.server.as_deref().unwrap_or("*");
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, "{}  {}/{server}  {state}  {}", key.id, key.namespace, key.note);
            }
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(file: &std::path::Path, args: &[&str]) -> Result<String, KeyStoreError> {
        let file = file.to_str().unwrap();
        let all = ["sentinel-keys", "--file", file].into_iter().chain(args.iter().copied());
        carry_out(Command::try_parse_from(all).unwrap())
    }

    #[test]
    fn a_key_is_made_shown_once_listed_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        let key = said(&file, &["create", "--namespace", "acme", "--note", "gateway"]).unwrap();
        assert!(key.starts_with("mcpi_"), "{key}");
        let id = key.split('_').nth(1).unwrap();
        let listed = said(&file, &["list"]).unwrap();
        assert_eq!(listed, format!("{id}  acme/*  works  gateway\n"));
        assert_eq!(said(&file, &["revoke", id]).unwrap(), format!("revoked {id}\n"));
        assert!(said(&file, &["list"]).unwrap().contains("revoked 2"));
        assert!(said(&file, &["revoke", "nobody"]).is_err());
    }
}
