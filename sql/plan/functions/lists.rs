//! Arrays made of arrays: ARRAY_APPEND, ARRAY_CONCAT, ARRAY_DISTINCT, ARRAY_SORT and their like; ELEMENT; SPLIT and ARRAY_JOIN.
//!
//! A result is a choice among items that are there: places in the arguments, a run of them for each row.
//!
//! Invariant: NULL is an item like others, and equal to itself; an array that is NULL gives NULL.

use super::own::ScalarFunction;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder, new_empty_array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;

/// How each is called.
const CALLS: &[(&str, What, &str)] = &[
    ("array_append", What::Append, "ARRAY_APPEND(array, item)"),
    ("array_prepend", What::Prepend, "ARRAY_PREPEND(array, item)"),
    ("array_remove", What::Remove, "ARRAY_REMOVE(array, item)"),
    ("array_position", What::Position, "ARRAY_POSITION(array, item)"),
    ("array_concat", What::Concat, "ARRAY_CONCAT(array, ...)"),
    ("array_union", What::Union, "ARRAY_UNION(array, array)"),
    ("array_except", What::Except, "ARRAY_EXCEPT(array, array)"),
    ("array_intersect", What::Intersect, "ARRAY_INTERSECT(array, array)"),
    ("array_distinct", What::Distinct, "ARRAY_DISTINCT(array)"),
    ("array_reverse", What::Reverse, "ARRAY_REVERSE(array)"),
    ("array_max", What::Max, "ARRAY_MAX(array)"),
    ("array_min", What::Min, "ARRAY_MIN(array)"),
    ("element", What::Element, "ELEMENT(array)"),
    ("array_sort", What::Sort, "ARRAY_SORT(array [, ascending [, nulls first]])"),
    ("array_slice", What::Slice, "ARRAY_SLICE(array, from [, to])"),
];

/// All of them but those of texts.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let all = CALLS.iter().map(|&(name, what, usage)| {
        ScalarUDF::from(OfLists { name, what, usage, signature: Signature::user_defined(Volatility::Immutable) })
    });
    all.collect()
}

