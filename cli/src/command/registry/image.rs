//! Images in files: OCI layout folders, the same in a tarball, and what `docker save` wrote before it wrote layouts.
//!
//! Nothing is unpacked: a blob is a file, or a place in one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::fault::{Exit, Fault};

/// Longest manifest, index or list of contents.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// Files in a tarball; more are no image.
const ENTRIES_MAX: usize = 100_000;
/// Indexes within indexes.
const DEPTH_MAX: usize = 4;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image, ready to be sent: blobs first, then manifests, the one that gets the tag last.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) blobs: Vec<Blob>,
    pub(super) manifests: Vec<Manifest>,
    /// A tarball that had to be decompressed, removed with the image.
    _unpacked: Option<Unpacked>,
}

/// Bytes that are named by their digest.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) place: Place,
}

/// Where bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) content: Vec<u8>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Content {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug)]
struct Unpacked(PathBuf);

impl Drop for Unpacked {
    fn drop(&mut self) {
        // A file that is left behind in the folder of temporary files is no fault.
        let _left = std::fs::remove_file(&self.0);
    }
}

/// Files by their name within a layout or tarball.
struct Files(BTreeMap<String, Place>, PathBuf);

impl Image {
    /// Opens a folder or tarball. `tag` chooses among several images, where their names say tags.
    pub(super) fn open(path: &Path, tag: &str) -> Result<Self, Fault> {
        if path.is_dir() {
            return Self::of(&Files::in_folder(path)?, tag, None);
        }
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut magic = [0; 2];
        let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        if is_gzip {
            let unpacked = unpack(path)?;
            let files = Files::in_tarball(&unpacked.0)?;
            return Self::of(&files, tag, Some(unpacked));
        }
        Self::of(&Files::in_tarball(path)?, tag, None)
    }

    /// How much there is to send at most.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.place.bytes).sum()
    }

    fn of(files: &Files, tag: &str, unpacked: Option<Unpacked>) -> Result<Self, Fault> {
        let mut image = Self {
            blobs: Vec::new(),
            manifests: Vec::new(),
            _unpacked: unpacked,
        };
        if files.0.contains_key("index.json") {
            let index: Index = files.json("index.json")?;
            let chosen = choose(files, index.manifests, tag)?;
            image.add(files, &chosen, 0)?;
        } else if files.0.contains_key("manifest.json") {
            image.add_docker(files, tag)?;
        } else {
            return Err(Fault::new(Exit::Usage, format!("{} is no image", files.1.display()))
                .hint("an OCI layout has an `index.json`, a tarball of docker a `manifest.json`"));
        }
        Ok(image)
    }

    /// A manifest or index with everything it names.
    fn add(&mut self, files: &Files, named: &Descriptor, depth: usize) -> Result<(), Fault> {
        let place = files.blob(named)?;
        let content = place.read()?;
        let digest = digest_of(&content);
        if digest != named.digest {
            return Err(Fault::new(
                Exit::Failed,
                format!("the manifest {} has another content than its name says", named.digest),
            ));
        }
        let told: Content = serde_json::from_slice(&content)
            .map_err(|error| Fault::new(Exit::Failed, format!("reading the manifest {digest}")).caused_by(&error))?;
        for inner in &told.manifests {
            if depth >= DEPTH_MAX {
                return Err(Fault::new(Exit::Failed, "indexes lie within each other too deep"));
            }
            self.add(files, inner, depth + 1)?;
        }
        for named in told.config.iter().chain(&told.layers) {
            self.add_blob(Blob {
                digest: named.digest.clone(),
                place: files.blob(named)?,
            });
        }
        self.manifests.push(Manifest {
            digest,
            media_type: named.media_type.clone(),
            content,
        });
        Ok(())
    }

    fn add_blob(&mut self, blob: Blob) {
        if !self.blobs.iter().any(|known| known.digest == blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// What docker wrote before it wrote layouts: a list of images, each a configuration and plain layers. It becomes an OCI image.
    fn add_docker(&mut self, files: &Files, tag: &str) -> Result<(), Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let mut listed: Vec<Listed> = files.json("manifest.json")?;
        let is_meant = |listed: &Listed| {
            let tags = listed.repo_tags.iter().flatten();
            tags.filter_map(|name| name.rsplit_once(':')).any(|(_, named)| named == tag)
        };
        let at = listed.iter().position(is_meant).unwrap_or(0);
        if listed.is_empty() || (listed.len() > 1 && !listed.iter().any(is_meant)) {
            return Err(Fault::new(
                Exit::Usage,
                format!("the tarball holds {} images, none with the tag {tag}", listed.len()),
            ));
        }
        let listed = listed.swap_remove(at);
        let mut descriptors = Vec::new();
        for (name, media_type) in
            std::iter::once((&listed.config, OCI_CONFIG)).chain(listed.layers.iter().map(|name| (name, OCI_LAYER)))
        {
            let place = files.find(name)?;
            let digest = place.digest()?;
            descriptors.push(Descriptor {
                media_type: media_type.to_owned(),
                digest: digest.clone(),
                size: place.bytes,
                annotations: BTreeMap::new(),
            });
            self.add_blob(Blob { digest, place });
        }
        let (config, layers) = descriptors
            .split_first()
            .ok_or_else(|| Fault::new(Exit::Failed, "the image is empty"))?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        let content = manifest.to_string().into_bytes();
        self.manifests.push(Manifest {
            digest: digest_of(&content),
            media_type: OCI_MANIFEST.to_owned(),
            content,
        });
        Ok(())
    }
}

