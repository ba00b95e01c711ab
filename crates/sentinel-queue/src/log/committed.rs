//! The committed offset in its small file, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::OpenError;
use super::disk::sync_dir_of;

const MAGIC: [u8; 4] = *b"MQCP";
const VERSION: u32 = 1;
const BYTES: usize = 20;

pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join("committed")
}

/// The committed offset; `None` when nothing was ever committed.
pub(super) fn read(dir: &Path) -> Result<Option<u64>, OpenError> {
    let path = path_in(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("reading the committed offset from", &path)(error)),
    };
    match decode(&bytes) {
        Some(offset) => Ok(Some(offset)),
        None => Err(OpenError::Damaged {
            path,
            at: 0,
            what: "it is no committed offset (without it, everything kept is handed out again)".to_owned(),
        }),
    }
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (content, crc) = bytes.split_at(BYTES - 4);
    let (magic, rest) = content.split_at(4);
    let (version, offset) = rest.split_at(4);
    let sound = magic == MAGIC && version == VERSION.to_le_bytes() && crc == crc32fast::hash(content).to_le_bytes();
    sound.then(|| offset.try_into().ok().map(u64::from_le_bytes)).flatten()
}

/// Replaces the committed offset. Durable when this returns; after an error it is either the old or the new one.
pub(super) fn write(dir: &Path, offset: u64) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let path = path_in(dir);
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync_dir_of(&path)
}