/// Between arrays and texts.
pub(super) fn of_texts() -> Vec<ScalarFunction> {
    let texts = DataType::new_list(TEXT, true);
    vec![
        ScalarFunction::new("split", vec![TEXT, TEXT], texts.clone(), split),
        ScalarFunction::new("array_join", vec![texts.clone(), TEXT], TEXT, join).or(vec![texts, TEXT, TEXT]),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Append,
    Prepend,
    Remove,
    Position,
    Concat,
    Union,
    Except,
    Intersect,
    Distinct,
    Reverse,
    Max,
    Min,
    Element,
    Sort,
    Slice,
}

impl What {
    /// Whether the second argument is an item of the first.
    fn takes_item(self) -> bool {
        matches!(self, What::Append | What::Prepend | What::Remove | What::Position)
    }

    /// Whether all arguments are arrays of one type, and how many.
    fn takes_arrays(self) -> Option<Range<usize>> {
        match self {
            What::Concat => Some(1..usize::MAX),
            What::Union | What::Except | What::Intersect => Some(2..3),
            What::Distinct | What::Reverse | What::Max | What::Min | What::Element => Some(1..2),
            _ => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfLists {
    name: &'static str,
    what: What,
    usage: &'static str,
    signature: Signature,
}

fn item_of(kind: &DataType) -> Option<&DataType> {
    match kind {
        DataType::List(item) => Some(item.data_type()),
        _ => None,
    }
}

impl ScalarUDFImpl for OfLists {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let otherwise = || plan_err!("{} is called otherwise: {}", self.name.to_uppercase(), self.usage);
        if let Some(count) = self.what.takes_arrays().filter(|count| count.contains(&kinds.len())) {
            let items: Option<Vec<DataType>> = kinds.iter().filter(|k| !k.is_null()).map(|k| item_of(k).cloned()).collect();
            let Some(item) = items.filter(|items| !items.is_empty()).and_then(|items| type_union_resolution(&items)) else {
                return otherwise();
            };
            return Ok(match kinds {
                [one] => vec![one.clone()],
                _ => vec![DataType::new_list(item, true); count.start.max(kinds.len())],
            });
        }
        let Some(item) = kinds.first().and_then(item_of) else { return otherwise() };
        match &kinds[1..] {
            [other] if self.what.takes_item() => match type_union_resolution(&[item.clone(), other.clone()]) {
                Some(common) => Ok(vec![DataType::new_list(common.clone(), true), common]),
                None => otherwise(),
            },
            rest if self.what == What::Slice && matches!(rest.len(), 1 | 2) && rest.iter().all(|k| k.is_integer() || k.is_null()) => {
                Ok([kinds[0].clone()].into_iter().chain(rest.iter().map(|_| DataType::Int64)).collect())
            }
            rest if self.what == What::Sort && rest.len() <= 2 && rest.iter().all(|k| *k == DataType::Boolean || k.is_null()) => {
                Ok([kinds[0].clone()].into_iter().chain(rest.iter().map(|_| DataType::Boolean)).collect())
            }
            _ => otherwise(),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let Some(item) = kinds.first().and_then(item_of) else { return plan_err!("{} takes an ARRAY first", self.name.to_uppercase()) };
        Ok(match self.what {
            What::Position => DataType::Int64,
            What::Max | What::Min | What::Element => item.clone(),
            _ => kinds[0].clone(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let Some(lists) = arrays.first().and_then(|a| a.as_list_opt::<i32>()) else {
            return exec_err!("{} takes an ARRAY", self.name.to_uppercase());
        };
        let mut picked = Picked::of(self.what, &arrays)?;
        let result: ArrayRef = match self.what {
            What::Position => return Ok(ColumnarValue::Array(Arc::new(picked.positions()))),
            What::Max | What::Min | What::Element => {
                // A row without a choice is an item that is NULL.
                picked.sources.push(new_null_array(lists.values().data_type(), 1));
                let none = (picked.sources.len() - 1, 0);
                let mut chosen = Vec::with_capacity(args.number_rows);
                for row in 0..args.number_rows {
                    chosen.push(picked.one(self.what, row)?.unwrap_or(none));
                }
                items(&picked.sources, &chosen, lists.values().data_type())?
            }
            _ => {
                let (mut chosen, mut lengths, mut given) = (Vec::new(), Vec::new(), Vec::new());
                for row in 0..args.number_rows {
                    let before = chosen.len();
                    given.push(picked.choose(self.what, row, &mut chosen).is_some());
                    lengths.push(chosen.len() - before);
                }
                if i32::try_from(chosen.len()).is_err() {
                    return exec_err!("arrays of more than 2147483647 items in one column");
                }
                let DataType::List(item) = args.return_field.data_type() else { return exec_err!("an ARRAY is given") };
                let values = items(&picked.sources, &chosen, item.data_type())?;
                Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, Some(NullBuffer::from(given)))?)
            }
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn items(sources: &[ArrayRef], chosen: &[Place], kind: &DataType) -> Result<ArrayRef> {
    if chosen.is_empty() {
        return Ok(new_empty_array(kind));
    }
    Ok(interleave(&sources.iter().map(AsRef::as_ref).collect::<Vec<_>>(), chosen)?)
}

/// An item: which source, and where in it.
type Place = (usize, usize);

/// The arguments, with their items in a form that is compared at once.
struct Picked<'a> {
    /// Those that are arrays.
    lists: Vec<&'a ListArray>,
    /// The other arguments.
    rest: &'a [ArrayRef],
    /// Where items are: of the arrays, then of the item that is an argument.
    sources: Vec<ArrayRef>,
    rows: Vec<Rows>,
}

impl<'a> Picked<'a> {
    fn of(what: What, arrays: &'a [ArrayRef]) -> Result<Self> {
        let lists: Vec<&ListArray> = arrays.iter().map_while(|a| a.as_list_opt::<i32>()).collect();
        let of_lists = if what.takes_arrays().is_some() { lists.len() } else { 1 };
        let lists = lists[..of_lists].to_vec();
        let rest = &arrays[of_lists..];
        let mut sources: Vec<ArrayRef> = lists.iter().map(|list| list.values().clone()).collect();
        if what.takes_item() {
            sources.extend(rest.first().cloned());
        }
        let converter = RowConverter::new(vec![SortField::new(sources[0].data_type().clone())])?;
        let rows = sources.iter().map(|source| converter.convert_columns(std::slice::from_ref(source))).collect::<Result<_, _>>()?;
        Ok(Picked { lists, rest, sources, rows })
    }

    /// The items of a row's array.
    fn range(&self, list: usize, row: usize) -> Option<Range<usize>> {
        let offsets = self.lists[list].value_offsets();
        self.lists[list].is_valid(row).then(|| offsets[row] as usize..offsets[row + 1] as usize)
    }

    fn row(&self, (source, at): Place) -> Row<'_> {
        self.rows[source].row(at)
    }

    fn is_null(&self, (source, at): Place) -> bool {
        self.sources[source].is_null(at)
    }

    fn number(&self, argument: usize, row: usize) -> Option<i64> {
        let numbers = self.rest[argument].as_primitive::<Int64Type>();
        numbers.is_valid(row).then(|| numbers.value(row))
    }

    fn is_true(&self, argument: usize, row: usize) -> Option<bool> {
        let values: &BooleanArray = self.rest[argument].as_boolean();
        values.is_valid(row).then(|| values.value(row))
    }

    /// Adds what a row's array is made of; none = it is NULL.
    fn choose(&self, what: What, row: usize, chosen: &mut Vec<Place>) -> Option<()> {
        let first = self.range(0, row)?;
        let of_first = || first.clone().map(|at| (0, at));
        match what {
            What::Append => chosen.extend(of_first().chain([(1, row)])),
            What::Prepend => chosen.extend([(1, row)].into_iter().chain(of_first())),
            What::Remove => chosen.extend(of_first().filter(|place| self.row(*place) != self.row((1, row)))),
            What::Reverse => chosen.extend(of_first().rev()),
            What::Concat => {
                let ranges = (0..self.lists.len()).map(|list| Some((list, self.range(list, row)?))).collect::<Option<Vec<_>>>()?;
                chosen.extend(ranges.into_iter().flat_map(|(list, range)| range.map(move |at| (list, at))));
            }
            What::Distinct | What::Union | What::Except | What::Intersect => {
                let second: Vec<Place> = match self.lists.len() {
                    1 => Vec::new(),
                    _ => self.range(1, row)?.map(|at| (1, at)).collect(),
                };
                let others: HashSet<Row<'_>> = second.iter().map(|place| self.row(*place)).collect();
                let of_second = second.into_iter().filter(|_| what == What::Union);
                let mut seen = HashSet::new();
                chosen.extend(of_first().chain(of_second).filter(|place| {
                    let row = self.row(*place);
                    let fits = match what {
                        What::Except => !others.contains(&row),
                        What::Intersect => others.contains(&row),
                        _ => true,
                    };
                    fits && seen.insert(row)
                }));
            }
            What::Sort => {
                let ascending = if self.rest.is_empty() { true } else { self.is_true(0, row)? };
                let nulls_first = if self.rest.len() < 2 { ascending } else { self.is_true(1, row)? };
                let (nulls, mut others): (Vec<Place>, Vec<Place>) = of_first().partition(|place| self.is_null(*place));
                others.sort_by(|a, b| {
                    let order = self.row(*a).cmp(&self.row(*b));
                    if ascending { order } else { order.reverse() }
                });
                let (begin, end) = if nulls_first { (nulls, others) } else { (others, nulls) };
                chosen.extend(begin.into_iter().chain(end));
            }
            What::Slice => {
                let length = first.len() as i64;
                let place = |n: i64| if n < 0 { n.saturating_add(length + 1) } else { n.max(1) };
                let from = place(self.number(0, row)?);
                let to = if self.rest.len() < 2 { length } else { place(self.number(1, row)?) };
                let (from, to) = (from.max(1), to.min(length));
                if from <= to {
                    chosen.extend((from..=to).map(|n| (0, first.start + n as usize - 1)));
                }
            }
            What::Position | What::Max | What::Min | What::Element => {}
        }
        Some(())
    }

    /// The one item of a row's array that is asked for.
    fn one(&self, what: What, row: usize) -> Result<Option<Place>> {
        let Some(range) = self.range(0, row) else { return Ok(None) };
        let given = range.clone().map(|at| (0, at)).filter(|place| !self.is_null(*place));
        match what {
            What::Max => Ok(given.max_by_key(|place| self.row(*place))),
            What::Min => Ok(given.min_by_key(|place| self.row(*place))),
            _ if range.len() > 1 => exec_err!("ELEMENT: the array has {} items, not one", range.len()),
            _ => Ok(range.map(|at| (0, at)).next()),
        }
    }

    /// Where the item is in its row's array, from 1; 0 when it is not.
    fn positions(&self) -> Int64Array {
        let place = |row: usize| {
            let range = self.range(0, row)?;
            let start = range.start;
            let sought = (!self.is_null((1, row))).then(|| self.row((1, row)))?;
            Some(range.into_iter().find(|at| self.row((0, *at)) == sought).map_or(0, |at| (at - start + 1) as i64))
        };
        (0..self.lists[0].len()).map(place).collect()
    }
}

/// `SPLIT(text, separator)`: all parts; by no letters: the letters.
fn split(args: &[ArrayRef]) -> std::result::Result<ArrayRef, String> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for (text, separator) in args[0].as_string::<i32>().iter().zip(args[1].as_string::<i32>().iter()) {
        let (Some(text), Some(separator)) = (text, separator) else {
            out.append_null();
            continue;
        };
        if separator.is_empty() {
            let mut letter = [0; 4];
            text.chars().for_each(|c| out.values().append_value(c.encode_utf8(&mut letter)));
        } else {
            text.split(separator).for_each(|part| out.values().append_value(part));
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// `ARRAY_JOIN(array, separator [, text for NULL])`: without that text, NULLs are left out.
fn join(args: &[ArrayRef]) -> std::result::Result<ArrayRef, String> {
    let (lists, separators) = (args[0].as_list::<i32>(), args[1].as_string::<i32>());
    let missing = args.get(2).map(|texts| texts.as_string::<i32>());
    let one = |row: usize| {
        let separator = separators.is_valid(row).then(|| separators.value(row))?;
        let for_null = match missing {
            Some(texts) => Some(texts.is_valid(row).then(|| texts.value(row))?),
            None => None,
        };
        let list = lists.is_valid(row).then(|| lists.value(row))?;
        let texts: Vec<&str> = list.as_string::<i32>().iter().filter_map(|text| text.or(for_null)).collect();
        Some(texts.join(separator))
    };
    Ok(Arc::new((0..lists.len()).map(one).collect::<StringArray>()))
}
