//! What is another way to write something: BYTES, CHAR(n), IF, IFNULL, GREATEST, FLOOR(.. TO ..), LIKE .. ESCAPE, SIMILAR TO,
//! units that stand as words, intervals of two units, OVERLAPS.
//!
//! Invariant: what is put in its place means the same; nothing else is touched.

use super::functions::{LIKE, OF_LIKE, SIMILAR, escaped};
use super::spans;
use super::walk::each_expr;
use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CeilFloorKind, CharacterLength, DataType, DateTimeField, ExactNumberInfo, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Spanned, TimezoneInfo, TypedString,
    UnaryOperator, Value, ValueWithSpan, VisitMut,
};

/// Characters of a CHAR(n), which is filled up, at most.
const LONGEST: u64 = 1 << 20;

/// Characters of a STRING at most.
const LONGEST_TEXT: u64 = i32::MAX as u64;

/// Rewrites every expression in it.
pub(super) fn rewrite(within: &mut impl VisitMut) -> SqlResult<()> {
    each_expr(within, |expr| {
        if let Some(other) = plain(expr)? {
            *expr = other;
        }
        Ok(())
    })
}

/// A call as the parser would make it.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(call_with(ObjectName::from(vec![Ident::new(name)]), args))
}

/// The same with arguments of any form.
pub(super) fn call_with(name: ObjectName, args: Vec<FunctionArg>) -> Function {
    Function {
        name,
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

/// A text.
pub(crate) fn text(value: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.to_string()).into())
}

/// A number.
pub(super) fn number(value: impl ToString) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).into())
}

/// `CASE WHEN condition THEN result ELSE otherwise END`.
pub(super) fn case(condition: Expr, result: Expr, otherwise: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: Some(Box::new(otherwise)),
    }
}

/// What stands for an expression; none if it stands for itself.
fn plain(expr: &Expr) -> SqlResult<Option<Expr>> {
    Ok(match expr {
        Expr::Function(function) => return of_call(function),
        Expr::Floor { expr, field: CeilFloorKind::DateTimeField(unit) } if *unit != DateTimeField::NoDateTime => {
            Some(call("floor_time", vec![text(&unit.to_string().to_uppercase()), (**expr).clone()]))
        }
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(unit) } if *unit != DateTimeField::NoDateTime => {
            Some(call("ceil_time", vec![text(&unit.to_string().to_uppercase()), (**expr).clone()]))
        }
        // What is on a clock, as an instant: the session's zone says which.
        Expr::Cast { kind, expr, data_type: DataType::Custom(name, _), .. } if name.to_string().eq_ignore_ascii_case("timestamp_ltz") => {
            let local = Expr::Cast {
                kind: kind.clone(),
                expr: expr.clone(),
                data_type: DataType::Timestamp(Some(3), TimezoneInfo::None),
                array: false,
                format: None,
            };
            Some(call("as_instant", vec![local]))
        }
        Expr::Cast { kind, expr, data_type, .. } if length(data_type).is_some() => return sized(kind, expr, data_type),
        // The planner has no other digits than nine, Flink's TIME has none.
        Expr::Cast {
            kind, expr, data_type: DataType::Time(digits, zone @ (TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)), ..
        } => {
            let data_type = DataType::Time(None, *zone);
            let whole = Expr::Cast { kind: kind.clone(), expr: expr.clone(), data_type, array: false, format: None };
            Some(call("cut_time", vec![whole, number(digits.unwrap_or(0))]))
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char } => match &**pattern {
            Expr::Value(literal) => {
                let escape = escape_of(escape_char.as_ref())?;
                let Some(pattern) = of_planner(&literal.value, escape).map_err(|e| e.at(pattern.span()))? else { return Ok(None) };
                let escape_char = Some(Value::SingleQuotedString("\\".into()).into());
                Some(Expr::Like { negated: *negated, any: false, expr: expr.clone(), pattern: Box::new(text(&pattern)), escape_char })
            }
            _ => Some(pattern_of(LIKE, *negated, [expr, pattern], escape_char.as_ref())?),
        },
        // The planner takes its pattern for a regular expression.
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            Some(pattern_of(SIMILAR, *negated, [expr, pattern], escape_char.as_ref())?)
        }
        Expr::Interval(interval) => spans::in_one_unit(interval)?,
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => Some(spans::overlaps(left, right)?),
        Expr::Array(array) if !array.elem.is_empty() => Some(call("array_of", array.elem.clone())),
        // The planner takes it for a decimal.
        Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number.contains(['e', 'E'])) => Some(Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(text(&value.value.to_string())),
            data_type: DataType::Double(ExactNumberInfo::None),
            array: false,
            format: None,
        }),
        Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            let args = [Some(expr), Some(overlay_what), Some(overlay_from), overlay_for.as_ref()];
            Some(call("overlay", args.into_iter().flatten().map(|e| (**e).clone()).collect()))
        }
        // Places below 0 count from the end, which the planner's own does not know.
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let first = || Box::new(Expr::Value(Value::Number("1".into(), false).into()));
            let from = substring_from.clone().unwrap_or_else(first);
            let args = [Some(expr), Some(&from), substring_for.as_ref()];
            Some(call("substring", args.into_iter().flatten().map(|e| (**e).clone()).collect()))
        }
        // Sunday is 1, where the planner's own begins with 0.
        Expr::Extract { field: DateTimeField::Dow | DateTimeField::DayOfWeek, expr, .. } => Some(call("dayofweek", vec![(**expr).clone()])),
        // Whole seconds.
        Expr::Extract { field: DateTimeField::Epoch, expr, .. } => {
            let epoch = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(text("1970-01-01 00:00:00")),
                data_type: DataType::Timestamp(Some(3), TimezoneInfo::None),
                array: false,
                format: None,
            };
            Some(call("timestampdiff", vec![text("SECOND"), epoch, (**expr).clone()]))
        }
        Expr::Cast { kind, expr, data_type: DataType::Bytes(_) | DataType::Varbinary(_) | DataType::Binary(_), array, format } => {
            let (kind, expr, format) = (kind.clone(), expr.clone(), format.clone());
            Some(Expr::Cast { kind, expr, data_type: DataType::Bytea, array: *array, format })
        }
        // Its precision is what is written, in whole units; milliseconds are that of event time.
        Expr::TypedString(TypedString { data_type: DataType::Timestamp(None, TimezoneInfo::None), value, .. }) => match &value.value {
            Value::SingleQuotedString(t) => Some(Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(text(t)),
                data_type: DataType::Timestamp(Some(written_digits(t)), TimezoneInfo::None),
                array: false,
                format: None,
            }),
            _ => None,
        },
        _ => None,
    })
}

