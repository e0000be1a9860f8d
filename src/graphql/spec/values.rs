//! Values and their types: which literals and variables a type accepts, and what they become (October 2021, 3.5 to
//! 3.12, 5.6, 5.8.5 and 6.1.2; June 2018 says the same).

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{BaseType, Type, VariableDefinition};
use async_graphql::{Name, Positioned, Value, Variables};
use async_graphql_value::Value as Literal;

use crate::base::reference::shown;
use crate::graphql::kit::scalar;
use crate::graphql::spec::types::{Given, Input, Types, named};

/// The most memory in bytes that variables may take in an operation's arguments: each use of a variable is a copy.
const MOST_USED: usize = 8 << 20;
/// The memory that a value takes besides its text.
const VALUE: usize = size_of::<Value>();

/// The values of variables. A variable without a value and without a default is not in it.
#[derive(Default)]
pub(crate) struct Values {
    given: HashMap<Name, Value>,
    /// The memory taken by copies so far.
    used: Cell<usize>,
}

impl Values {
    /// Returns a copy of a variable's value for one use.
    fn take(&self, name: &Name) -> Result<Option<Value>, Refused> {
        let Some(value) = self.given.get(name) else { return Ok(None) };
        self.used.set(self.used.get().saturating_add(memory(value)));
        if self.used.get() > MOST_USED {
            return Err(format!(
                "the variables used so far come to more than {} MiB; use large ones less often",
                MOST_USED >> 20
            ));
        }
        Ok(Some(value.clone()))
    }
}

/// Returns about how much memory a value takes.
fn memory(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::List(values) => values.iter().map(memory).sum(),
        Value::Object(fields) => fields.values().map(|field| VALUE + memory(field)).sum(),
        _ => 0,
    };
    VALUE + within
}

/// The reason why a value is refused.
type Refused = String;

/// The variables that an operation declares.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'d> {
    /// Their definitions.
    pub(crate) definitions: &'d [Positioned<VariableDefinition>],
    /// Their values; `None` when only the document is checked.
    pub(crate) values: Option<&'d Values>,
}

impl Types {
    /// Checks the types of variables and their defaults.
    ///
    /// # Errors
    /// The reason, for an unknown type or one that is no input type, and for a default that does not fit its type.
    pub(crate) fn check_definitions(
        &self,
        definitions: &[Positioned<VariableDefinition>],
    ) -> Result<(), Refused> {
        for VariableDefinition { name, var_type, directives, default_value } in
            definitions.iter().map(|definition| &definition.node)
        {
            let name = &name.node;
            let of = named(&var_type.node);
            if self.given(of).is_none() {
                return Err(if self.is_object(of) {
                    format!("Variable \"${name}\" can't be of the output type \"{of}\"")
                } else {
                    format!("Variable \"${name}\" is of the unknown type \"{}\"", shown(of))
                });
            }
            if let Some(directive) = directives.first() {
                return Err(not_here(&directive.node.name.node));
            }
            if let Some(default) = default_value {
                let nothing = Scope { definitions: &[], values: None };
                let literal = default.node.clone().into_value();
                self.literal(&literal, &var_type.node, false, nothing)
                    .map_err(|why| format!("The default of variable \"${name}\" can't be taken: {why}"))?;
            }
        }
        Ok(())
    }

    /// Returns the values of variables: the given value, else the default (6.1.2). Values for undeclared variables
    /// are ignored, because the official clients send too many.
    ///
    /// # Errors
    /// The reason, for a missing value or one of another type.
    pub(crate) fn coerce(
        &self,
        definitions: &[Positioned<VariableDefinition>],
        given: &Variables,
    ) -> Result<Values, Refused> {
        let mut values = HashMap::new();
        for definition in definitions {
            let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
            let (name, ty) = (&name.node, &var_type.node);
            match (given.get(name), default_value) {
                (None, None) if ty.nullable => {}
                (None, None) => {
                    return Err(format!("Variable \"${name}\" of type \"{ty}\" is required, and not given"));
                }
                (None, Some(default)) => {
                    let nothing = Scope { definitions: &[], values: None };
                    let default = self.literal(&default.node.clone().into_value(), ty, false, nothing)?;
                    values.insert(name.clone(), default.unwrap_or_default());
                }
                (Some(value), _) => {
                    let value = self.value(value, ty).map_err(|why| {
                        format!("Variable \"${name}\" of type \"{ty}\" can't be what is given: {why}")
                    })?;
                    values.insert(name.clone(), value);
                }
            }
        }
        Ok(Values { given: values, used: Cell::default() })
    }

