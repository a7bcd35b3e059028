//! `PRINTF('%s has %,d', a, b)`: formats of Java's Formatter, in English.
//!
//! Invariant: a format that Java refuses, or that asks for a value of another kind than it is given, gives NULL, as in Flink; what
//! Java knows and this does not is an error.

use super::texts::texts;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

/// The function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Printf(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Printf(Signature);

impl ScalarUDFImpl for Printf {
    fn name(&self) -> &str {
        "printf"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let Some((DataType::Utf8 | DataType::Null, values)) = kinds.split_first() else {
            return plan_err!("PRINTF is called otherwise: PRINTF(format [, value]*)");
        };
        let fits = |kind: &DataType| {
            kind.is_null()
                || kind.is_integer()
                || kind.is_floating()
                || matches!(kind, DataType::Utf8 | DataType::Boolean | DataType::Decimal128(..))
        };
        match values.iter().find(|kind| !fits(kind)) {
            None => Ok(std::iter::once(DataType::Utf8).chain(values.iter().cloned()).collect()),
            Some(kind) => plan_err!("PRINTF takes texts, numbers and BOOLEANs, not {}: CAST it to STRING", crate::parser::type_name(kind)),
        }
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let Some((formats, values)) = arrays.split_first() else { return exec_err!("PRINTF takes a format") };
        let printed = values.iter().map(Column::of).collect::<std::result::Result<Vec<_>, _>>().and_then(|columns| {
            let one = |(row, format): (usize, Option<&str>)| match format {
                Some(format) => printed(format, &columns.iter().map(|column| column.value(row)).collect::<Vec<_>>()),
                None => Ok(None),
            };
            formats.as_string::<i32>().iter().enumerate().map(one).collect::<std::result::Result<StringArray, String>>()
        });
        match printed {
            Ok(texts) => Ok(ColumnarValue::Array(Arc::new(texts))),
            Err(why) => exec_err!("PRINTF: {why}"),
        }
    }
}

/// The values of an argument.
struct Column<'a> {
    values: &'a ArrayRef,
    texts: StringArray,
    /// Of whole numbers.
    wholes: Option<ArrayRef>,
}

/// A value: its text, and what it is besides.
struct Value<'a> {
    text: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Null,
    Bool(bool),
    /// A whole number of so many bits.
    Int(i64, u32),
    Float(f64),
    Other,
}

impl<'a> Column<'a> {
    fn of(values: &'a ArrayRef) -> std::result::Result<Self, String> {
        let wholes = values.data_type().is_integer().then(|| cast(values, &DataType::Int64)).transpose().map_err(|e| e.to_string())?;
        Ok(Column { values, texts: texts(values, None)?, wholes })
    }

    fn value(&self, row: usize) -> Value<'_> {
        if self.values.is_null(row) || self.values.data_type().is_null() {
            return Value { text: "null", kind: Kind::Null };
        }
        let kind = match (self.values.data_type(), &self.wholes) {
            (kind, Some(wholes)) => {
                Kind::Int(wholes.as_primitive::<Int64Type>().value(row), kind.primitive_width().map_or(64, |bytes| bytes as u32 * 8))
            }
            (DataType::Boolean, _) => Kind::Bool(self.values.as_boolean().value(row)),
            (DataType::Float64, _) => Kind::Float(self.values.as_primitive::<Float64Type>().value(row)),
            (DataType::Float32, _) => Kind::Float(f64::from(self.values.as_primitive::<Float32Type>().value(row))),
            _ => Kind::Other,
        };
        Value { text: self.texts.value(row), kind }
    }
}

/// `%[place$][flags][width][.precision]conversion`.
struct Spec {
    place: Option<usize>,
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
    conversion: char,
}

/// The digits that come next.
fn number(chars: &mut Peekable<Chars<'_>>) -> String {
    std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect()
}

/// Longer than any text that is meant.
const WIDEST: usize = 1 << 20;

