//! Further functions of text: encodings, hashes, addresses; NULL for a NULL argument.
//!
//! Invariant: what cannot be decoded is NULL, never half of it.

use super::own::ScalarFunction;
use crate::json::{base64, to_base64};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::ScalarValue;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use std::fmt::Write as _;
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    let text = |name: &str, f: fn(&str) -> Option<String>| ScalarFunction::new(name, vec![TEXT], TEXT, move |args| each(args, f));
    // Of texts and of bytes.
    let both = |name: &str, f: fn(&[u8], &[u8]) -> bool| {
        ScalarFunction::new(name, vec![TEXT, TEXT], DataType::Boolean, move |args| {
            let [a, b] = [0, 1].map(|i: usize| arrow::compute::cast(&args[i], &DataType::Binary));
            let (a, b) = (a.map_err(|e| e.to_string())?, b.map_err(|e| e.to_string())?);
            let pairs = a.as_binary::<i32>().iter().zip(b.as_binary::<i32>().iter());
            Ok(Arc::new(pairs.map(|(a, b)| Some(f(a?, b?))).collect::<BooleanArray>()))
        })
        .or(vec![DataType::Binary, DataType::Binary])
    };
    vec![
        text("initcap", |t| Some(initcap(t))),
        text("to_base64", |t| Some(to_base64(t.as_bytes()))),
        text("from_base64", |t| String::from_utf8(base64(t).ok()?).ok()),
        text("url_encode", |t| Some(url_encode(t))),
        text("url_decode", url_decode),
        text("md5", |t| Some(digest::<Md5>(t))),
        text("sha1", |t| Some(digest::<Sha1>(t))),
        text("sha224", |t| Some(digest::<Sha224>(t))),
        text("sha256", |t| Some(digest::<Sha256>(t))),
        text("sha384", |t| Some(digest::<Sha384>(t))),
        text("sha512", |t| Some(digest::<Sha512>(t))),
        ScalarFunction::new("sha2", vec![TEXT, INT], TEXT, sha2),
        ScalarFunction::new("hex", vec![INT], TEXT, |args| match args[0].data_type() {
            DataType::Int64 => numbers(args, |n| Some(format!("{n:X}"))),
            _ => each(args, |t| Some(hex(t.as_bytes()).to_uppercase())),
        })
        .or(vec![TEXT]),
        ScalarFunction::new("unhex", vec![TEXT], DataType::Binary, |args| {
            let bytes: Vec<Option<Vec<u8>>> = args[0].as_string::<i32>().iter().map(|t| unhex(t?)).collect();
            Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
        }),
        ScalarFunction::new("encode", vec![TEXT, TEXT], DataType::Binary, |args| {
            let pairs = args[0].as_string::<i32>().iter().zip(args[1].as_string::<i32>().iter());
            let one =
                |(text, set): (Option<&str>, Option<&str>)| text.zip(set).map(|(text, set)| Charset::of(set).map(|set| set.encode(text)));
            let bytes = pairs.map(|pair| one(pair).transpose()).collect::<Result<Vec<_>, String>>()?;
            Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
        })
        .checked(check_charset),
        ScalarFunction::new("decode", vec![DataType::Binary, TEXT], TEXT, |args| {
            let pairs = args[0].as_binary::<i32>().iter().zip(args[1].as_string::<i32>().iter());
            let one = |(bytes, set): (Option<&[u8]>, Option<&str>)| {
                bytes.zip(set).map(|(bytes, set)| Charset::of(set).map(|set| set.decode(bytes)))
            };
            Ok(Arc::new(pairs.map(|pair| one(pair).transpose()).collect::<Result<StringArray, String>>()?))
        })
        .checked(check_charset),
        ScalarFunction::new("is_valid_utf8", vec![DataType::Binary], DataType::Boolean, |args| {
            let valid = args[0].as_binary::<i32>().iter().map(|bytes| bytes.map(|bytes| std::str::from_utf8(bytes).is_ok()));
            Ok(Arc::new(valid.collect::<BooleanArray>()))
        }),
        ScalarFunction::new("make_valid_utf8", vec![DataType::Binary], TEXT, |args| {
            Ok(Arc::new(args[0].as_binary::<i32>().iter().map(|bytes| bytes.map(String::from_utf8_lossy)).collect::<StringArray>()))
        }),
        ScalarFunction::new("inet_aton", vec![TEXT], INT, |args| {
            Ok(Arc::new(args[0].as_string::<i32>().iter().map(|text| number_of_address(text?)).collect::<Int64Array>()))
        }),
        ScalarFunction::new("inet_ntoa", vec![INT], TEXT, |args| {
            numbers(args, |n| u32::try_from(n).ok().map(|n| std::net::Ipv4Addr::from(n).to_string()))
        }),
        ScalarFunction::new("bin", vec![INT], TEXT, |args| numbers(args, |n| Some(format!("{n:b}")))),
        ScalarFunction::new("chr", vec![INT], TEXT, |args| numbers(args, |n| Some(chr(n)))),
        ScalarFunction::new("ascii", vec![TEXT], INT, |args| {
            // A byte of Java's has a sign.
            let first = |t: &str| t.bytes().next().map_or(0, |b| i64::from(b.cast_signed()));
            Ok(Arc::new(args[0].as_string::<i32>().iter().map(|t| t.map(first)).collect::<Int64Array>()))
        }),
        ScalarFunction::new("translate", vec![TEXT, TEXT, TEXT], TEXT, translate),
        ScalarFunction::new("elt", vec![INT, TEXT], TEXT, elt).repeated(),
        ScalarFunction::new("overlay", vec![TEXT, TEXT, INT], TEXT, overlay).or(vec![TEXT, TEXT, INT, INT]),
        ScalarFunction::new("parse_url", vec![TEXT, TEXT], TEXT, parse_url).or(vec![TEXT, TEXT, TEXT]),
        both("startswith", |t, part| t.starts_with(part)),
        both("endswith", |t, part| t.ends_with(part)),
    ]
}

