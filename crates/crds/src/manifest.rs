//! Manifests: folders of YAML files, each with any number of objects.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::API_VERSION;
use crate::grant::McpAccessGrant;
use crate::server::McpServer;
use crate::session::McpAgentSession;

/// Largest file read, in bytes: a file of ten thousand sessions has some two megabytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Everything of ours in a folder, in order of file names and of places within files.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Servers.
    pub servers: Vec<McpServer>,
    /// Grants.
    pub grants: Vec<McpAccessGrant>,
    /// Sessions.
    pub sessions: Vec<McpAgentSession>,
    /// What could not be used. Everything else is unaffected.
    pub faults: Vec<ManifestError>,
    places: HashMap<(&'static str, String, String), Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    line: u64,
}

/// A manifest that cannot be used. Others in the folder are not affected.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The folder or file cannot be read.
    #[error("reading {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any manifest.
    #[error("{} has {bytes} bytes, at most {FILE_BYTES_MAX} are read; split it", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A document is no object of ours.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// In which line, counted from one.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// An object is there twice; the first one counts.
    #[error("{}:{line}: {kind} {object} is already in {first}; remove one of them", path.display())]
    Repeated {
        /// Which file.
        path: PathBuf,
        /// In which line its document begins.
        line: u64,
        /// Its kind.
        kind: &'static str,
        /// Its namespace and name.
        object: String,
        /// File and line of the first one.
        first: String,
    },
}

/// Every object of ours in the `.yaml` and `.yml` files of a folder, with the faults found beside them. Objects of other kinds are
/// passed over.
pub fn read_manifests(folder: &Path) -> Result<Manifests, ManifestError> {
    let unreadable = |source| ManifestError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut manifests = Manifests::default();
    for path in paths {
        match read_text(&path) {
            Ok(text) => manifests.take(&path, &text),
            Err(fault) => manifests.faults.push(fault),
        }
    }
    Ok(manifests)
}

/// The servers among [`read_manifests`], with the faults found beside them.
pub fn read_servers(folder: &Path) -> Result<(Vec<McpServer>, Vec<ManifestError>), ManifestError> {
    let manifests = read_manifests(folder)?;
    Ok((manifests.servers, manifests.faults))
}

impl Manifests {
    /// Takes in the objects of one file's text; `path` is for messages.
    pub fn take(&mut self, path: &Path, text: &str) {
        for (first_line, document) in documents(text) {
            let place = Place {
                path: path.to_owned(),
                line: first_line,
            };
            if let Err(fault) = self.take_document(document, &place) {
                let line = first_line + fault.line.saturating_sub(1);
                self.faults.push(ManifestError::Invalid {
                    path: place.path,
                    line,
                    message: fault.message,
                });
            }
        }
    }

    fn take_document(&mut self, document: &str, place: &Place) -> Result<(), Fault> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
        }
        let head: Head = decode(document)?;
        if !["MCPServer", "MCPAccessGrant", "MCPAgentSession"].contains(&head.kind.as_str()) {
            return Ok(());
        }
        if head.api_version != API_VERSION {
            let line = 1 + document.lines().position(|line| line.starts_with("apiVersion")).unwrap_or(0);
            return Err(Fault {
                line: line as u64,
                message: format!("apiVersion is {:?}, expected {API_VERSION:?}", head.api_version),
            });
        }
        match head.kind.as_str() {
            "MCPServer" => {
                let server: McpServer = decode(document)?;
                if self.is_new(
                    "MCPServer",
                    server.metadata.namespace.as_str(),
                    server.metadata.name.as_str(),
                    place,
                ) {
                    self.servers.push(server);
                }
            }
            "MCPAccessGrant" => {
                let grant: McpAccessGrant = decode(document)?;
                if self.is_new(
                    "MCPAccessGrant",
                    grant.metadata.namespace.as_str(),
                    grant.metadata.name.as_str(),
                    place,
                ) {
                    self.grants.push(grant);
                }
            }
            _ => {
                let session: McpAgentSession = decode(document)?;
                if self.is_new(
                    "MCPAgentSession",
                    session.metadata.namespace.as_str(),
                    session.metadata.name.as_str(),
                    place,
                ) {
                    self.sessions.push(session);
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, kind: &'static str, namespace: &str, name: &str, place: &Place) -> bool {
        let key = (kind, namespace.to_owned(), name.to_owned());
        if let Some(first) = self.places.get(&key) {
            let fault = ManifestError::Repeated {
                path: place.path.clone(),
                line: place.line,
                kind,
                object: format!("{namespace}/{name}"),
                first: format!("{}:{}", first.path.display(), first.line),
            };
            self.faults.push(fault);
            return false;
        }
        self.places.insert(key, place.clone());
        true
    }
}

/// What is wrong within a document, and in which of its lines.
struct Fault {
    line: u64,
    message: String,
}

fn decode<T: DeserializeOwned>(document: &str) -> Result<T, Fault> {
    serde_saphyr::from_str(document).map_err(|error| {
        let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
        let message = error.render_with_options(options);
        // The parser counts lines from the start of the document, people from the start of the file.
        let end = message.rfind(" at line ").unwrap_or(message.len());
        Fault {
            line: error.location().map_or(1, |location| location.line()),
            message: message.get(..end).unwrap_or_default().to_owned(),
        }
    })
}

fn read_text(path: &Path) -> Result<String, ManifestError> {
    let unreadable = |source| ManifestError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ManifestError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The documents of a file that are more than blanks and comments, each with the number of its first line.
///
/// They are split before they are parsed, so that a document with broken syntax does not take those after it down.
fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut found = Vec::new();
    let (mut line, mut first_line) = (0, 1);
    let (mut at, mut start) = (0, 0);
    for content in text.split_inclusive('\n') {
        line += 1;
        if content.trim_end() == "---" || content.starts_with("--- #") {
            found.push((first_line, text.get(start..at).unwrap_or_default()));
            (first_line, start) = (line + 1, at + content.len());
        }
        at += content.len();
    }
    found.push((first_line, text.get(start..).unwrap_or_default()));
    found.into_iter().filter(|(_, document)| {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        !document.lines().all(blank)
    })
}

#[cfg(test)]
mod tests;
