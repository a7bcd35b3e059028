//! Packing batches and unpacking what producers packed: gzip, snappy, lz4, zstd.
//!
//! Invariant: what does not unpack is [`Damaged`]; what unpacks to more than [`LIMIT`] is refused before the memory is taken.

use super::wire::{Cursor, Damaged, Read};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::io::{self, Read as _, Write as _};

/// A batch is at most 2 GiB packed; one that unpacks to more than this is an attack or damage.
const LIMIT: u64 = 1 << 30;
/// Snappy as Java writes it: this, two version numbers, then blocks, each with its length before it.
const XERIAL: &[u8] = b"\x82SNAPPY\0";

/// How batches are packed; the number is the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Codec {
    Plain = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// By the name that `compression.type` has for it.
    pub(in crate::kafka) fn named(name: &str) -> Option<Self> {
        let names = [("none", Codec::Plain), ("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)];
        names.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, codec)| codec)
    }
}

/// Packs a batch's records, behind what is in `out` already.
///
/// # Errors
/// Of the codec; none is known.
pub(in crate::kafka) fn compress(codec: Codec, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::Plain => out.extend_from_slice(plain),
        Codec::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            gzip.write_all(plain)?;
            gzip.finish()?;
        }
        Codec::Snappy => out.extend_from_slice(&snap::raw::Encoder::new().compress_vec(plain).map_err(io::Error::other)?),
        Codec::Lz4 => {
            // Java's reader takes no blocks that lean on earlier ones.
            let form = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut lz4 = FrameEncoder::with_frame_info(form, out);
            lz4.write_all(plain)?;
            lz4.finish().map_err(io::Error::other)?;
        }
        Codec::Zstd => out.extend_from_slice(&zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL)?),
    }
    Ok(())
}

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

    const PACKING: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, plain, &mut out).unwrap();
        out
    }

    #[test]
    fn names_are_librdkafkas() {
        assert_eq!(["gzip", "snappy", "LZ4", "zstd"].map(Codec::named), PACKING.map(Some));
        assert_eq!((Codec::named("none"), Codec::named("rar")), (Some(Codec::Plain), None));
    }

    #[test]
    fn every_codec_gives_back_what_was_packed_and_damage_is_found_or_harmless() {
        let plain: Vec<u8> = (0..20_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
        for codec in PACKING {
            let packed = packed(codec, &plain);
            let number = codec as i16;
            assert_eq!(decompress(number, &packed), Ok(Some(plain.clone())), "{codec:?}");
            assert!(decompress(number, &packed[..packed.len() / 2]).is_err(), "{codec:?} cut off");
            for at in (0..packed.len()).step_by(packed.len() / 50 + 1) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x55;
                // The checksum of the batch finds it; here it only must not panic.
                let _ = decompress(number, &damaged);
            }
        }
        assert_eq!(decompress(0, &plain), Ok(None));
        assert!(decompress(5, &plain).is_err());
    }

    #[test]
    fn javas_framing_of_snappy_is_read() {
        let mut framed = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in [&b"abc"[..], &[7; 500]] {
            let block = packed(Codec::Snappy, part);
            framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            framed.extend_from_slice(&block);
        }
        assert_eq!(snappy(&framed), Ok([&b"abc"[..], &[7; 500]].concat()));
        assert!(snappy(&framed[..framed.len() - 1]).is_err());
    }
}