    /// Converts a value that came as JSON to this type.
    fn value(&self, value: &Value, ty: &Type) -> Result<Value, Refused> {
        match (value, &ty.base) {
            (Value::Null, _) if ty.nullable => Ok(Value::Null),
            (Value::Null, _) => Err(format!("null is no \"{ty}\"")),
            (Value::List(items), BaseType::List(inner)) => {
                items.iter().map(|item| self.value(item, inner)).collect::<Result<_, _>>().map(Value::List)
            }
            (single, BaseType::List(inner)) => Ok(Value::List(vec![self.value(single, inner)?])),
            (value, BaseType::Named(name)) => match (self.given(name), value) {
                (Some(Given::Scalar(name)), value) => of_scalar(name, value.clone()),
                (Some(Given::Enum(values)), Value::String(text)) if values.contains(text.as_str()) => {
                    Ok(Value::Enum(Name::new(text)))
                }
                (Some(Given::Object(fields)), Value::Object(given)) => {
                    check_fields(name, fields, given.keys())?;
                    let field = |(key, value): (&Name, &Value)| {
                        let field = fields.get(key).ok_or_else(|| unknown(name, key))?;
                        let value = self.value(value, &field.ty).map_err(|why| format!("{key}: {why}"))?;
                        Ok((key.clone(), value))
                    };
                    given.iter().map(field).collect::<Result<_, Refused>>().map(Value::Object)
                }
                _ => Err(misfit(&value.clone().into_value(), name)),
            },
        }
    }

    /// Converts a literal of a document to this type, with its variables replaced. Returns `None` for a variable
    /// without a value.
    ///
    /// # Errors
    /// The reason, for a literal of another type.
    pub(crate) fn literal(
        &self,
        literal: &Literal,
        ty: &Type,
        has_default: bool,
        scope: Scope<'_>,
    ) -> Result<Option<Value>, Refused> {
        match (literal, &ty.base) {
            (Literal::Variable(name), _) => of_variable(name, ty, has_default, scope),
            (Literal::Null, _) if ty.nullable => Ok(Some(Value::Null)),
            (Literal::Null, _) => Err(format!("null is no \"{ty}\"")),
            (Literal::List(items), BaseType::List(inner)) => {
                let item = |item| Ok(self.literal(item, inner, false, scope)?.unwrap_or_default());
                items.iter().map(item).collect::<Result<_, _>>().map(Value::List).map(Some)
            }
            (single, BaseType::List(inner)) => {
                let item = self.literal(single, inner, false, scope)?;
                Ok(Some(Value::List(vec![item.unwrap_or_default()])))
            }
            (literal, BaseType::Named(name)) => match (self.given(name), literal) {
                (Some(Given::Scalar(name)), literal) => {
                    let value =
                        literal.clone().into_const_with(|variable| inner_of_scalar(&variable, scope))?;
                    of_scalar(name, value).map(Some)
                }
                (Some(Given::Enum(values)), Literal::Enum(value)) if values.contains(value) => {
                    Ok(Some(Value::Enum(value.clone())))
                }
                (Some(Given::Object(fields)), Literal::Object(given)) => {
                    self.object(name, fields, given, scope).map(Some)
                }
                _ => Err(misfit(literal, name)),
            },
        }
    }

    fn object(
        &self,
        name: &Name,
        fields: &HashMap<Name, Input>,
        given: &IndexMap<Name, Literal>,
        scope: Scope<'_>,
    ) -> Result<Value, Refused> {
        check_fields(name, fields, given.keys())?;
        let mut object = IndexMap::new();
        for (key, literal) in given {
            let field = fields.get(key).ok_or_else(|| unknown(name, key))?;
            let value = self
                .literal(literal, &field.ty, field.default.is_some(), scope)
                .map_err(|why| format!("{key}: {why}"))?;
            match value {
                Some(value) => {
                    object.insert(key.clone(), value);
                }
                None if field.is_required() => return Err(missing(name, key, &field.ty)),
                None => {}
            }
        }
        Ok(Value::Object(object))
    }
}

