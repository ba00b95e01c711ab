//! Unpacking a body within its bound: what a bomb would become is never made.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::answer::BodyFault;
use crate::body::Coding;
use crate::budget::Held;

/// What is unpacked, and held memory for, at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Largest window a zstd frame may ask for, as a power of two: the 8 MiB that the standard for HTTP sets.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The body's text.
pub(super) fn unpack<'a>(
    wire: &'a [u8],
    coding: Coding,
    bytes_max: usize,
    held: &mut Held,
) -> Result<Cow<'a, [u8]>, BodyFault> {
    let name = match coding {
        Coding::Identity => return Ok(Cow::Borrowed(wire)),
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd",
    };
    let broken = |_: io::Error| BodyFault::Coding { coding: name };
    let text = match coding {
        Coding::Zstd => read(&mut zstd_reader(wire).map_err(broken)?, bytes_max, held),
        Coding::Gzip | Coding::Identity => read(&mut MultiGzDecoder::new(wire), bytes_max, held),
    };
    match text {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(Stop::Broken(error)) => Err(broken(error)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn zstd_reader<'a, R: BufRead>(wire: R) -> io::Result<zstd::stream::read::Decoder<'a, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(wire)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

enum Stop {
    Broken(io::Error),
    Fault(BodyFault),
}

fn read(reader: &mut impl Read, bytes_max: usize, held: &mut Held) -> Result<Vec<u8>, Stop> {
    let mut text = Vec::new();
    loop {
        held.grow(PIECE_BYTES).map_err(|no_room| Stop::Fault(no_room.into()))?;
        let read = reader
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut text)
            .map_err(Stop::Broken)?;
        if text.len() > bytes_max {
            return Err(Stop::Fault(BodyFault::TooLargeDecompressed { bytes_max }));
        }
        if read < PIECE_BYTES {
            return Ok(text);
        }
    }
}
