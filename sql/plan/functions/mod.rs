//! The functions that queries may call.
//!
//! DataFusion brings many; only those that mean the same in Flink are let in, by name. Where the two differ, the function is
//! our own or not there: a query is never answered with another meaning of its words.
//!
//! Invariant: every function is a function of its arguments alone, so that a row taken back is the row that was put in.

mod aggregates;
mod arrays;
mod casts;
mod chance;
mod decimals;
mod instants;
mod json;
mod json_path;
mod lists;
mod maps;
mod near;
mod numbers;
mod own;
mod percentile;
mod printf;
mod regexp;
mod rows;
mod similar;
mod strings;
mod text;
mod texts;
mod time;
mod typeof_;

pub(crate) use aggregates::own_of;
pub(super) use casts::{AS_WRITTEN, replaced};
pub(crate) use casts::{CAST_TO, TRY_CAST_TO, as_other};
pub(crate) use chance::{CHANCE, FRACTION_OF, SEEDED, Seeded, UUID_OF};
pub use own::ScalarFunction;
pub(crate) use rows::fits;
pub(super) use similar::{LIKE, OF_LIKE, SIMILAR, escaped};
pub(crate) use strings::hex;
pub(crate) use time::{CURRENT_WATERMARK, is_of_the_clock};

use super::fields::FieldPlanner;
use super::over;
use super::tvf::TablePlanner;
use super::zones::Zone;
use crate::kernels::decimal::{Operation, mean};
use crate::own::{Function, Kind, TableFunction};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, kernels::numeric::rem};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::planner::{ExprPlanner, RelationPlanner};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    WindowUDF,
};
use decimals::DecimalPlanner;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// DataFusion's functions that are Flink's too.
const SCALAR: &[&str] = &[
    "abs",
    "round",
    "sqrt",
    "exp",
    "ln",
    "log10",
    "log2",
    "power",
    "sin",
    "cos",
    "tan",
    "cot",
    "asin",
    "acos",
    "atan",
    "atan2",
    "degrees",
    "radians",
    "upper",
    "lower",
    "btrim",
    "trim",
    "ltrim",
    "rtrim",
    "character_length",
    "char_length",
    "reverse",
    "repeat",
    "strpos",
    "starts_with",
    "ends_with",
    "coalesce",
    "nullif",
    "get_field",
    "pi",
    "sinh",
    "cosh",
    "tanh",
    // Called by what is written GREATEST and LEAST, behind a look at NULL.
    "greatest",
    "least",
];

const AGGREGATE: &[&str] = &["count", "min", "max", "grouping"];

static KNOWN: LazyLock<Functions> = LazyLock::new(Functions::new);

/// A function of the dialect, by its name.
pub(crate) fn known(name: &str) -> Option<Arc<ScalarUDF>> {
    KNOWN.scalar.get(name).cloned()
}

/// An aggregate function of the dialect, by its name.
pub(crate) fn aggregate_of(name: &str) -> Option<Arc<AggregateUDF>> {
    KNOWN.aggregate.get(name).cloned()
}

/// The functions of a session.
#[derive(Debug, Clone)]
pub(crate) struct Functions {
    pub(crate) scalar: BTreeMap<String, Arc<ScalarUDF>>,
    pub(crate) aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    pub(crate) window: BTreeMap<String, Arc<WindowUDF>>,
    /// Of a row to rows, in LATERAL TABLE.
    pub(crate) tables: BTreeMap<String, TableFunction>,
    pub(super) expr_planners: Vec<Arc<dyn ExprPlanner>>,
    pub(super) relation_planners: Vec<Arc<dyn RelationPlanner>>,
    /// The zone of the session; none = UTC.
    pub(super) zone: Option<Zone>,
}