/// Digits of the coarsest unit of time, milliseconds or finer, that has room for the fraction of a text.
fn written_digits(time: &str) -> u64 {
    match time.rsplit_once('.').map_or(0, |(_, fraction)| fraction.len()) {
        0..=3 => 3,
        4..=6 => 6,
        _ => 9,
    }
}

/// How a text type of a length is called, and that; none for one without.
fn length(data_type: &DataType) -> Option<(&'static str, Option<CharacterLength>)> {
    match data_type {
        DataType::Char(length) | DataType::Character(length) => Some(("CHAR", *length)),
        DataType::Varchar(Some(length)) => Some(("VARCHAR", Some(*length))),
        DataType::CharVarying(length) | DataType::CharacterVarying(length) => Some(("VARCHAR", *length)),
        _ => None,
    }
}

/// A cast to a text of so many characters: of a VARCHAR at most, of a CHAR exactly.
fn sized(kind: &CastKind, expr: &Expr, data_type: &DataType) -> SqlResult<Option<Expr>> {
    let Some((name, length)) = length(data_type) else { return Ok(None) };
    let data_type = DataType::String(None);
    let whole = Expr::Cast { kind: kind.clone(), expr: Box::new(expr.clone()), data_type, array: false, format: None };
    let length = match length {
        // As long as a text may be.
        Some(CharacterLength::IntegerLength { length, .. }) if name == "VARCHAR" && length >= LONGEST_TEXT => return Ok(Some(whole)),
        Some(CharacterLength::IntegerLength { length, .. }) => length,
        Some(CharacterLength::Max) => return Ok(Some(whole)),
        None if name == "VARCHAR" => return Ok(Some(whole)),
        None => 1,
    };
    if length == 0 || (name == "CHAR" && length > LONGEST) {
        let most = if name == "CHAR" { LONGEST } else { LONGEST_TEXT };
        return Err(SqlError::new(format!("{name}({length}): the length is 1 to {most}")).at(expr.span()));
    }
    let cut = if name == "CHAR" { "fit_text" } else { "cut_text" };
    Ok(Some(call(cut, vec![whole, number(length)])))
}

