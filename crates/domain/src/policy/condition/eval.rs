//! Evaluation: no value for whatever is missing, does not fit or takes too long.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::{Arithmetic, Comparison, Expr, Quantifier, STEPS_MAX, TextTest};

/// Whether a condition is true of these arguments; `None` when it has no value.
pub(super) fn holds(condition: &Expr, arguments: &Map<String, Value>) -> Option<bool> {
    let mut run = Run {
        arguments,
        variables: Vec::new(),
        steps_left: STEPS_MAX,
    };
    run.flag(condition)
}

#[derive(Debug, Clone)]
enum Val<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'a, str>),
    Items(Vec<Self>),
    Json(&'a [Value]),
    Map(&'a Map<String, Value>),
}

struct Run<'a> {
    arguments: &'a Map<String, Value>,
    variables: Vec<Val<'a>>,
    steps_left: u32,
}

impl<'a> Run<'a> {
    fn step(&mut self, steps: usize) -> Option<()> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps_left.checked_sub(steps));
        // Who ran out of steps once has none left for another branch.
        self.steps_left = left.unwrap_or(0);
        left.map(|_| ())
    }

    fn flag(&mut self, expr: &'a Expr) -> Option<bool> {
        match self.value(expr)? {
            Val::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    fn text(&mut self, expr: &'a Expr) -> Option<Cow<'a, str>> {
        match self.value(expr)? {
            Val::Text(text) => {
                // Letters are compared sixteen at a time or so.
                self.step(text.len() / 16)?;
                Some(text)
            }
            _ => None,
        }
    }

    /// Whether one of two flags is `wanted`.
    fn either(&mut self, one: &'a Expr, other: &'a Expr, wanted: bool) -> Option<bool> {
        let one = self.flag(one);
        if one == Some(wanted) {
            return Some(true);
        }
        match (one, self.flag(other)) {
            (_, Some(flag)) if flag == wanted => Some(true),
            (Some(_), Some(_)) => Some(false),
            _ => None,
        }
    }

    fn value(&mut self, expr: &'a Expr) -> Option<Val<'a>> {
        self.step(1)?;
        Some(match expr {
            Expr::Null => Val::Null,
            Expr::Bool(flag) => Val::Bool(*flag),
            Expr::Int(number) => Val::Int(*number),
            Expr::Float(number) => Val::Float(*number),
            Expr::Text(text) => Val::Text(Cow::Borrowed(text)),
            Expr::List(items) => Val::Items(items.iter().map(|item| self.value(item)).collect::<Option<_>>()?),
            Expr::Arguments => Val::Map(self.arguments),
            Expr::Variable(depth) => self.variables.iter().rev().nth(*depth)?.clone(),
            Expr::Field(object, name) => Val::of(self.fields(object, name)?.get(&**name)?),
            Expr::Has(object, name) => Val::Bool(self.fields(object, name)?.contains_key(&**name)),
            Expr::Index(list, at) => self.index(list, at)?,
            Expr::Not(flag) => Val::Bool(!self.flag(flag)?),
            Expr::Negate(number) => match self.value(number)? {
                Val::Int(number) => Val::Int(number.checked_neg()?),
                Val::Float(number) => Val::Float(-number),
                _ => return None,
            },
            // As CEL has it: one side that decides makes up for another without a value.
            Expr::And(one, other) => Val::Bool(!self.either(one, other, false)?),
            Expr::Or(one, other) => Val::Bool(self.either(one, other, true)?),
            Expr::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                let taken = if self.flag(condition)? { yes } else { no };
                self.value(taken)?
            }
            Expr::Compare(comparison, one, other) => self.compare(*comparison, one, other)?,
            Expr::In(item, list) => self.is_in(item, list)?,
            Expr::Calculate(arithmetic, one, other) => {
                let (one, other) = (self.value(one)?, self.value(other)?);
                self.calculate(*arithmetic, &one, &other)?
            }
            Expr::Size(of) => {
                let size = match self.value(of)? {
                    Val::Text(text) => {
                        self.step(text.len() / 16)?;
                        text.chars().count()
                    }
                    Val::Items(items) => items.len(),
                    Val::Json(items) => items.len(),
                    Val::Map(map) => map.len(),
                    _ => return None,
                };
                Val::Int(i128::try_from(size).ok()?)
            }
            Expr::TextTest(test, whole, part) => {
                let (whole, part) = (self.text(whole)?, self.text(part)?);
                Val::Bool(match test {
                    TextTest::StartsWith => whole.starts_with(&*part),
                    TextTest::EndsWith => whole.ends_with(&*part),
                    TextTest::Contains => whole.contains(&*part),
                })
            }
            Expr::Matches(text, pattern) => Val::Bool(pattern.is_match(&self.text(text)?)),
            Expr::Each(quantifier, list, body) => self.each(*quantifier, list, body)?,
        })
    }

    /// The fields of an object, where a name can be looked up: no value where the name comes in another case, too or instead.
    fn fields(&mut self, object: &'a Expr, name: &str) -> Option<&'a Map<String, Value>> {
        match self.value(object)? {
            Val::Map(map) => self.unambiguous(map, name),
            _ => None,
        }
    }

    fn unambiguous(&mut self, map: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
        self.step(map.len() / 4)?;
        let is_alike = |key: &String| key != name && key.eq_ignore_ascii_case(name);
        (!map.keys().any(is_alike)).then_some(map)
    }

    fn index(&mut self, list: &'a Expr, at: &'a Expr) -> Option<Val<'a>> {
        match (self.value(list)?, self.value(at)?) {
            (Val::Json(items), Val::Int(at)) => items.get(usize::try_from(at).ok()?).map(Val::of),
            (Val::Items(items), Val::Int(at)) => items.get(usize::try_from(at).ok()?).cloned(),
            (Val::Map(map), Val::Text(key)) => self.unambiguous(map, &key)?.get(&*key).map(Val::of),
            _ => None,
        }
    }

    fn compare(&mut self, comparison: Comparison, one: &'a Expr, other: &'a Expr) -> Option<Val<'a>> {
        let (one, other) = (self.value(one)?, self.value(other)?);
        let order = |wanted: fn(Ordering) -> bool| -> Option<bool> { one.order(&other).map(wanted) };
        self.step(one.weight() / 16)?;
        Some(Val::Bool(match comparison {
            Comparison::Equal => one.is_equal(&other, self)?,
            Comparison::Unequal => !one.is_equal(&other, self)?,
            Comparison::Less => order(Ordering::is_lt)?,
            Comparison::LessOrEqual => order(Ordering::is_le)?,
            Comparison::Greater => order(Ordering::is_gt)?,
            Comparison::GreaterOrEqual => order(Ordering::is_ge)?,
        }))
    }

    fn is_in(&mut self, item: &'a Expr, list: &'a Expr) -> Option<Val<'a>> {
        let item = self.value(item)?;
        let found = match self.value(list)? {
            Val::Items(items) => self.any_equal(&item, items.into_iter())?,
            Val::Json(items) => self.any_equal(&item, items.iter().map(Val::of))?,
            Val::Map(map) => {
                let Val::Text(key) = item else { return None };
                self.unambiguous(map, &key)?.contains_key(&*key)
            }
            _ => return None,
        };
        Some(Val::Bool(found))
    }

    fn any_equal(&mut self, item: &Val<'a>, mut items: impl Iterator<Item = Val<'a>>) -> Option<bool> {
        items.try_fold(false, |found, other| Some(found || item.is_equal(&other, self)?))
    }

    fn calculate(&mut self, arithmetic: Arithmetic, one: &Val<'a>, other: &Val<'a>) -> Option<Val<'a>> {
        if let (Arithmetic::Add, Val::Text(one), Val::Text(other)) = (arithmetic, one, other) {
            self.step(one.len() + other.len())?;
            return Some(Val::Text(Cow::Owned(format!("{one}{other}"))));
        }
        if let (Val::Int(one), Val::Int(other)) = (one, other) {
            let result = match arithmetic {
                Arithmetic::Add => one.checked_add(*other),
                Arithmetic::Subtract => one.checked_sub(*other),
                Arithmetic::Multiply => one.checked_mul(*other),
                Arithmetic::Divide => one.checked_div(*other),
                Arithmetic::Remainder => one.checked_rem(*other),
            };
            return result.map(Val::Int);
        }
        let (one, other) = (one.float()?, other.float()?);
        let result = match arithmetic {
            Arithmetic::Add => one + other,
            Arithmetic::Subtract => one - other,
            Arithmetic::Multiply => one * other,
            Arithmetic::Divide => one / other,
            Arithmetic::Remainder => return None,
        };
        result.is_finite().then_some(Val::Float(result))
    }

    fn each(&mut self, quantifier: Quantifier, list: &'a Expr, body: &'a Expr) -> Option<Val<'a>> {
        let items: Vec<Val<'a>> = match self.value(list)? {
            Val::Items(items) => items,
            Val::Json(items) => {
                self.step(items.len())?;
                items.iter().map(Val::of).collect()
            }
            Val::Map(map) => {
                self.step(map.len())?;
                map.keys().map(|key| Val::Text(Cow::Borrowed(key))).collect()
            }
            _ => return None,
        };
        let total = items.len();
        let mut met = 0;
        for item in items {
            self.variables.push(item);
            let flag = self.flag(body);
            self.variables.pop();
            // Stricter than CEL: an item without a value leaves the whole without one.
            met += usize::from(flag?);
        }
        Some(Val::Bool(match quantifier {
            Quantifier::All => met == total,
            Quantifier::Exists => met > 0,
            Quantifier::ExistsOne => met == 1,
        }))
    }
}