/// The one image of a layout, or the one whose name is the tag.
fn choose(files: &Files, manifests: Vec<Descriptor>, tag: &str) -> Result<Descriptor, Fault> {
    let name = |named: &Descriptor| named.annotations.get("org.opencontainers.image.ref.name").cloned();
    let is_meant = |named: &Descriptor| {
        name(named).is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag))
    };
    let at = manifests.iter().position(is_meant).or((manifests.len() == 1).then_some(0));
    let known: Vec<_> = manifests.iter().filter_map(name).collect();
    at.and_then(|at| manifests.into_iter().nth(at)).ok_or_else(|| {
        Fault::new(
            Exit::Usage,
            format!("{} holds several images, none with the tag {tag}", files.1.display()),
        )
        .hint(format!("it has: {}", known.join(", ")))
    })
}

impl Files {
    fn in_folder(folder: &Path) -> Result<Self, Fault> {
        let mut files = BTreeMap::new();
        let mut left = vec![folder.to_owned()];
        while let Some(next) = left.pop() {
            for entry in std::fs::read_dir(&next).map_err(|error| unreadable(&next, &error))? {
                let entry = entry.map_err(|error| unreadable(&next, &error))?;
                let kind = entry.metadata().map_err(|error| unreadable(&entry.path(), &error))?;
                if kind.is_dir() && files.len() < ENTRIES_MAX {
                    left.push(entry.path());
                } else if kind.is_file() {
                    let name = entry
                        .path()
                        .strip_prefix(folder)
                        .unwrap_or(&entry.path())
                        .to_string_lossy()
                        .into_owned();
                    let place = Place {
                        file: entry.path(),
                        offset: 0,
                        bytes: kind.len(),
                    };
                    files.insert(name, place);
                }
            }
        }
        Ok(Self(files, folder.to_owned()))
    }