/// Returns a variable's value where a value of this type is expected (5.8.5).
fn of_variable(
    name: &Name,
    ty: &Type,
    has_default: bool,
    scope: Scope<'_>,
) -> Result<Option<Value>, Refused> {
    let mut definitions = scope.definitions.iter().map(|definition| &definition.node);
    let Some(definition) = definitions.find(|definition| definition.name.node == *name) else {
        return Err(format!("Variable \"${name}\" is not defined by the operation"));
    };
    let declared = &definition.var_type.node;
    let default = definition.default_value.as_ref().map(|default| &default.node);
    let is_filled = has_default || default.is_some_and(|default| *default != Value::Null);
    let wanted = Type { base: ty.base.clone(), nullable: ty.nullable || is_filled && declared.nullable };
    if !is_subtype(declared, &wanted) {
        return Err(format!("Variable \"${name}\" of type \"{declared}\" is used where \"{ty}\" is wanted"));
    }
    let Some(values) = scope.values else { return Ok(Some(Value::Null)) };
    match values.take(name)? {
        Some(Value::Null) if !ty.nullable => {
            Err(format!("Variable \"${name}\" is null, and is used where \"{ty}\" is wanted"))
        }
        value => Ok(value),
    }
}

/// Returns the value of a variable inside a scalar that is itself an object or a list.
fn inner_of_scalar(name: &Name, scope: Scope<'_>) -> Result<Value, Refused> {
    if !scope.definitions.iter().any(|definition| definition.node.name.node == *name) {
        return Err(format!("Variable \"${name}\" is not defined by the operation"));
    }
    let value = scope.values.map(|values| values.take(name)).transpose()?;
    Ok(value.flatten().unwrap_or_default())
}

fn is_subtype(declared: &Type, wanted: &Type) -> bool {
    let is_of_base = match (&declared.base, &wanted.base) {
        (BaseType::Named(declared), BaseType::Named(wanted)) => declared == wanted,
        (BaseType::List(declared), BaseType::List(wanted)) => is_subtype(declared, wanted),
        _ => false,
    };
    is_of_base && (wanted.nullable || !declared.nullable)
}

fn of_scalar(name: &Name, value: Value) -> Result<Value, Refused> {
    let is_right = match (name.as_str(), &value) {
        ("Int", Value::Number(number)) => integer(number).is_some(),
        ("ID", Value::Number(number)) => number.is_i64() || number.is_u64(),
        ("Float", Value::Number(_))
        | ("String" | "ID", Value::String(_))
        | ("Boolean", Value::Boolean(_)) => true,
        ("Int" | "Float" | "String" | "Boolean" | "ID", _) => false,
        (name, value) => scalar::check(name, value)?,
    };
    match value {
        value if !is_right => Err(misfit(&value.into_value(), name)),
        Value::Number(number) if name == "Int" => Ok(integer(&number).into()),
        Value::Number(number) if name == "ID" => Ok(Value::String(number.to_string())),
        value => Ok(value),
    }
}

/// Returns a number of 32 bits. JSON does not distinguish integers, so `1.0` is one too (3.5.1).
fn integer(number: &async_graphql::Number) -> Option<i32> {
    if let Some(integer) = number.as_i64() {
        return i32::try_from(integer).ok();
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "what is lost is compared in the next line")]
    let integer = float as i32;
    (f64::from(integer).total_cmp(&float).is_eq()).then_some(integer)
}

fn check_fields<'k>(
    name: &Name,
    fields: &HashMap<Name, Input>,
    given: impl Iterator<Item = &'k Name>,
) -> Result<(), Refused> {
    let given: HashSet<_> = given.collect();
    if let Some(key) = given.iter().find(|key| !fields.contains_key(**key)) {
        return Err(unknown(name, key));
    }
    let mut required = fields.iter().filter(|(key, field)| field.is_required() && !given.contains(key));
    required.next().map_or(Ok(()), |(key, field)| Err(missing(name, key, &field.ty)))
}

fn unknown(name: &Name, key: &Name) -> Refused {
    format!("\"{name}\" has no field \"{}\"", shown(key))
}

fn missing(name: &Name, key: &Name, ty: &Type) -> Refused {
    format!("the field \"{key}\" of \"{name}\" is required, of type \"{ty}\", and not given")
}

fn misfit(literal: &Literal, name: &Name) -> Refused {
    format!("{} is no \"{name}\"", shown(&literal.to_string()))
}

/// Returns the reason for refusing a directive at a position where it is not allowed.
pub(crate) fn not_here(directive: &Name) -> Refused {
    match directive.as_str() {
        "skip" | "include" => {
            format!("The directive \"@{directive}\" can't stand here, only at fields and fragments")
        }
        other => format!("The directive \"@{}\" is unknown; there are @skip and @include", shown(other)),
    }
}