impl Functions {
    /// The names of all of them, each once.
    pub(crate) fn names(&self) -> Vec<&str> {
        let all = self.scalar.keys().chain(self.aggregate.keys()).chain(self.window.keys()).chain(self.tables.keys());
        all.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(crate) fn new() -> Self {
        let mut scalar = BTreeMap::new();
        for function in datafusion_functions::all_default_functions() {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            for name in names.filter(|n| SCALAR.contains(n)) {
                scalar.insert(name.to_string(), function.clone());
            }
        }
        for own in [ScalarUDF::from(Mod::new()), printf::function(), percentile::function(), typeof_::function()] {
            scalar.insert(own.name().to_string(), Arc::new(own));
        }
        let own = [
            text::functions(),
            casts::functions(),
            strings::functions(),
            time::functions(),
            instants::functions(),
            chance::functions(),
            regexp::functions(),
            similar::functions().into(),
            json::functions(),
            lists::of_texts(),
            time::of_the_clock().collect(),
        ];
        for own in own.into_iter().flatten() {
            scalar.insert(own.name().to_string(), Arc::new(ScalarUDF::from(own)));
        }
        let own = [numbers::functions(), decimals::functions(), arrays::functions(), lists::functions(), casts::of_any_type()];
        let nested = [maps::functions(), rows::functions(), json::writers()];
        for own in own.into_iter().chain(nested).flatten() {
            scalar.insert(own.name().to_string(), Arc::new(own));
        }
        let mut aggregate: BTreeMap<String, Arc<AggregateUDF>> = datafusion_functions_aggregate::all_default_aggregate_functions()
            .into_iter()
            .filter(|f| AGGREGATE.contains(&f.name()))
            .map(|f| (f.name().to_string(), f))
            .collect();
        aggregate.insert("avg".into(), Arc::new(AggregateUDF::from(Avg::new())));
        aggregate.extend(aggregates::functions());
        // The planner makes arithmetic of it before anything is run.
        if let Some(grouping) = aggregate.get("grouping").cloned() {
            aggregate.insert("grouping_id".into(), grouping);
        }
        let item = arrays::item();
        Functions {
            scalar,
            aggregate,
            window: over::functions().map(|f| (f.name().to_string(), Arc::new(f))).collect(),
            tables: BTreeMap::new(),
            expr_planners: vec![
                // Before that of DataFusion, which gives fields other names.
                Arc::new(FieldPlanner { item: Arc::new(item) }),
                Arc::new(DecimalPlanner::new()),
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
                Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
            ],
            relation_planners: vec![Arc::new(TablePlanner::default())],
            zone: None,
        }
    }

    /// Queries that are planned from now on are in this zone; none = UTC.
    pub(crate) fn set_zone(&mut self, zone: Option<Zone>) {
        self.zone = zone;
        self.plan_tables();
    }

    /// Adds a function of the user's, in place of any other of its name; names do not depend on case.
    pub(crate) fn register(&mut self, function: Function) {
        let name = function.name().to_lowercase();
        self.scalar.remove(&name);
        self.aggregate.remove(&name);
        self.tables.remove(&name);
        match function.0 {
            Kind::Scalar(function) => drop(self.scalar.insert(name, Arc::new(ScalarUDF::from(function)))),
            Kind::Aggregate(function) => drop(self.aggregate.insert(name, Arc::new(aggregates::of_user(function)))),
            Kind::Table(function) => drop(self.tables.insert(name, function)),
        }
        self.plan_tables();
    }

    /// Tables are planned by what is known now.
    fn plan_tables(&mut self) {
        self.relation_planners = vec![Arc::new(TablePlanner { functions: self.tables.clone(), zone: self.zone })];
    }
}

/// The digits of a whole number or a decimal: all, and those behind the point.
fn digits(kind: &DataType) -> Option<(u8, i8)> {
    Some(match kind {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => return None,
    })
}

/// `MOD(a, b)`: `a % b`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mod(Signature);

impl Mod {
    fn new() -> Self {
        Mod(Signature::user_defined(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Mod {
    fn name(&self) -> &str {
        "mod"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let [a, b] = kinds else { return plan_err!("MOD takes two numbers") };
        let whole = |k: &DataType| k.is_integer() || k.is_null();
        let number = |k: &DataType| whole(k) || k.is_floating() || matches!(k, DataType::Decimal128(_, _));
        if !(number(a) && number(b)) {
            return plan_err!("MOD takes two numbers, not {a} and {b}");
        }
        if let Some(decimals) = decimals::operands(kinds) {
            return Ok(decimals);
        }
        let common = if whole(a) && whole(b) { DataType::Int64 } else { DataType::Float64 };
        if a == b { Ok(vec![a.clone(), b.clone()]) } else { Ok(vec![common.clone(), common]) }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let of_decimals = decimals::result(Operation::Modulo, kinds);
        Ok(of_decimals.or_else(|| kinds.first().cloned()).unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if matches!(args.return_type(), DataType::Decimal128(_, _)) {
            return decimals::compute(Operation::Modulo, &args);
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b] = &arrays[..] else { return exec_err!("MOD takes two numbers") };
        Ok(ColumnarValue::Array(rem(a, b)?))
    }
}

/// AVG with Flink's types: of integers BIGINT, cut off; of DECIMAL(p, s) DECIMAL(38, max(s, 6)), rounded; of floats DOUBLE.
///
/// Its accumulator is for whole tables at once: what the streaming kernels are compared with.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Avg(Signature);

impl Avg {
    fn new() -> Self {
        Avg(Signature::user_defined(Volatility::Immutable))
    }
}

impl AggregateUDFImpl for Avg {
    fn name(&self) -> &str {
        "avg"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [k] if k.is_integer() || k.is_null() => Ok(vec![DataType::Int64]),
            [k] if k.is_floating() => Ok(vec![DataType::Float64]),
            [k @ DataType::Decimal128(_, _)] => Ok(vec![k.clone()]),
            [k] => plan_err!("AVG takes a number, not {}", crate::parser::type_name(k)),
            _ => plan_err!("AVG takes one number"),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds.first() {
            Some(DataType::Decimal128(_, scale)) => DataType::Decimal128(38, (*scale).max(6)),
            Some(kind) if kind.is_floating() => DataType::Float64,
            _ => DataType::Int64,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("AVG(DISTINCT) is not there for whole tables");
        }
        let input = args.expr_fields[0].data_type().clone();
        Ok(Box::new(Mean { input, output: args.return_field.data_type().clone(), sum: 0, float: 0.0, count: 0 }))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<arrow::datatypes::FieldRef>> {
        let field = |name, kind| Arc::new(arrow::datatypes::Field::new(name, kind, true));
        Ok(vec![field("sum", DataType::Decimal128(38, 0)), field("float", DataType::Float64), field("count", DataType::Int64)])
    }
}

#[derive(Debug)]
struct Mean {
    input: DataType,
    output: DataType,
    sum: i128,
    float: f64,
    count: i64,
}

impl Accumulator for Mean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = &values[0];
        self.count += (values.len() - values.null_count()) as i64;
        match &self.input {
            DataType::Decimal128(_, _) => self.sum += values.as_primitive::<Decimal128Type>().iter().flatten().sum::<i128>(),
            DataType::Float64 => self.float += values.as_primitive::<Float64Type>().iter().flatten().sum::<f64>(),
            _ => self.sum += cast(values, &DataType::Int64)?.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum::<i128>(),
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let some = self.count != 0;
        Ok(match (&self.input, &self.output) {
            (DataType::Decimal128(_, from), DataType::Decimal128(precision, to)) => {
                ScalarValue::Decimal128(some.then(|| mean(self.sum, self.count, *from, *to)).flatten(), *precision, *to)
            }
            (DataType::Float64, _) => ScalarValue::Float64(some.then(|| self.float / self.count as f64)),
            _ => ScalarValue::Int64(some.then(|| (self.sum / i128::from(self.count)) as i64)),
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Decimal128(Some(self.sum), 38, 0),
            ScalarValue::Float64(Some(self.float)),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sum += states[0].as_primitive::<Decimal128Type>().iter().flatten().sum::<i128>();
        self.float += states[1].as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        self.count += states[2].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
}