/// The character that an ESCAPE names.
fn escape_of(written: Option<&ValueWithSpan>) -> SqlResult<Option<char>> {
    match written.map(|written| (&written.value, written.span)) {
        None => Ok(None),
        Some((Value::SingleQuotedString(escape), _)) if escape.chars().count() == 1 => Ok(escape.chars().next()),
        Some((_, span)) => Err(SqlError::new("an ESCAPE is one character in single quotes").at(span).help("x LIKE 'a!%' ESCAPE '!'")),
    }
}

/// A text and its pattern as a call.
fn pattern_of(name: &str, negated: bool, args: [&Expr; 2], escape: Option<&ValueWithSpan>) -> SqlResult<Expr> {
    let escape = escape_of(escape)?.map(|escape| text(&escape.to_string()));
    let call = call(name, args.into_iter().cloned().chain(escape).collect());
    Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(call) } } else { call })
}

/// A literal of LIKE with the escape that the planner knows, `\`; none where it is that already. Flink knows none unless it is named.
fn of_planner(pattern: &Value, escape: Option<char>) -> SqlResult<Option<String>> {
    if escape == Some('\\') {
        return Ok(None);
    }
    let Value::SingleQuotedString(pattern) = pattern else { return Ok(None) };
    if escape.is_none() && !pattern.contains('\\') {
        return Ok(None);
    }
    let mut known = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let (letter, is_plain) = match letter {
            // A letter like others, where another one is the escape.
            '\\' => ('\\', true),
            _ if Some(letter) != escape => (letter, false),
            _ => {
                let next = escaped(pattern, letter, letters.next(), OF_LIKE).map_err(SqlError::new)?;
                (next, OF_LIKE.contains(next))
            }
        };
        if is_plain {
            known.push('\\');
        }
        known.push(letter);
    }
    Ok(Some(known))
}

/// Whether one of several values is NULL.
fn any_null(first: &Expr, rest: &[Expr]) -> Expr {
    let is_null = |e: &Expr| Expr::IsNull(Box::new(Expr::Nested(Box::new(e.clone()))));
    rest.iter().fold(is_null(first), |any, e| spans::binary(any, BinaryOperator::Or, is_null(e)))
}

fn of_call(function: &Function) -> SqlResult<Option<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let args = list.args.iter().map(|a| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    });
    let Some(args) = args.collect::<Option<Vec<_>>>() else { return Ok(None) };
    Ok(match (function.name.to_string().to_uppercase().as_str(), args.as_slice()) {
        // Rows of values, of which none is NULL.
        ("COUNT", [first, rest @ ..]) if !rest.is_empty() => {
            let row = case(any_null(first, rest), Expr::Value(Value::Null.into()), call("row", args.clone()));
            let arg = FunctionArg::Unnamed(FunctionArgExpr::Expr(row));
            let args = FunctionArguments::List(FunctionArgumentList { args: vec![arg], ..list.clone() });
            Some(Expr::Function(Function { args, ..function.clone() }))
        }
        ("IF", [condition, yes, no]) => Some(case(condition.clone(), yes.clone(), no.clone())),
        ("IFNULL" | "NVL", [_, _]) => Some(call("coalesce", args)),
        ("UNIX_TIMESTAMP", []) => Some(call("unix_timestamp_now", args)),
        ("E", []) => Some(call("exp", vec![Expr::Value(Value::Number("1".into(), false).into())])),
        (name @ ("GREATEST" | "LEAST"), [first, rest @ ..]) => {
            Some(case(any_null(first, rest), Expr::Value(Value::Null.into()), call(&name.to_lowercase(), args.clone())))
        }
        (name @ ("TIMESTAMPADD" | "TIMESTAMPDIFF"), [Expr::Identifier(unit), a, b]) => {
            let unit = unit.value.to_uppercase();
            let unit = unit.strip_prefix("SQL_TSI_").unwrap_or(&unit);
            Some(call(&name.to_lowercase(), vec![text(unit), a.clone(), b.clone()]))
        }
        _ => None,
    })
}
