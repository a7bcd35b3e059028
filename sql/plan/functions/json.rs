//! JSON in texts: JSON_VALUE, JSON_QUERY, JSON_EXISTS, IS JSON, and JSON_OBJECT, JSON_ARRAY, JSON_STRING that write it.
//!
//! Members of an object are in the order of their names, and of one name the last counts, as in Flink.
//!
//! The clauses of the standard (`RETURNING`, `NULL ON EMPTY`, ...) are arguments here: the dialect reads them.
//!
//! Invariant: what a text or path that is wrong gives is what `ON ERROR` says; a path is looked at when the query is planned.

use super::json_path::{Found, Path};
use super::own::ScalarFunction;
use crate::json::ColumnWriter;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, new_empty_array};
use arrow::datatypes::DataType;
use datafusion_common::{Result as Planned, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;

/// Those that read.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![
        ScalarFunction::new("json_value", vec![TEXT, TEXT], TEXT, json_value).or(vec![TEXT; 7]).checked(check),
        ScalarFunction::new("json_query", vec![TEXT, TEXT], TEXT, json_query).or(vec![TEXT; 5]).checked(check),
        ScalarFunction::new("json_exists", vec![TEXT, TEXT], DataType::Boolean, json_exists).or(vec![TEXT; 3]).checked(check),
        ScalarFunction::new("json_array_of", vec![DataType::new_list(TEXT, true)], TEXT, |args| {
            let lists = args[0].as_list::<i32>();
            let one = |row: usize| {
                let items = if lists.is_valid(row) { lists.value(row) } else { new_empty_array(&TEXT) };
                format!("[{}]", items.as_string::<i32>().iter().flatten().collect::<Vec<_>>().join(","))
            };
            Ok(Arc::new((0..lists.len()).map(|row| Some(one(row))).collect::<StringArray>()))
        }),
        ScalarFunction::new("json_object_of", vec![DataType::new_list(TEXT, true)], TEXT, object_of),
        ScalarFunction::new("is_json", vec![TEXT, TEXT], DataType::Boolean, is_json),
        ScalarFunction::new("json_quote", vec![TEXT], TEXT, |args| {
            Ok(Arc::new(args[0].as_string::<i32>().iter().map(|t| t.and_then(|t| serde_json::to_string(t).ok())).collect::<StringArray>()))
        }),
        ScalarFunction::new("json_unquote", vec![TEXT], TEXT, |args| {
            // What is no JSON text stays as it is.
            let plain = |t: &str| serde_json::from_str::<String>(t).unwrap_or_else(|_| t.to_string());
            Ok(Arc::new(args[0].as_string::<i32>().iter().map(|t| t.map(plain)).collect::<StringArray>()))
        }),
    ]
}

/// Those that write.
pub(super) fn writers() -> Vec<ScalarUDF> {
    let of = |name, what| ScalarUDF::from(Writer { name, what, signature: Signature::variadic_any(Volatility::Immutable) });
    vec![of("json_string", What::Value), of("json_object", What::Object), of("json_array", What::Array)]
}

fn check(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    match args.get(1) {
        Some(Some(ScalarValue::Utf8(Some(path)))) => Path::of(path).map(drop),
        _ => Ok(()),
    }
}

/// The texts of a row; none where one is NULL that may not be.
struct Rows<'a>(Vec<&'a StringArray>);

impl<'a> Rows<'a> {
    fn of(args: &'a [ArrayRef]) -> Self {
        Rows(args.iter().map(|a| a.as_string::<i32>()).collect())
    }

    fn get(&self, column: usize, row: usize) -> Option<&'a str> {
        self.0.get(column).and_then(|c| c.is_valid(row).then(|| c.value(row)))
    }

    /// Calls `f` with what the path of each row leads to; NULL where document or path is.
    fn each<T>(&self, f: impl Fn(usize, Found, &Path) -> Result<Option<T>, String>) -> Result<Vec<Option<T>>, String> {
        let mut path: Option<(&str, Path)> = None;
        let rows = self.0[0].len();
        let mut all = Vec::with_capacity(rows);
        for row in 0..rows {
            let (Some(text), Some(way)) = (self.get(0, row), self.get(1, row)) else {
                all.push(None);
                continue;
            };
            if path.as_ref().is_none_or(|(same, _)| *same != way) {
                path = Some((way, Path::of(way)?));
            }
            if let Some((_, path)) = &path {
                all.push(f(row, path.find(text), path)?);
            }
        }
        Ok(all)
    }
}