fn each(args: &[ArrayRef], f: impl Fn(&str) -> Option<String>) -> Result<ArrayRef, String> {
    Ok(Arc::new(args[0].as_string::<i32>().iter().map(|t| f(t?)).collect::<StringArray>()))
}

fn numbers(args: &[ArrayRef], f: impl Fn(i64) -> Option<String>) -> Result<ArrayRef, String> {
    Ok(Arc::new(args[0].as_primitive::<Int64Type>().iter().map(|n| f(n?)).collect::<StringArray>()))
}

/// The first letter of each word large, the others small; words are of letters and digits.
fn initcap(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric();
    }
    out
}

/// Bytes as digits, two each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// Digits in pairs; with an odd number the first one stands alone.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<Vec<u8>>>()?;
    let (first, rest) = digits.split_at(digits.len() % 2);
    Some(first.iter().copied().chain(rest.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1])).collect())
}

/// `10.0.0.1` as a number; of fewer parts the last is the end, `10.1` that of `10.0.0.1`, and one alone the number itself.
fn number_of_address(text: &str) -> Option<i64> {
    let parts = text.split('.').map(|part| part.parse::<u32>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())));
    let parts = parts.collect::<Option<Vec<u32>>>()?;
    let (last, before) = parts.split_last()?;
    if before.is_empty() {
        return Some(i64::from(*last));
    }
    let is_byte = |part: &u32| *part <= 255;
    let fits = parts.len() <= 4 && parts.iter().all(is_byte);
    fits.then(|| before.iter().enumerate().fold(i64::from(*last), |number, (i, part)| number | i64::from(*part) << (24 - 8 * i)))
}

/// How characters are bytes.
#[derive(Clone, Copy)]
enum Charset {
    /// One byte a character, of so many.
    Bytes(u32),
    Utf8,
    /// Two bytes a unit; none = the mark in front says which comes first, the larger without one.
    Utf16(Option<bool>),
}

impl Charset {
    fn of(name: &str) -> Result<Charset, String> {
        Ok(match name.to_uppercase().as_str() {
            "US-ASCII" | "ASCII" => Charset::Bytes(128),
            "ISO-8859-1" | "LATIN1" => Charset::Bytes(256),
            "UTF-8" | "UTF8" => Charset::Utf8,
            "UTF-16" => Charset::Utf16(None),
            "UTF-16BE" => Charset::Utf16(Some(true)),
            "UTF-16LE" => Charset::Utf16(Some(false)),
            _ => return Err(format!("{name:?} is none of US-ASCII, ISO-8859-1, UTF-8, UTF-16BE, UTF-16LE, UTF-16")),
        })
    }

    /// What the set does not have is a question mark.
    fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Charset::Bytes(count) => {
                text.chars().map(|c| u8::try_from(u32::from(c)).ok().filter(|b| u32::from(*b) < count).unwrap_or(b'?')).collect()
            }
            Charset::Utf8 => text.as_bytes().to_vec(),
            Charset::Utf16(Some(false)) => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Charset::Utf16(order) => {
                let mark = order.is_none().then_some(0xFEFF);
                mark.into_iter().filter(|_| !text.is_empty()).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
            }
        }
    }

    /// What is no character is U+FFFD.
    fn decode(self, bytes: &[u8]) -> String {
        match self {
            Charset::Bytes(count) => {
                bytes.iter().map(|b| if u32::from(*b) < count { char::from(*b) } else { char::REPLACEMENT_CHARACTER }).collect()
            }
            Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Charset::Utf16(order) => {
                let (is_big, bytes) = match (order, bytes) {
                    (Some(is_big), _) => (is_big, bytes),
                    (None, [0xFE, 0xFF, rest @ ..]) => (true, rest),
                    (None, [0xFF, 0xFE, rest @ ..]) => (false, rest),
                    (None, _) => (true, bytes),
                };
                let unit = |pair: &[u8]| match *pair {
                    [a, b] if is_big => u16::from_be_bytes([a, b]),
                    [a, b] => u16::from_le_bytes([a, b]),
                    // A byte alone is no character.
                    _ => 0xDC00,
                };
                char::decode_utf16(bytes.chunks(2).map(unit)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
        }
    }
}

fn check_charset(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    match args.get(1) {
        Some(Some(ScalarValue::Utf8(Some(name)))) => Charset::of(name).map(drop),
        _ => Ok(()),
    }
}

fn digest<D: Digest>(text: &str) -> String {
    hex(&D::digest(text.as_bytes()))
}

fn sha2(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, bits) = (args[0].as_string::<i32>(), args[1].as_primitive::<Int64Type>());
    let one = |(text, bits): (Option<&str>, Option<i64>)| {
        let (Some(text), Some(bits)) = (text, bits) else { return Ok(None) };
        Ok(Some(match bits {
            224 => digest::<Sha224>(text),
            256 => digest::<Sha256>(text),
            384 => digest::<Sha384>(text),
            512 => digest::<Sha512>(text),
            other => return Err(format!("the length is 224, 256, 384 or 512, not {other}")),
        }))
    };
    Ok(Arc::new(texts.iter().zip(bits.iter()).map(one).collect::<Result<StringArray, String>>()?))
}

