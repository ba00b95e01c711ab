//! Where logins are kept: `~/.mcpruntime/config.json`, readable by its owner alone, with one account for each profile.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use domain::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::{Exit, Fault};

/// Everything that is kept.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profiles {
    /// The profile that is meant when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) accounts: BTreeMap<String, Profile>,
}

/// One login.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) api_url: String,
    /// Short token, or a key; none on the machine of a standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// What the next token is had for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry_host: Option<String>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("api_url", &self.api_url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The folder of everything the command keeps for its user.
pub(crate) fn folder(chosen: Option<&Path>) -> Option<PathBuf> {
    chosen
        .map(Path::to_owned)
        .or_else(|| std::env::home_dir().map(|home| home.join(".mcpruntime")))
}

/// A profile's name in the form that is kept.
pub(crate) fn name_of(text: &str) -> String {
    let kept = |char: char| char.is_ascii_alphanumeric() || matches!(char, '@' | '.' | '_' | '-');
    let name: String = text
        .to_lowercase()
        .chars()
        .map(|char| if kept(char) { char } else { '-' })
        .collect();
    name.trim_matches('-').to_owned()
}

impl Profiles {
    /// Reads the file; one that is not there holds nothing.
    pub(crate) fn read(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join("config.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Fault::new(Exit::Failed, format!("reading {}", path.display())).caused_by(&error)),
        };
        serde_json::from_slice(&text).map_err(|error| {
            Fault::new(Exit::Failed, format!("reading {}", path.display()))
                .caused_by(&error)
                .hint("repair the file, or remove it and log in again")
        })
    }

    /// Writes the file as a whole: a reader sees the old or the new one.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Fault> {
        let path = folder.join("config.json");
        let written = || -> std::io::Result<()> {
            private_folder(folder)?;
            let next = folder.join(format!("config.{}.tmp", std::process::id()));
            let mut file = private_file(&next)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&next, &path)
        };
        written().map_err(|error| Fault::new(Exit::Failed, format!("writing {}", path.display())).caused_by(&error))
    }

    /// The profile that is meant: the named one, which must be there, or the current one.
    pub(crate) fn chosen(&self, name: Option<&str>) -> Result<Option<(&str, &Profile)>, Fault> {
        let Some(name) = name else {
            let current = self.current.as_deref().and_then(|name| self.accounts.get_key_value(name));
            return Ok(current.map(|(name, profile)| (name.as_str(), profile)));
        };
        let found = self.accounts.get_key_value(&name_of(name));
        let (name, profile) = found.ok_or_else(|| self.unknown(name))?;
        Ok(Some((name, profile)))
    }

    pub(crate) fn unknown(&self, name: &str) -> Fault {
        let known: Vec<_> = self.accounts.keys().map(String::as_str).collect();
        Fault::new(Exit::Usage, format!("there is no profile `{name}`")).hint(if known.is_empty() {
            "log in first: mcp-runtime auth login --api-url URL".to_owned()
        } else {
            format!("profiles are: {}", known.join(", "))
        })
    }
}

#[cfg(unix)]
fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// A new file that only its owner may read, whatever was there before.
pub(crate) fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_kept_for_their_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".mcpruntime");
        assert_eq!(Profiles::read(&folder).unwrap(), Profiles::default());
        let profile = Profile {
            api_url: "http://127.0.0.1:8080".to_owned(),
            token: Some("mcpt_secret".to_owned()),
            ..Profile::default()
        };
        let profiles = Profiles {
            current: Some("ada".to_owned()),
            accounts: [("ada".to_owned(), profile.clone())].into(),
        };
        profiles.write(&folder).unwrap();
        profiles.write(&folder).unwrap();
        let read = Profiles::read(&folder).unwrap();
        assert_eq!(read, profiles);
        assert!(!format!("{read:?}").contains("secret"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder), mode(&folder.join("config.json"))), (0o700, 0o600));
        }
        assert_eq!(read.chosen(Some("ADA")).unwrap().unwrap().1, &profile);
        assert!(
            read.chosen(Some("bob"))
                .unwrap_err()
                .to_string()
                .contains("profiles are: ada")
        );
    }
}
