//! Sending what a registry lacks: layers in pieces that can go on after a break, then manifests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, StatusCode, header};
use indicatif::ProgressBar;
use reqwest::{Method, Url};
use serde::Serialize;

use super::image::{Blob, Image, Manifest};
use super::remote::{Remote, unexpected};
use crate::fault::{Exit, Fault};
use crate::profile::private_file;

/// Bytes sent at once. What arrived of a piece that broke off is asked for, so it bounds memory, not loss.
const PIECE_BYTES: u64 = 8 << 20;
/// Layers on their way at once.
const LAYERS_AT_ONCE: usize = 3;
/// Breaks of one layer that are taken without giving up.
const BREAKS_MAX: u32 = 5;
const BREAK_PAUSE: Duration = Duration::from_millis(500);
/// Uploads that are remembered for the next run.
const KEPT_MAX: usize = 256;

/// How much there was to do.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Counts {
    pub(super) sent: u32,
    pub(super) present: u32,
    pub(super) mounted: u32,
    pub(super) resumed: u32,
}

/// What became of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Present,
    Mounted,
    Sent,
    /// Sent from where an earlier run had come to.
    Resumed,
}

#[derive(Debug)]
pub(super) struct Push {
    remote: Remote,
    bar: ProgressBar,
    kept: Kept,
    mount_from: Vec<String>,
}

impl Push {
    pub(super) fn new(remote: Remote, bar: ProgressBar, folder: Option<PathBuf>, mount_from: Vec<String>) -> Self {
        Self {
            remote,
            bar,
            kept: Kept::read(folder),
            mount_from,
        }
    }

    /// Sends an image under a tag, and gives the digest that the tag now means.
    pub(super) async fn image(&self, image: &Image, tag: &str) -> Result<(String, Counts), Fault> {
        let fates: Vec<Fate> = futures::stream::iter(image.blobs.iter().map(|blob| self.blob(blob)))
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect()
            .await?;
        let mut counts = Counts::default();
        for fate in fates {
            match fate {
                Fate::Present => counts.present += 1,
                Fate::Mounted => counts.mounted += 1,
                Fate::Sent => counts.sent += 1,
                Fate::Resumed => (counts.sent, counts.resumed) = (counts.sent + 1, counts.resumed + 1),
            }
        }
        let (last, inner) = image
            .manifests
            .split_last()
            .ok_or_else(|| Fault::new(Exit::Failed, "the image has no manifest"))?;
        for manifest in inner {
            self.manifest(manifest, &manifest.digest).await?;
            counts.sent += 1;
        }
        self.manifest(last, tag).await?;
        counts.sent += 1;
        self.bar.finish_and_clear();
        Ok((last.digest.clone(), counts))
    }