/// What `NULL | ERROR | DEFAULT value | EMPTY ARRAY | EMPTY OBJECT` gives.
fn instead(behaviour: Option<&str>, default: Option<&str>, why: &str) -> Result<Option<String>, String> {
    Ok(match behaviour {
        Some("ERROR") => return Err(why.to_string()),
        Some("DEFAULT") => default.map(str::to_string),
        Some("EMPTY ARRAY") => Some("[]".into()),
        Some("EMPTY OBJECT") => Some("{}".into()),
        _ => None,
    })
}

const EMPTY: &str = "the path leads to nothing";
const WRONG: &str = "the text is no JSON, or the path leads nowhere";

fn is_scalar(json: &str) -> bool {
    !json.starts_with(['{', '['])
}

/// `(document, path, type, on empty, its default, on error, its default)`.
fn json_value(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let rows = Rows::of(args);
    let all = rows.each(|row, found, path| {
        let on_error = |why: &str| instead(rows.get(5, row), rows.get(6, row), why);
        match found {
            Found::Value(json) if is_scalar(&json) => {
                let plain = if json.starts_with('"') { serde_json::from_str(&json).map_err(|e| e.to_string())? } else { json };
                let fits = match rows.get(2, row) {
                    Some("BOOLEAN") => matches!(plain.as_str(), "true" | "false"),
                    Some("INT" | "INTEGER") => plain.parse::<i32>().is_ok(),
                    Some("BIGINT") => plain.parse::<i64>().is_ok(),
                    Some("DOUBLE") => plain.parse::<f64>().is_ok(),
                    _ => true,
                };
                if fits { Ok(Some(plain)) } else { on_error("the value is of another type than RETURNING says") }
            }
            Found::Value(_) if path.is_strict() => on_error("the value is an object or array"),
            Found::Value(_) | Found::Nothing => instead(rows.get(3, row), rows.get(4, row), EMPTY),
            Found::Wrong => on_error(WRONG),
        }
    })?;
    Ok(Arc::new(StringArray::from(all)))
}

/// `(document, path, wrapper, on empty, on error)`.
fn json_query(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let rows = Rows::of(args);
    let all = rows.each(|row, found, path| {
        let json = match found {
            Found::Value(json) => match rows.get(2, row) {
                Some("UNCONDITIONAL") => format!("[{json}]"),
                Some("CONDITIONAL") if !json.starts_with('[') => format!("[{json}]"),
                _ => json,
            },
            Found::Nothing => return instead(rows.get(3, row), None, EMPTY),
            Found::Wrong => return instead(rows.get(4, row), None, WRONG),
        };
        match is_scalar(&json) {
            false => Ok(Some(json)),
            true if path.is_strict() => instead(rows.get(4, row), None, "the value is no object or array"),
            true => instead(rows.get(3, row), None, EMPTY),
        }
    })?;
    Ok(Arc::new(StringArray::from(all)))
}

/// `(document, path, on error)`.
fn json_exists(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let rows = Rows::of(args);
    let all = rows.each(|row, found, _| match (found, rows.get(2, row)) {
        (Found::Value(_), _) => Ok(Some(true)),
        (Found::Wrong, Some("ERROR")) => Err(WRONG.into()),
        (Found::Wrong, Some("UNKNOWN")) => Ok(None),
        (Found::Wrong, Some("TRUE")) => Ok(Some(true)),
        _ => Ok(Some(false)),
    })?;
    Ok(Arc::new(BooleanArray::from(all)))
}

