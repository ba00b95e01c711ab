//! Manifests: folders of YAML files, each with any number of objects.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::API_VERSION;
use crate::server::McpServer;

/// Largest file read, in bytes: an `MCPServer` is some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

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
    #[error("{}: {message}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column where known.
        message: String,
    },
}

/// Every `MCPServer` in the `.yaml` and `.yml` files of a folder, in order of file names, with the faults found beside them.
/// Objects of other kinds are passed over.
pub fn read_servers(folder: &Path) -> Result<(Vec<McpServer>, Vec<ManifestError>), ManifestError> {
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
    let (mut servers, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        match read_text(&path) {
            Ok(text) => read_documents(&path, &text, &mut servers, &mut faults),
            Err(fault) => faults.push(fault),
        }
    }
    Ok((servers, faults))
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

fn read_documents(path: &Path, text: &str, servers: &mut Vec<McpServer>, faults: &mut Vec<ManifestError>) {
    let mut line = 0;
    for document in text.split("\n---") {
        let first_line = line;
        line += document.matches('\n').count() + 1;
        match read_document(document) {
            Ok(server) => servers.extend(server),
            Err(message) => faults.push(ManifestError::Invalid {
                path: path.to_owned(),
                message: if first_line == 0 {
                    message
                } else {
                    format!("document from line {}: {message}", first_line + 1)
                },
            }),
        }
    }
}

/// One document: a server, or `None` when it is empty or of another kind.
fn read_document(text: &str) -> Result<Option<McpServer>, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
    }
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(None);
    }
    let head: Head = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if head.kind != "MCPServer" {
        return Ok(None);
    }
    if head.api_version != API_VERSION {
        return Err(format!("apiVersion is {:?}, expected {API_VERSION:?}", head.api_version));
    }
    serde_saphyr::from_str(text).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: mcpruntime.org/v1alpha1\nkind: MCPServer\nmetadata:\n  name: payments\n  namespace: acme\nspec:\n  port: 3001\n  gateway:\n    enabled: true\n";

    #[test]
    fn a_bad_document_does_not_take_its_neighbours_down() {
        let text = format!(
            "{GOOD}\n---\nkind: ConfigMap\nmetadata: {{name: x}}\n---\n{}---\n# nothing\n",
            GOOD.replace("port:", "prot:")
        );
        let (mut servers, mut faults) = (Vec::new(), Vec::new());
        read_documents(Path::new("a.yaml"), &text, &mut servers, &mut faults);
        assert_eq!(servers.len(), 1);
        assert_eq!(
            (servers[0].prefix(), servers[0].upstream().as_str()),
            ("payments", "http://127.0.0.1:3001/mcp")
        );
        assert_eq!(faults.len(), 1);
        let message = faults[0].to_string();
        assert!(message.contains("a.yaml") && message.contains("prot"), "{message}");
    }

    #[test]
    fn the_namespace_has_a_default() {
        let server = read_document(&GOOD.replace("  namespace: acme\n", "")).unwrap().unwrap();
        assert_eq!(server.metadata.namespace.as_str(), "mcp-servers");
    }
}
