//! Between JSON and the values of a component's own types, so that any hook of any version can be asked by hand. Names
//! are those of the WIT: `read-only-rootfs`.

use serde_json::{Map, Number, Value};
use wasmtime::component::{Type, Val};

/// JSON as a value of `ty`. What is absent is false, 0, empty or none, so that a request holds only what matters.
///
/// # Errors
/// What does not fit, with its place.
pub(crate) fn lower(ty: &Type, json: Option<&Value>, place: &str) -> Result<Val, String> {
    let json = json.filter(|json| !json.is_null());
    let unfit = |wanted: &str| match json {
        Some(json) => format!("{place}: {json} is not {wanted}"),
        None => format!("{place}: is missing"),
    };
    Ok(match ty {
        Type::Bool => match json {
            None => Val::Bool(false),
            Some(json) => Val::Bool(json.as_bool().ok_or_else(|| unfit("true or false"))?),
        },
        Type::U8 => Val::U8(integer(json).ok_or_else(|| unfit("an integer from 0 to 255"))?),
        Type::U16 => Val::U16(integer(json).ok_or_else(|| unfit("an integer from 0 to 65535"))?),
        Type::U32 => Val::U32(integer(json).ok_or_else(|| unfit("an integer of 32 bits without sign"))?),
        Type::U64 => Val::U64(integer(json).ok_or_else(|| unfit("an integer of 64 bits without sign"))?),
        Type::S8 => Val::S8(integer(json).ok_or_else(|| unfit("an integer of 8 bits"))?),
        Type::S16 => Val::S16(integer(json).ok_or_else(|| unfit("an integer of 16 bits"))?),
        Type::S32 => Val::S32(integer(json).ok_or_else(|| unfit("an integer of 32 bits"))?),
        Type::S64 => Val::S64(integer(json).ok_or_else(|| unfit("an integer of 64 bits"))?),
        Type::String => match json {
            None => Val::String(String::new()),
            Some(json) => Val::String(json.as_str().ok_or_else(|| unfit("a string"))?.to_owned()),
        },
        Type::Option(inner) => match json {
            None => Val::Option(None),
            Some(_) => Val::Option(Some(Box::new(lower(&inner.ty(), json, place)?))),
        },
        Type::List(list) => {
            let items = match json {
                None => &[][..],
                Some(json) => json.as_array().ok_or_else(|| unfit("a list"))?,
            };
            let item = |(index, item)| lower(&list.ty(), Some(item), &format!("{place}/{index}"));
            Val::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        Type::Record(record) => {
            let none = Map::new();
            let fields = match json {
                None => &none,
                Some(json) => json.as_object().ok_or_else(|| unfit("an object"))?,
            };
            let field = |field: wasmtime::component::types::Field<'_>| {
                let value = lower(&field.ty, fields.get(field.name), &format!("{place}/{}", field.name))?;
                Ok((field.name.to_owned(), value))
            };
            Val::Record(record.fields().map(field).collect::<Result<_, String>>()?)
        }
        Type::Enum(names) => match json {
            None => Val::Enum(names.names().next().unwrap_or_default().to_owned()),
            Some(json) => {
                let known = names.names().find(|name| json.as_str() == Some(name));
                let all = || names.names().collect::<Vec<_>>().join(", ");
                Val::Enum(known.ok_or_else(|| unfit(&format!("one of {}", all())))?.to_owned())
            }
        },
        other => return Err(format!("{place}: requests hold no {other:?}")),
    })
}

fn integer<T: TryFrom<i128>>(json: Option<&Value>) -> Option<T> {
    let Some(json) = json else { return T::try_from(0).ok() };
    let number = json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from))?;
    T::try_from(number).ok()
}

/// A value as JSON: a case without payload is its name, one with it an object with its name as the only key.
pub(crate) fn lift(value: &Val) -> Value {
    match value {
        Val::Bool(b) => Value::Bool(*b),
        Val::S8(n) => Value::from(*n),
        Val::U8(n) => Value::from(*n),
        Val::S16(n) => Value::from(*n),
        Val::U16(n) => Value::from(*n),
        Val::S32(n) => Value::from(*n),
        Val::U32(n) => Value::from(*n),
        Val::S64(n) => Value::from(*n),
        Val::U64(n) => Value::from(*n),
        Val::Float32(n) => Number::from_f64(f64::from(*n)).map_or(Value::Null, Value::Number),
        Val::Float64(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        Val::Char(c) => Value::String(c.to_string()),
        Val::String(text) | Val::Enum(text) => Value::String(text.clone()),
        Val::List(items) | Val::Tuple(items) | Val::FixedLengthList(items) => {
            Value::Array(items.iter().map(lift).collect())
        }
        Val::Map(pairs) => Value::Array(pairs.iter().map(|(k, v)| Value::Array(vec![lift(k), lift(v)])).collect()),
        Val::Record(fields) => Value::Object(fields.iter().map(|(name, value)| (name.clone(), lift(value))).collect()),
        Val::Variant(name, None) => Value::String(name.clone()),
        Val::Variant(name, Some(payload)) => Value::Object(Map::from_iter([(name.clone(), lift(payload))])),
        Val::Option(inner) => inner.as_deref().map_or(Value::Null, lift),
        Val::Result(Ok(inner)) => named("ok", inner.as_deref()),
        Val::Result(Err(inner)) => named("err", inner.as_deref()),
        Val::Flags(names) => Value::Array(names.iter().cloned().map(Value::String).collect()),
        // No function of the ABI returns one.
        Val::Resource(_) | Val::Future(_) | Val::Stream(_) | Val::ErrorContext(_) => Value::Null,
    }
}

fn named(name: &str, inner: Option<&Val>) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), inner.map_or(Value::Null, lift))]))
}