/// `(text, VALUE | SCALAR | ARRAY | OBJECT)`; FALSE for NULL.
fn is_json(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let rows = Rows::of(args);
    let one = |row: usize| {
        let Some(json) = rows.get(0, row).and_then(|text| serde_json::from_str::<&RawValue>(text).ok()) else { return Some(false) };
        Some(match rows.get(1, row) {
            Some("SCALAR") => is_scalar(json.get()),
            Some("ARRAY") => json.get().starts_with('['),
            Some("OBJECT") => json.get().starts_with('{'),
            _ => true,
        })
    };
    Ok(Arc::new((0..rows.0[0].len()).map(one).collect::<BooleanArray>()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Value,
    Object,
    Array,
}

/// Arguments: of a value itself; of the others what becomes of NULL (`NULL` or `ABSENT`), then for each value its name (of an
/// object), whether it is JSON already (`raw`), and the value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Writer {
    name: &'static str,
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for Writer {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _kinds: &[DataType]) -> Planned<DataType> {
        Ok(TEXT)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Planned<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Planned<Vec<_>>>()?;
        let arguments: Vec<Argument<'_>> = arrays.iter().map(Argument::of).collect();
        let texts = (0..rows).map(|row| self.row(&arguments, row)).collect::<Result<Vec<_>, String>>();
        match texts {
            Ok(texts) => Ok(ColumnarValue::Array(Arc::new(StringArray::from(texts)))),
            Err(why) => exec_err!("{}: {why}", self.name.to_uppercase()),
        }
    }
}

/// What is written: any value, or a text that is asked for.
struct Argument<'a> {
    values: ColumnWriter<'a>,
    texts: Option<&'a StringArray>,
}

impl<'a> Argument<'a> {
    fn of(column: &'a ArrayRef) -> Self {
        Argument { values: ColumnWriter::of(column), texts: column.as_string_opt() }
    }

    fn text(&self, row: usize) -> Option<&'a str> {
        self.texts.filter(|_| !self.values.is_null(row)).map(|texts| texts.value(row))
    }

    /// Appends the value, or the text as it is where it is JSON already.
    fn put(&self, row: usize, raw: bool, out: &mut Vec<u8>) -> Result<(), String> {
        match self.text(row).filter(|_| raw) {
            Some(json) => {
                out.extend_from_slice(json.as_bytes());
                Ok(())
            }
            None => self.values.json(row, out),
        }
    }
}

impl Writer {
    fn row(&self, arguments: &[Argument<'_>], row: usize) -> Result<Option<String>, String> {
        let mut out = Vec::new();
        if self.what == What::Value {
            let [value] = arguments else { return Err("it takes one value".into()) };
            if value.values.is_null(row) {
                return Ok(None);
            }
            value.put(row, false, &mut out)?;
            return String::from_utf8(out).map(Some).map_err(|e| e.to_string());
        }
        let Some((nulls, members)) = arguments.split_first() else { return Err("it is called by its own syntax".into()) };
        let skips = nulls.text(row) == Some("ABSENT");
        let (open, close, width) = if self.what == What::Object { (b'{', b'}', 3) } else { (b'[', b']', 2) };
        out.push(open);
        let mut by_name = BTreeMap::new();
        for member in members.chunks(width) {
            let (Some(value), Some(raw)) = (member.last(), member.get(width - 2)) else { continue };
            if value.values.is_null(row) && skips {
                continue;
            }
            let is_raw = raw.text(row) == Some("raw");
            if self.what == What::Object {
                let name = member[0].text(row).ok_or("the name of a member is NULL or no text")?;
                let mut written = serde_json::to_vec(name).map_err(|e| e.to_string())?;
                written.push(b':');
                value.put(row, is_raw, &mut written)?;
                by_name.insert(name, written);
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            value.put(row, is_raw, &mut out)?;
        }
        out.extend(by_name.into_values().collect::<Vec<_>>().join(&b','));
        out.push(close);
        String::from_utf8(out).map(Some).map_err(|e| e.to_string())
    }
}

/// `json_object_of(members)`: what JSON_OBJECTAGG has gathered, each as `"name":value`, as one object in the order of the names.
fn object_of(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let lists = args[0].as_list::<i32>();
    let one = |row: usize| {
        let members = if lists.is_valid(row) { lists.value(row) } else { new_empty_array(&TEXT) };
        let mut by_name = BTreeMap::new();
        for member in members.as_string::<i32>() {
            let name = member.and_then(|member| serde_json::Deserializer::from_str(member).into_iter::<String>().next()?.ok());
            let (Some(name), Some(member)) = (name, member) else { return Err("JSON_OBJECTAGG: a key is NULL".to_string()) };
            if by_name.contains_key(&name) {
                return Err(format!("JSON_OBJECTAGG: key {name:?} is there more than once"));
            }
            by_name.insert(name, member);
        }
        Ok(Some(format!("{{{}}}", by_name.into_values().collect::<Vec<_>>().join(","))))
    };
    Ok(Arc::new((0..lists.len()).map(one).collect::<Result<StringArray, String>>()?))
}
