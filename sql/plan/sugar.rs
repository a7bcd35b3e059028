//! What is another way to write something: BYTES, CHAR(n), IF, IFNULL, GREATEST, FLOOR(.. TO ..), LIKE .. ESCAPE, SIMILAR TO,
//! units that stand as words, intervals of two units, OVERLAPS.
//!
//! Invariant: what is put in its place means the same; nothing else is touched.

use super::functions::{CAST_TO, LIKE, OF_LIKE, SEEDED, SIMILAR, TRY_CAST_TO, escaped};
use super::spans;
use super::walk::each_expr;
use crate::error::{SqlError, SqlResult};
use crate::parser::{DATABASE, cast_type};
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Spanned, TimezoneInfo, TypedString, UnaryOperator, Value,
    ValueWithSpan, VisitMut,
};

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
        // The planner has nine digits.
        Expr::Cast {
            kind,
            expr,
            data_type: DataType::Timestamp(None, zone @ (TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)),
            ..
        } => {
            let data_type = DataType::Timestamp(Some(6), *zone);
            Some(Expr::Cast { kind: kind.clone(), expr: expr.clone(), data_type, array: false, format: None })
        }
        Expr::Cast { kind, expr, data_type, .. } if has_length(data_type) => {
            let written = data_type.to_string();
            cast_type(&written).map_err(|e| e.at(expr.span()))?;
            let name = if *kind == CastKind::Cast { CAST_TO } else { TRY_CAST_TO };
            Some(call(name, vec![(**expr).clone(), text(&written)]))
        }
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
        // An instant has one in every zone.
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
        Expr::Extract { field, expr, .. } => {
            let field = match field.to_string().to_uppercase().as_str() {
                "MILLENIUM" => "MILLENNIUM".to_string(),
                "DAYOFWEEK" => "DOW".into(),
                "DAYOFYEAR" => "DOY".into(),
                other => other.trim_end_matches('S').to_string(),
            };
            Some(call("extract", vec![text(&field), (**expr).clone()]))
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

/// Whether a text type has a length, which the planner does not know.
fn has_length(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Char(_) | DataType::Character(_) | DataType::Varchar(Some(_)) | DataType::CharVarying(_) | DataType::CharacterVarying(_)
    )
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
        ("RAND", [_]) => Some(call(SEEDED[0], args)),
        ("RAND_INTEGER", [_, _]) => Some(call(SEEDED[1], args)),
        ("CURRENT_DATABASE", []) => Some(text(DATABASE)),
        ("CEILING", [x]) => Some(Expr::Ceil { expr: Box::new(x.clone()), field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) }),
        ("PERCENTILE", [x, share]) => Some(percentile(function, "collect", x.clone(), share)),
        // How often each value counts goes with it.
        ("PERCENTILE", [x, share, times]) => Some(percentile(function, "array_agg", call("row", vec![x.clone(), times.clone()]), share)),
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

/// The values of a group, gathered by another aggregate, and the percentile of them.
fn percentile(function: &Function, gather: &str, value: Expr, share: &Expr) -> Expr {
    let gathered = match call(gather, vec![value]) {
        Expr::Function(of_values) => Expr::Function(Function { filter: function.filter.clone(), over: function.over.clone(), ..of_values }),
        other => other,
    };
    call("percentile_of", vec![gathered, share.clone()])
}