    async fn manifest(&self, manifest: &Manifest, reference: &str) -> Result<(), Fault> {
        let url = self.remote.url(&format!("manifests/{reference}"))?;
        let content = Bytes::from(manifest.content.clone());
        let fill = |request: reqwest::RequestBuilder| {
            request
                .header(header::CONTENT_TYPE, &manifest.media_type)
                .body(content.clone())
        };
        let response = self.remote.ask(Method::PUT, &url, fill).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(());
        }
        Err(unexpected(&format!("putting the manifest {reference}"), response).await)
    }

    /// Sees to it that the registry has a layer.
    async fn blob(&self, blob: &Blob) -> Result<Fate, Fault> {
        let url = self.remote.url(&format!("blobs/{}", blob.digest))?;
        let response = self.remote.ask(Method::HEAD, &url, |request| request).await?;
        if response.status().is_success() {
            self.bar.inc(blob.place.bytes);
            return Ok(Fate::Present);
        }
        let key = format!("{} {}", self.remote.name(), blob.digest);
        if let Some(location) = self.kept.get(&key)
            && let Some((location, at)) = self.where_it_stands(&location).await?
        {
            self.send(blob, location, at, &key).await?;
            return Ok(Fate::Resumed);
        }
        let Some(location) = self.begin(blob).await? else {
            self.bar.inc(blob.place.bytes);
            return Ok(Fate::Mounted);
        };
        self.send(blob, location, 0, &key).await?;
        Ok(Fate::Sent)
    }

    /// Begins an upload; `None` when another repository had the layer.
    async fn begin(&self, blob: &Blob) -> Result<Option<Url>, Fault> {
        let url = self.remote.url("blobs/uploads/")?;
        for from in &self.mount_from {
            let query = [("mount", blob.digest.as_str()), ("from", from)];
            let response = self.remote.ask(Method::POST, &url, |request| request.query(&query)).await?;
            match response.status() {
                StatusCode::CREATED => return Ok(None),
                // Not there, but an upload was begun all the same.
                StatusCode::ACCEPTED => return self.remote.location(response.headers()).map(Some),
                _ => {}
            }
        }
        let response = self
            .remote
            .ask(Method::POST, &url, |request| request.header(header::CONTENT_LENGTH, 0))
            .await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(unexpected("beginning an upload", response).await);
        }
        self.remote.location(response.headers()).map(Some)
    }

    /// How far an upload has come; `None` when the registry knows it no more.
    async fn where_it_stands(&self, location: &Url) -> Result<Option<(Url, u64)>, Fault> {
        let response = self.remote.ask(Method::GET, location, |request| request).await?;
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let location = self.remote.location(response.headers()).unwrap_or_else(|_| location.clone());
        Ok(Some((location, end_of(response.headers()))))
    }

    async fn send(&self, blob: &Blob, mut location: Url, mut at: u64, key: &str) -> Result<(), Fault> {
        let mut breaks = 0;
        self.bar.inc(at);
        while at < blob.place.bytes {
            self.kept.put(key, &location)?;
            let bytes = PIECE_BYTES.min(blob.place.bytes - at);
            match self.piece(blob, &location, at, bytes).await {
                Ok(next) => {
                    location = next;
                    at += bytes;
                    self.bar.inc(bytes);
                }
                Err(fault) if breaks >= BREAKS_MAX || fault.exit == Exit::NotAllowed => return Err(fault),
                Err(fault) => {
                    breaks += 1;
                    self.bar.set_message("the registry broke off; going on");
                    tokio::time::sleep(BREAK_PAUSE * breaks).await;
                    let Ok(Some((next, end))) = self.where_it_stands(&location).await else {
                        return Err(fault);
                    };
                    self.bar.inc(end.saturating_sub(at));
                    (location, at) = (next, end);
                }
            }
        }
        let url = with_digest(location, &blob.digest);
        let response = self
            .remote
            .ask(Method::PUT, &url, |request| request.header(header::CONTENT_LENGTH, 0))
            .await?;
        self.kept.forget(key)?;
        if response.status() == StatusCode::CREATED {
            return Ok(());
        }
        Err(unexpected(&format!("finishing the layer {}", blob.digest), response).await)
    }

    async fn piece(&self, blob: &Blob, location: &Url, at: u64, bytes: u64) -> Result<Url, Fault> {
        let content = Bytes::from(blob.place.read_at(at, bytes)?);
        let range = format!("{at}-{}", at + bytes - 1);
        let fill = |request: reqwest::RequestBuilder| {
            request
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &range)
                .body(content.clone())
        };
        let response = self.remote.ask(Method::PATCH, location, fill).await?;
        if response.status() == StatusCode::ACCEPTED || response.status() == StatusCode::NO_CONTENT {
            return self.remote.location(response.headers());
        }
        Err(unexpected(&format!("sending a piece of {}", blob.digest), response).await)
    }
}

/// Where the next piece begins: `Range` names the last byte there is, and says `0-0` for nothing as for one byte.
fn end_of(headers: &HeaderMap) -> u64 {
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let last = range
        .rsplit_once('-')
        .and_then(|(_, last)| last.parse::<u64>().ok())
        .unwrap_or(0);
    if last == 0 { 0 } else { last + 1 }
}

fn with_digest(mut url: Url, digest: &str) -> Url {
    url.query_pairs_mut().append_pair("digest", digest);
    url
}

/// Uploads that were begun and not finished, remembered across runs.
#[derive(Debug)]
struct Kept {
    path: Option<PathBuf>,
    begun: Mutex<BTreeMap<String, String>>,
}

impl Kept {
    /// What cannot be read is forgotten: the layers are sent from their beginning then.
    fn read(folder: Option<PathBuf>) -> Self {
        let path = folder.map(|folder| folder.join("uploads.json"));
        let text = path.as_ref().and_then(|path| std::fs::read(path).ok());
        let begun = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self {
            path,
            begun: Mutex::new(begun),
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<Url> {
        self.begun().get(key).and_then(|text| text.parse().ok())
    }

    fn put(&self, key: &str, location: &Url) -> Result<(), Fault> {
        let mut begun = self.begun();
        if begun.len() < KEPT_MAX || begun.contains_key(key) {
            begun.insert(key.to_owned(), location.to_string());
        }
        self.write(&begun)
    }

    fn forget(&self, key: &str) -> Result<(), Fault> {
        let mut begun = self.begun();
        begun.remove(key);
        self.write(&begun)
    }

    fn write(&self, begun: &BTreeMap<String, String>) -> Result<(), Fault> {
        use std::io::Write as _;
        let Some(path) = &self.path else { return Ok(()) };
        let next = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            private_file(&next)?.write_all(&serde_json::to_vec(begun)?)?;
            std::fs::rename(&next, path)
        });
        written.map_err(|error| Fault::new(Exit::Failed, format!("writing {}", path.display())).caused_by(&error))
    }
}