impl Spec {
    /// Behind the `%`; none for what is no specifier.
    fn read(chars: &mut Peekable<Chars<'_>>) -> Option<Spec> {
        // A number is a place, or the width without flags.
        let leading = number(chars);
        let begins_with_zero = leading.starts_with('0');
        let mut place = None;
        let (mut flags, mut width) = (String::new(), None);
        if !leading.is_empty() && !begins_with_zero && chars.next_if_eq(&'$').is_some() {
            place = Some(leading.parse().ok()?);
        } else if begins_with_zero {
            flags.push('0');
            width = leading.get(1..).filter(|rest| !rest.is_empty()).map(str::parse).transpose().ok()?;
        } else if !leading.is_empty() {
            width = Some(leading.parse().ok()?);
        }
        if width.is_none() {
            while let Some(flag) = chars.next_if(|c| "-#+ 0,(<".contains(*c)) {
                if flags.contains(flag) || flag == '<' {
                    return None;
                }
                flags.push(flag);
            }
            let digits = number(chars);
            width = (!digits.is_empty()).then(|| digits.parse()).transpose().ok()?;
        }
        let precision = match chars.next_if_eq(&'.') {
            None => None,
            Some(_) => Some(number(chars).parse().ok()?),
        };
        Some(Spec { place, flags, width, precision, conversion: chars.next()? })
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    /// Whether Java takes these flags together: one that stands for itself needs a width, and not two sides or signs at once.
    fn is_plain(&self, allowed: &str) -> bool {
        let fits = self.flags.chars().all(|flag| allowed.contains(flag));
        let sided = self.has('-') || self.has('0');
        fits && (!sided || self.width.is_some()) && !(self.has('-') && self.has('0')) && !(self.has('+') && self.has(' '))
    }

    fn padded(&self, text: &str) -> String {
        let missing = " ".repeat(self.width.unwrap_or(0).saturating_sub(text.chars().count()));
        if self.has('-') { format!("{text}{missing}") } else { format!("{missing}{text}") }
    }

    /// A number of these digits, of which those before the point may be grouped and filled up with zeros.
    fn signed(&self, is_negative: bool, digits: &str) -> String {
        let (whole, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
        let mut whole = if self.has(',') { grouped(whole) } else { whole.to_string() };
        let (before, behind) = match is_negative {
            true if self.has('(') => ("(", ")"),
            true => ("-", ""),
            false if self.has('+') => ("+", ""),
            false if self.has(' ') => (" ", ""),
            false => ("", ""),
        };
        if self.has('0') {
            let length = before.len() + whole.len() + rest.len() + behind.len();
            whole = "0".repeat(self.width.unwrap_or(0).saturating_sub(length)) + &whole;
        }
        self.padded(&format!("{before}{whole}{rest}{behind}"))
    }
}

/// `1,234,567`.
fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The text of a format; none where Java would refuse it.
fn printed(format: &str, values: &[Value<'_>]) -> std::result::Result<Option<String>, String> {
    let (mut out, mut next) = (String::with_capacity(format.len()), 0);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(spec) = Spec::read(&mut chars) else { return Ok(None) };
        if spec.width.is_some_and(|width| width > WIDEST) || spec.precision.is_some_and(|precision| precision > WIDEST) {
            return Err(format!("a text of more than {WIDEST} characters is too long"));
        }
        match spec.conversion {
            'n' if spec.flags.is_empty() && spec.width.is_none() && spec.precision.is_none() => out.push('\n'),
            '%' if spec.precision.is_none() && spec.is_plain("-") => out.push_str(&spec.padded("%")),
            'h' | 'H' | 'a' | 'A' | 't' | 'T' => return Err(format!("%{} is not known here", spec.conversion)),
            conversion => {
                let at = match spec.place {
                    Some(place) => place.checked_sub(1),
                    None => {
                        next += 1;
                        Some(next - 1)
                    }
                };
                let Some(value) = at.and_then(|at| values.get(at)) else { return Ok(None) };
                let Some(text) = converted(&spec, value) else { return Ok(None) };
                out.push_str(&if conversion.is_ascii_uppercase() { text.to_uppercase() } else { text });
            }
        }
    }
    Ok(Some(out))
}

fn converted(spec: &Spec, value: &Value<'_>) -> Option<String> {
    let general = |text: &str| {
        let cut = spec.precision.and_then(|most| text.char_indices().nth(most)).map_or(text, |(end, _)| &text[..end]);
        spec.is_plain("-").then(|| spec.padded(cut))
    };
    let is_whole = matches!(spec.conversion, 'd' | 'o' | 'x' | 'X' | 'c' | 'C');
    if is_whole && spec.precision.is_some() {
        return None;
    }
    match (spec.conversion, value.kind) {
        // Java prints what is a Boolean or a number in small letters.
        ('s' | 'S', Kind::Bool(truth)) => general(if truth { "true" } else { "false" }),
        ('s' | 'S', _) => general(value.text),
        ('b' | 'B', Kind::Bool(truth)) => general(if truth { "true" } else { "false" }),
        ('b' | 'B', kind) => general(if matches!(kind, Kind::Null) { "false" } else { "true" }),
        ('c' | 'C' | 'd' | 'o' | 'x' | 'X', Kind::Null) => spec.is_plain("-#+ 0,(").then(|| spec.padded("null")),
        ('e' | 'E' | 'f' | 'g' | 'G', Kind::Null) => Some(spec.padded(spec.precision.map_or("null", |most| &"null"[..most.min(4)]))),
        ('c' | 'C', Kind::Int(n, _)) => {
            let letter = char::from_u32(u32::try_from(n).ok()?)?;
            spec.is_plain("-").then(|| spec.padded(letter.encode_utf8(&mut [0; 4])))
        }
        ('d', Kind::Int(n, _)) => spec.is_plain("-+ 0,(").then(|| spec.signed(n < 0, &n.unsigned_abs().to_string())),
        ('o' | 'x' | 'X', Kind::Int(n, bits)) => {
            let n = if bits < 64 { n as u64 & ((1 << bits) - 1) } else { n as u64 };
            let (digits, mark) = if spec.conversion == 'o' { (format!("{n:o}"), "0") } else { (format!("{n:x}"), "0x") };
            let mark = if spec.has('#') { mark } else { "" };
            let zeros = if spec.has('0') { spec.width?.saturating_sub(mark.len() + digits.len()) } else { 0 };
            spec.is_plain("-#0").then(|| spec.padded(&format!("{mark}{}{digits}", "0".repeat(zeros))))
        }
        ('e' | 'E' | 'f' | 'g' | 'G', Kind::Float(x)) => {
            let allowed = if spec.conversion.eq_ignore_ascii_case(&'e') { "-#+ 0(" } else { "-#+ 0,(" };
            if !spec.is_plain(allowed) || (spec.has('#') && spec.conversion.eq_ignore_ascii_case(&'g')) {
                return None;
            }
            Some(match (x.is_nan(), x.is_infinite()) {
                (true, _) => spec.padded("NaN"),
                (_, true) => {
                    let flags = spec.flags.replace(['0', ','], "");
                    let spec = Spec { place: None, flags, width: spec.width, precision: None, conversion: spec.conversion };
                    spec.signed(x < 0.0, "Infinity")
                }
                _ => spec.signed(x.is_sign_negative(), &digits(spec, x.abs())),
            })
        }
        _ => None,
    }
}

/// A number without its sign in the conversion's form. Its shortest digits are rounded half up, as in Java.
fn digits(spec: &Spec, x: f64) -> String {
    let precision = spec.precision.unwrap_or(6);
    let point = if spec.has('#') && precision == 0 { "." } else { "" };
    match spec.conversion {
        'f' => fixed(x, precision) + point,
        'e' | 'E' => scientific(x, precision, point),
        _ => {
            let precision = precision.max(1);
            let rounded = scientific(x, precision - 1, "");
            let exponent = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
            match usize::try_from(precision as i32 - 1 - exponent) {
                Ok(places) if x == 0.0 || exponent >= -4 => fixed(x, if x == 0.0 { precision - 1 } else { places }),
                _ => rounded,
            }
        }
    }
}

/// The shortest digits of a number, and where the point is among them: behind so many.
fn shortest(x: f64) -> (Vec<u8>, i32) {
    let written = format!("{x:e}");
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    (digits, exponent.parse::<i32>().unwrap_or(0) + 1)
}

/// The first so many digits, rounded half up; whether there is one more in front.
fn rounded(digits: &[u8], count: usize) -> (Vec<u8>, bool) {
    let mut kept: Vec<u8> = digits.iter().copied().chain(std::iter::repeat(0)).take(count).collect();
    let mut carry = digits.get(count).is_some_and(|next| *next >= 5);
    for digit in kept.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == 9;
        *digit = if carry { 0 } else { *digit + 1 };
    }
    if carry {
        kept.insert(0, 1);
    }
    (kept, carry)
}

fn shown(digits: &[u8]) -> String {
    digits.iter().map(|digit| char::from(b'0' + digit)).collect()
}

fn fixed(x: f64, places: usize) -> String {
    let (digits, point) = shortest(x);
    let padded: Vec<u8> = std::iter::repeat_n(0, usize::try_from(1 - point).unwrap_or(0)).chain(digits).collect();
    let whole = usize::try_from(point).unwrap_or(0).max(1);
    let (kept, more) = rounded(&padded, whole + places);
    let text = shown(&kept);
    let (before, behind) = text.split_at(whole + usize::from(more));
    if places == 0 { before.to_string() } else { format!("{before}.{behind}") }
}

fn scientific(x: f64, places: usize, point: &str) -> String {
    let (digits, at) = shortest(x);
    let (kept, more) = rounded(&digits, places + 1);
    let exponent = if x == 0.0 { 0 } else { at - 1 + i32::from(more) };
    let text = shown(&kept[..=places]);
    let (before, behind) = text.split_at(1);
    let sign = if exponent < 0 { '-' } else { '+' };
    let point = if places > 0 { "." } else { point };
    format!("{before}{point}{behind}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(format: &str, kind: Kind) -> Option<String> {
        printed(format, &[Value { text: "text", kind }]).unwrap()
    }

    #[test]
    fn whole_numbers() {
        for (format, number, text) in [
            ("%d", 7, "7"),
            ("[%1$5d|%1$-5d|%1$05d]", 7, "[    7|7    |00007]"),
            ("%,d", -1_234_567, "-1,234,567"),
            ("%+d", 5, "+5"),
            ("%(d", -5, "(5)"),
            ("% 4d", 5, "   5"),
            ("%08d", -5, "-0000005"),
            ("%x", -1, "ffffffff"),
            ("%#X", 255, "0XFF"),
            ("%o", 8, "10"),
            ("%c", 65, "A"),
            ("%b", 0, "true"),
        ] {
            assert_eq!(of(format, Kind::Int(number, 32)).as_deref(), Some(text), "{format}");
        }
        for wrong in ["%", "%q", "%-d", "%.2d", "%+ d", "%-05d", "%f", "%d %d", "%2$d", "%--5d", "%#d"] {
            assert_eq!(of(wrong, Kind::Int(7, 32)), None, "{wrong}");
        }
    }

    #[test]
    fn floats() {
        for (format, number, text) in [
            ("%f", 1.5, "1.500000"),
            ("%.2f", 0.125, "0.13"),
            ("%.0f", 0.5, "1"),
            ("%.1f", 9.95, "10.0"),
            ("%.3f", 0.000_4, "0.000"),
            ("%.3f", 0.000_5, "0.001"),
            ("%,.2f", 1_234_567.891, "1,234,567.89"),
            ("%08.2f", -2.51772, "-0002.52"),
            ("%e", 12345.678, "1.234568e+04"),
            ("%.1E", 0.000_99, "9.9E-04"),
            ("%.0e", 9.5, "1e+01"),
            ("%e", 0.0, "0.000000e+00"),
            ("%g", 0.0001, "0.000100000"),
            ("%g", 0.000_01, "1.00000e-05"),
            ("%.3g", 1234.5, "1.23e+03"),
            ("%.3g", 123.45, "123"),
            ("%f", 1e20, "100000000000000000000.000000"),
            ("%6.1f", f64::NAN, "   NaN"),
            ("%f", f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(of(format, Kind::Float(number)).as_deref(), Some(text), "{format} {number}");
        }
    }

    #[test]
    fn texts_and_signs() {
        assert_eq!(of("%s%n%%", Kind::Other).as_deref(), Some("text\n%"));
        assert_eq!(of("[%6.2S|%1$-6s]", Kind::Other).as_deref(), Some("[    TE|text  ]"));
        assert_eq!(of("%d", Kind::Other), None);
        assert_eq!(of("%5d|", Kind::Null).as_deref(), Some(" null|"));
        assert!(printed("%tY", &[]).is_err());
    }
}