/// The character of the lowest byte; none for a number below 0.
fn chr(n: i64) -> String {
    if n < 0 { String::new() } else { char::from((n & 0xff) as u8).to_string() }
}

/// As a form of a page sends it.
fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(b)),
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

fn url_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |b: Option<u8>| char::from(b?).to_digit(16);
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// `TRANSLATE(text, from, to)`: each character of `from` becomes the one of `to` in its place, or goes.
fn translate(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let columns: Vec<&StringArray> = args.iter().map(|a| a.as_string::<i32>()).collect();
    let row = |row: usize| {
        let [text, from, to] = [0, 1, 2].map(|i: usize| columns[i].is_valid(row).then(|| columns[i].value(row)));
        let (from, to): (Vec<char>, Vec<char>) = (from?.chars().collect(), to?.chars().collect());
        let one = |c: char| from.iter().position(|f| *f == c).map_or(Some(c), |i| to.get(i).copied());
        Some(text?.chars().filter_map(one).collect::<String>())
    };
    Ok(Arc::new((0..args[0].len()).map(row).collect::<StringArray>()))
}

/// `ELT(n, a, b, ...)`: text `n`, from 1; NULL when there is none.
fn elt(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let places = args[0].as_primitive::<Int64Type>();
    let texts: Vec<&StringArray> = args[1..].iter().map(|a| a.as_string::<i32>()).collect();
    let row = |row: usize| {
        let n = usize::try_from(places.is_valid(row).then(|| places.value(row))?).ok()?;
        let of = texts.get(n.checked_sub(1)?)?;
        of.is_valid(row).then(|| of.value(row))
    };
    Ok(Arc::new((0..args[0].len()).map(row).collect::<StringArray>()))
}

/// `OVERLAY(text PLACING new FROM start FOR length)`; the text as it is where the place is outside of it.
fn overlay(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, news) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let (starts, lengths) = (args[2].as_primitive::<Int64Type>(), args.get(3).map(|a| a.as_primitive::<Int64Type>()));
    let row = |row: usize| {
        let text: Vec<char> = texts.is_valid(row).then(|| texts.value(row))?.chars().collect();
        let new = news.is_valid(row).then(|| news.value(row))?;
        let start = starts.is_valid(row).then(|| starts.value(row))?;
        let length = match lengths {
            Some(lengths) => lengths.is_valid(row).then(|| lengths.value(row))?,
            None => new.chars().count() as i64,
        };
        if start <= 0 || start > text.len() as i64 {
            return Some(text.into_iter().collect::<String>());
        }
        let start = start as usize - 1;
        let end = usize::try_from(length.max(0)).unwrap_or(usize::MAX).saturating_add(start).min(text.len());
        Some(text[..start].iter().copied().chain(new.chars()).chain(text[end..].iter().copied()).collect())
    };
    Ok(Arc::new((0..texts.len()).map(row).collect::<StringArray>()))
}

fn parse_url(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let columns: Vec<&StringArray> = args.iter().map(|a| a.as_string::<i32>()).collect();
    let row = |row: usize| {
        let all = columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect::<Option<Vec<&str>>>()?;
        url_part(all[0], all[1], all.get(2).copied()).map(str::to_string)
    };
    Ok(Arc::new((0..args[0].len()).map(row).collect::<StringArray>()))
}

/// A part of an address; NULL for what is none, or has no such part.
fn url_part<'a>(url: &'a str, part: &str, key: Option<&str>) -> Option<&'a str> {
    let (protocol, rest) = url.split_once("://")?;
    if !["http", "https", "ftp", "file"].iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, f)| (rest, Some(f)));
    let (authority, file) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = file.split_once('?').map_or((file, None), |(path, q)| (path, Some(q)));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(host, _)| host);
    match (part, key) {
        ("QUERY", Some(key)) => query?.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v)),
        (_, Some(_)) => None,
        ("PROTOCOL", None) => Some(protocol),
        ("HOST", None) => Some(host),
        ("PATH", None) => Some(path),
        ("QUERY", None) => query,
        ("REF", None) => fragment,
        ("AUTHORITY", None) => Some(authority),
        ("FILE", None) => Some(file),
        ("USERINFO", None) => user,
        _ => None,
    }
}