    fn in_tarball(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut archive = tar::Archive::new(file);
        let mut files = BTreeMap::new();
        let mut links = Vec::new();
        let entries = archive.entries_with_seek().map_err(|error| unreadable(path, &error))?;
        for entry in entries.take(ENTRIES_MAX) {
            let entry = entry.map_err(|error| {
                unreadable(path, &error).hint("a tarball as `docker save` writes it, or an OCI layout folder, is expected")
            })?;
            let name = entry
                .path()
                .map_err(|error| unreadable(path, &error))?
                .to_string_lossy()
                .into_owned();
            let name = name.trim_start_matches("./").to_owned();
            if let Ok(Some(link)) = entry.link_name() {
                // Older engines wrote a layer once and linked to it afterwards.
                links.push((name, link.to_string_lossy().into_owned()));
            } else {
                let place = Place {
                    file: path.to_owned(),
                    offset: entry.raw_file_position(),
                    bytes: entry.size(),
                };
                files.insert(name, place);
            }
        }
        for (name, link) in links {
            let link = link.trim_start_matches("../").trim_start_matches("./");
            if let Some(place) = files.get(link).cloned() {
                files.insert(name, place);
            }
        }
        Ok(Self(files, path.to_owned()))
    }

    fn find(&self, name: &str) -> Result<Place, Fault> {
        self.0
            .get(name)
            .cloned()
            .ok_or_else(|| Fault::new(Exit::Failed, format!("{} lacks {name}, which it names", self.1.display())))
    }

    fn blob(&self, named: &Descriptor) -> Result<Place, Fault> {
        let place = self.find(&format!("blobs/{}", named.digest.replace(':', "/")))?;
        if place.bytes != named.size {
            return Err(Fault::new(
                Exit::Failed,
                format!("{} has {} bytes instead of {}", named.digest, place.bytes, named.size),
            )
            .hint("the image is damaged; save it again"));
        }
        Ok(place)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Fault> {
        let content = self.find(name)?.read()?;
        let raw: Box<RawValue> = serde_json::from_slice(&content)
            .map_err(|error| Fault::new(Exit::Failed, format!("reading {name} of {}", self.1.display())).caused_by(&error))?;
        serde_json::from_str(raw.get())
            .map_err(|error| Fault::new(Exit::Failed, format!("reading {name} of {}", self.1.display())).caused_by(&error))
    }
}

impl Place {
    /// Everything, for what is small.
    fn read(&self) -> Result<Vec<u8>, Fault> {
        if self.bytes > MANIFEST_BYTES_MAX {
            return Err(Fault::new(
                Exit::Failed,
                format!("a manifest of {} bytes is none", self.bytes),
            ));
        }
        self.read_at(0, self.bytes)
    }

    /// A piece.
    pub(super) fn read_at(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        let fault = |error: std::io::Error| unreadable(&self.file, &error);
        let mut file = File::open(&self.file).map_err(fault)?;
        file.seek(SeekFrom::Start(self.offset + offset)).map_err(fault)?;
        let mut content = Vec::new();
        file.take(bytes).read_to_end(&mut content).map_err(fault)?;
        if content.len() as u64 != bytes {
            return Err(Fault::new(
                Exit::Failed,
                format!("{} is shorter than it says", self.file.display()),
            ));
        }
        Ok(content)
    }

    fn digest(&self) -> Result<String, Fault> {
        const PIECE: u64 = 1 << 20;
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.bytes {
            let piece = self.read_at(at, PIECE.min(self.bytes - at))?;
            hash.update(&piece);
            at += piece.len() as u64;
        }
        Ok(format!("sha256:{}", hex::encode(hash.finalize())))
    }
}

fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn unpack(path: &Path) -> Result<Unpacked, Fault> {
    let to = std::env::temp_dir().join(format!("mcp-runtime-image-{}.tar", std::process::id()));
    let packed = File::open(path).map_err(|error| unreadable(path, &error))?;
    let fault = |error: std::io::Error| Fault::new(Exit::Failed, format!("decompressing {}", path.display())).caused_by(&error);
    let mut file = crate::profile::private_file(&to).map_err(fault)?;
    let unpacked = Unpacked(to);
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut file).map_err(fault)?;
    Ok(unpacked)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(Exit::Failed, format!("reading {}", path.display())).caused_by(error)
}
