//! Unpacking what producers packed: gzip, snappy, lz4, zstd.
//!
//! Invariant: what does not unpack is [`Damaged`]; what unpacks to more than [`LIMIT`] is refused before the memory is taken.

use super::wire::{Cursor, Damaged, Read};
use std::io::Read as _;

/// A batch is at most 2 GiB packed; one that unpacks to more than this is an attack or damage.
const LIMIT: u64 = 1 << 30;
/// Snappy as Java writes it: this, two version numbers, then blocks, each with its length before it.
const XERIAL: &[u8] = b"\x82SNAPPY\0";

/// Unpacks a batch's records; `None` when they are not packed.
///
/// # Errors
/// Damage, or a codec that is not one of Kafka's.
pub(in crate::kafka) fn decompress(codec: i16, bytes: &[u8]) -> Read<Option<Vec<u8>>> {
    match codec {
        0 => Ok(None),
        1 => drain(flate2::read::MultiGzDecoder::new(bytes), "the gzip data of a record batch does not unpack"),
        2 => snappy(bytes).map(Some),
        3 => drain(lz4_flex::frame::FrameDecoder::new(bytes), "the lz4 data of a record batch does not unpack"),
        4 => {
            let why = "the zstd data of a record batch does not unpack";
            drain(zstd::stream::read::Decoder::new(bytes).map_err(|_| Damaged(why))?, why)
        }
        _ => Err(Damaged("a record batch is packed by a codec that is not known")),
    }
}

fn drain(from: impl std::io::Read, why: &'static str) -> Read<Option<Vec<u8>>> {
    let mut out = Vec::new();
    match from.take(LIMIT + 1).read_to_end(&mut out) {
        Ok(n) if n as u64 <= LIMIT => Ok(Some(out)),
        _ => Err(Damaged(why)),
    }
}

fn snappy(bytes: &[u8]) -> Read<Vec<u8>> {
    let Some(framed) = bytes.strip_prefix(XERIAL) else { return block(bytes) };
    let mut blocks = Cursor(framed);
    blocks.bytes(8)?;
    let mut out = Vec::new();
    while !blocks.0.is_empty() {
        let len = blocks.u32()? as usize;
        out.extend_from_slice(&block(blocks.bytes(len)?)?);
        if out.len() as u64 > LIMIT {
            return Err(Damaged("the snappy data of a record batch unpacks to too much"));
        }
    }
    Ok(out)
}

fn block(bytes: &[u8]) -> Read<Vec<u8>> {
    let why = Damaged("the snappy data of a record batch does not unpack");
    if snap::raw::decompress_len(bytes).map_err(|_| why)? as u64 > LIMIT {
        return Err(why);
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|_| why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(codec: i16, plain: &[u8]) -> Vec<u8> {
        match codec {
            1 => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gz.write_all(plain).unwrap();
                gz.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            3 => {
                let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
                lz4.write_all(plain).unwrap();
                lz4.finish().unwrap()
            }
            _ => zstd::stream::encode_all(plain, 3).unwrap(),
        }
    }

    #[test]
    fn every_codec_gives_back_what_was_packed_and_damage_is_found_or_harmless() {
        let plain: Vec<u8> = (0..20_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
        for codec in 1..=4 {
            let packed = packed(codec, &plain);
            assert_eq!(decompress(codec, &packed), Ok(Some(plain.clone())), "codec {codec}");
            assert!(decompress(codec, &packed[..packed.len() / 2]).is_err(), "codec {codec} cut off");
            for at in (0..packed.len()).step_by(packed.len() / 50 + 1) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x55;
                // The checksum of the batch finds it; here it only must not panic.
                let _ = decompress(codec, &damaged);
            }
        }
        assert_eq!(decompress(0, &plain), Ok(None));
        assert!(decompress(5, &plain).is_err());
    }

    #[test]
    fn javas_framing_of_snappy_is_read() {
        let mut framed = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in [&b"abc"[..], &[7; 500]] {
            let block = packed(2, part);
            framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            framed.extend_from_slice(&block);
        }
        assert_eq!(snappy(&framed), Ok([&b"abc"[..], &[7; 500]].concat()));
        assert!(snappy(&framed[..framed.len() - 1]).is_err());
    }
}
