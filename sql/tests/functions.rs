//! Every function with results, what it gives for NULL in each place, and those that ask the clock.

use super::world::{Feed, Feeds, Running};
use crate::parser::{StatementKind, parse};
use crate::plan::{Functions, compute};
use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion_common::DFSchema;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::create_physical_expr;
use datafusion_sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, Value};
use std::sync::Arc;

/// One row: what is no constant is not computed by the planner.
fn row() -> RecordBatch {
    let stamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Millisecond, zone.map(Into::into));
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("ts", stamp(None), true),
        Field::new("ltz", stamp(Some("UTC")), true),
        Field::new("items", DataType::new_list(DataType::Int64, true), true),
        Field::new("doc", DataType::Utf8, true),
    ]));
    let time = 1_704_099_909_087; // 2024-01-01 09:05:09.087
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(StringArray::from(vec!["Hello World"])),
        Arc::new(TimestampMillisecondArray::from(vec![time])),
        Arc::new(TimestampMillisecondArray::from(vec![time]).with_timezone("UTC")),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(3), None, Some(5)])])),
        Arc::new(StringArray::from(vec![r#"{"a": {"b": [1, {"c": "x"}]}, "d": 1.50, "e": null, "f": "t", "g": true}"#])),
    ];
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(1))).unwrap()
}

fn expression(text: &str) -> Expr {
    let sql = format!("SELECT {text} FROM t");
    let statements = parse(&sql).unwrap_or_else(|e| panic!("{}", e.render("test.sql", &sql)));
    let StatementKind::Query(query) = &statements[0].kind else { panic!("no query: {text}") };
    let SetExpr::Select(select) = &*query.body else { panic!("no select: {text}") };
    match &select.projection[..] {
        [SelectItem::UnnamedExpr(expr)] => expr.clone(),
        other => panic!("no expression: {other:?}"),
    }
}

fn result(expr: &Expr) -> String {
    let row = row();
    let schema = DFSchema::try_from(row.schema()).unwrap();
    let (expr, _) = match compute(expr, &row.schema(), &Functions::new()) {
        Ok(planned) => planned,
        Err(e) => return format!("error: {}", e.message()),
    };
    let physical = create_physical_expr(&expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).unwrap();
    match physical.evaluate(&row).and_then(|value| value.into_array(1)) {
        Ok(value) if *value.data_type() == DataType::Null => "NULL".into(),
        Ok(value) => crate::cell(&RecordBatch::try_from_iter([("x", value)]).unwrap(), 0, 0),
        Err(e) => format!("error: {}", crate::kernels::calc::explain(&e)),
    }
}

#[test]
fn functions_have_these_results() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("functions.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (call, wanted) = line.split_once(" => ").unwrap_or_else(|| panic!("no result: {line}"));
        let got = result(&expression(call));
        count += 1;
        let fits = match wanted.strip_prefix("error: ") {
            Some(why) => got.starts_with("error: ") && got.contains(why.trim_end_matches("...")),
            None => got == wanted || wanted.strip_suffix("...").is_some_and(|begin| got.starts_with(begin)),
        };
        if !fits {
            wrong.push(format!("{call} => {got}   (not {wanted})"));
        }
    }
    assert!(count > 150, "{count} lines");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Those for which NULL is a value like others, or no reason to give it.
const NOT_STRICT: &[&str] = &[
    "CASE",
    "COALESCE",
    "IF",
    "IFNULL",
    "NVL",
    "CONCAT_WS",
    "ELT",
    "IS_ALPHA",
    "IS_DIGIT",
    "IS_DECIMAL",
    "ROW",
    "NULLIF",
    "PRINTF",
    "TYPEOF",
    "CAST_TO",
    "TRY_CAST_TO",
    "ARRAY_CONTAINS",
    "IS_JSON",
    "JSON_OBJECT",
    "JSON_ARRAY",
    "JSON_VALUE",
    "JSON_QUERY",
    "JSON_EXISTS",
];

#[test]
fn null_gives_null_in_each_place() {
    let mut seen = 0;
    for line in include_str!("functions.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (call, wanted) = line.split_once(" => ").unwrap();
        let Expr::Function(function) = expression(call) else { continue };
        let name = function.name.to_string().to_uppercase();
        let FunctionArguments::List(list) = &function.args else { continue };
        if NOT_STRICT.contains(&name.as_str()) || wanted.starts_with("error") {
            continue;
        }
        // A unit is a word, no value.
        let first = usize::from(name.starts_with("TIMESTAMPADD") || name.starts_with("TIMESTAMPDIFF"));
        for place in first..list.args.len() {
            let mut with_null = function.clone();
            let FunctionArguments::List(args) = &mut with_null.args else { continue };
            // CARDINALITY(NULL) has no type to be an array of, MAP_KEYS(NULL) none to be a map of; an item may be NULL.
            if matches!(name.as_str(), "CARDINALITY" | "ELEMENT") || name.starts_with("MAP_") || name.starts_with("ARRAY_") {
                continue;
            }
            args.args[place] = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(Value::Null.into())));
            let shown = with_null.to_string();
            assert_eq!(result(&Expr::Function(with_null)), "NULL", "{shown}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn the_clock_is_that_of_the_job() {
    let feed = Feed::new("t", vec![(0..20).map(|i| format!("{{\"i\":{i}}}")).collect()], 3);
    feed.reveal(20);
    let feeds = Feeds([("t".to_string(), feed)].into());
    let script = "CREATE TABLE t (i BIGINT) WITH ('connector' = 'topics', 'format' = 'json');
        SELECT i, CAST(CURRENT_TIMESTAMP AS TIMESTAMP(3)) = LOCALTIMESTAMP AS a, NOW() = CURRENT_ROW_TIMESTAMP() AS b,
            UNIX_TIMESTAMP() - TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', LOCALTIMESTAMP) AS c,
            CAST(LOCALTIMESTAMP AS DATE) = CURRENT_DATE AS d, LOCALTIME = CURRENT_TIME AS e
        FROM t WHERE CURRENT_TIMESTAMP >= TIMESTAMP '1970-01-01 00:00:00' AND i < 15";
    let mut running = Running::start(&feeds, script, 7, 1);
    running.finish();
    let rows = running.rows.rows();
    assert_eq!(rows.len(), 15, "{rows:?}");
    assert!(rows.iter().all(|(row, weight)| row[1..] == ["true", "true", "0", "true", "true"] && *weight == 1), "{rows:?}");
}
