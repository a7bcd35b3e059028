//! A scalar function that is not DataFusion's: the dialect's own, or a user's.
//!
//! Invariant: a function is known by its name; arguments arrive as columns of exactly the types that it declares.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use waterwheel_engine::operators::guarded_call;

/// From the columns of the arguments to the column of the results, one value a row.
type Compute = Arc<dyn Fn(&[ArrayRef]) -> std::result::Result<ArrayRef, String> + Send + Sync>;

/// Says what is wrong with the arguments that are constants.
type Check = fn(&[Option<&ScalarValue>]) -> std::result::Result<(), String>;

/// A function of rows: arguments to one value.
///
/// ```
/// use arrow::array::{ArrayRef, AsArray, Int64Array};
/// use arrow::datatypes::DataType;
/// use std::sync::Arc;
/// use waterwheel_sql::{NoConnectors, ScalarFunction, Session};
/// let twice = ScalarFunction::new("twice", vec![DataType::Utf8], DataType::Utf8, |args: &[ArrayRef]| {
///     let texts = args[0].as_string::<i32>();
///     Ok(Arc::new(texts.iter().map(|t| t.map(|t| t.repeat(2))).collect::<arrow::array::StringArray>()))
/// });
/// Session::new(Arc::new(NoConnectors)).register(twice);
/// ```
#[derive(Clone)]
pub struct ScalarFunction {
    name: String,
    /// Ways to call it, by number of arguments.
    calls: Vec<Vec<DataType>>,
    /// The last argument may be repeated.
    variadic: bool,
    result: DataType,
    /// The result is a time as this argument is one: local or not.
    like: Option<usize>,
    check: Option<Check>,
    compute: Compute,
    signature: Signature,
}

impl ScalarFunction {
    /// A function that depends on its arguments alone: the same arguments, the same result. It gets one column an argument,
    /// all of one length, and answers with a column of that length; an error is that of the row it is found for, and so is a
    /// panic.
    pub fn new(
        name: &str,
        arguments: Vec<DataType>,
        result: DataType,
        compute: impl Fn(&[ArrayRef]) -> std::result::Result<ArrayRef, String> + Send + Sync + 'static,
    ) -> Self {
        ScalarFunction {
            name: name.to_lowercase(),
            calls: vec![arguments],
            variadic: false,
            result,
            like: None,
            check: None,
            compute: Arc::new(compute),
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    /// It may be called with these arguments too, of which there is another number.
    #[must_use]
    pub(super) fn or(mut self, arguments: Vec<DataType>) -> Self {
        self.calls.push(arguments);
        self
    }

    /// Its last argument may be repeated.
    #[must_use]
    pub(super) fn repeated(mut self) -> Self {
        self.variadic = true;
        self
    }

    /// Constants are looked at when the query is planned.
    #[must_use]
    pub(super) fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Its result is a time of the same kind, local or not, as this argument.
    #[must_use]
    pub(super) fn like(mut self, argument: usize) -> Self {
        self.like = Some(argument);
        self
    }

    fn result_for(&self, kinds: &[DataType]) -> DataType {
        match self.like.and_then(|i| kinds.get(i)) {
            Some(kind @ DataType::Timestamp(_, _)) => kind.clone(),
            _ => self.result.clone(),
        }
    }

    /// It has another result each time: nobody computes it before the rows come.
    #[must_use]
    pub(super) fn volatile(mut self) -> Self {
        let takes_none = self.calls.iter().all(Vec::is_empty);
        self.signature = if takes_none { Signature::nullary(Volatility::Volatile) } else { Signature::user_defined(Volatility::Volatile) };
        self
    }

    fn usage(&self) -> String {
        let name = self.name.to_uppercase();
        let call = |kinds: &Vec<DataType>| {
            let kinds = kinds.iter().map(crate::parser::type_name).collect::<Vec<_>>().join(", ");
            format!("{name}({kinds}{})", if self.variadic { ", ..." } else { "" })
        };
        self.calls.iter().map(call).collect::<Vec<_>>().join(" or ")
    }
}

impl std::fmt::Debug for ScalarFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.usage())
    }
}

impl PartialEq for ScalarFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.calls == other.calls && self.result == other.result
    }
}

impl Eq for ScalarFunction {}

impl Hash for ScalarFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Whether a value of one type becomes one of the other without loss.
pub(super) fn becomes(from: &DataType, to: &DataType) -> bool {
    let text = |k: &DataType| matches!(k, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let stamp = |k: &DataType| matches!(k, DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _));
    from == to
        || from.is_null()
        || (text(from) && text(to))
        || (stamp(from) && stamp(to))
        || (*from == DataType::Date32 && stamp(to))
        || (from.is_integer() && *to == DataType::Int64)
        || ((from.is_integer() || from.is_floating() || matches!(from, DataType::Decimal128(_, _))) && *to == DataType::Float64)
}

impl ScalarUDFImpl for ScalarFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let mut ways = self.calls.iter().filter_map(|call| {
            let mut wanted = call.clone();
            while self.variadic && wanted.len() < kinds.len() {
                wanted.extend(call.last().cloned());
            }
            if let Some(i) = self.like
                && let (Some(DataType::Timestamp(_, zone @ Some(_))), Some(DataType::Timestamp(_, wanted))) =
                    (kinds.get(i), wanted.get_mut(i))
            {
                wanted.clone_from(zone);
            }
            (wanted.len() == kinds.len() && kinds.iter().zip(&wanted).all(|(from, to)| becomes(from, to))).then_some(wanted)
        });
        match ways.next() {
            Some(wanted) => Ok(wanted),
            None => {
                let given = kinds.iter().map(crate::parser::type_name).collect::<Vec<_>>().join(", ");
                plan_err!("{}({given}) is called otherwise: {}", self.name.to_uppercase(), self.usage())
            }
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(self.result_for(kinds))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(Err(why)) = self.check.map(|check| check(args.scalar_arguments)) {
            return plan_err!("{}: {why}", self.name.to_uppercase());
        }
        let kinds: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(&self.name, self.result_for(&kinds), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let column = match guarded_call(|| (self.compute)(&arrays)).and_then(|computed| computed) {
            // Without arguments one result is that of every row.
            Ok(column) if arrays.is_empty() && column.len() == 1 && column.data_type() == args.return_field.data_type() => {
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&column, 0)?));
            }
            Ok(column) if column.data_type() != args.return_field.data_type() && self.like.is_some() => {
                arrow::compute::cast(&column, args.return_field.data_type())?
            }
            Ok(column) => column,
            Err(why) => return exec_err!("{}: {why}", self.name.to_uppercase()),
        };
        if column.len() != rows || column.data_type() != args.return_field.data_type() {
            return exec_err!("{} answers {} values of {} for {rows} rows", self.name, column.len(), column.data_type());
        }
        Ok(ColumnarValue::Array(column))
    }
}
