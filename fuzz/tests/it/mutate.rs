//! Inputs near those of a corpus.

use rand::Rng as _;
use rand::rngs::SmallRng;

/// Longest input made.
const BYTES_MAX: usize = 16 << 10;

/// Pieces that parsers stumble over.
const PIECES: [&[u8]; 18] = [
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"0.1",
    b"\r\n\r\n",
    b"\x00",
    b",",
    b"data: ",
];

/// One of `seeds`, changed in one to four places.
pub(crate) fn mutate(seeds: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..=16)).min(bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                drop(bytes.splice(at..end, piece.iter().copied()));
            }
            4 => {
                // The end of another seed: two valid halves often make one odd whole.
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                drop(bytes.splice(to..to, piece));
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