impl<'a> Val<'a> {
    fn of(json: &'a Value) -> Self {
        match json {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::Json(items),
            Value::Object(map) => Self::Map(map),
        }
    }

    fn of_number(number: &Number) -> Self {
        number
            .as_i128()
            .map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "as CEL converts; comparisons of whole numbers do not pass here"
    )]
    fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    fn weight(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            _ => self.float()?.partial_cmp(&other.float()?),
        }
    }

    const fn count(&self) -> usize {
        match self {
            Self::Items(items) => items.len(),
            Self::Json(items) => items.len(),
            _ => 0,
        }
    }

    fn items(&self) -> Vec<Self> {
        match self {
            Self::Items(items) => items.clone(),
            Self::Json(items) => items.iter().map(Val::of).collect(),
            _ => Vec::new(),
        }
    }

    /// Values of different types are unequal, numbers apart.
    fn is_equal(&self, other: &Self, run: &mut Run<'a>) -> Option<bool> {
        run.step(1 + self.weight() / 16)?;
        Some(match (self, other) {
            (Self::Null, Self::Null) => true,
            // A condition has no need for it, and its cost would be the sender's choice.
            (Self::Map(_), Self::Map(_)) => return None,
            (Self::Items(_) | Self::Json(_), Self::Items(_) | Self::Json(_)) => {
                if self.count() != other.count() {
                    return Some(false);
                }
                run.step(self.count())?;
                let mut pairs = self.items().into_iter().zip(other.items());
                pairs.try_fold(true, |same, (one, other)| Some(same && one.is_equal(&other, run)?))?
            }
            _ => self.order(other) == Some(Ordering::Equal),
        })
    }
}
