//! Conditions over the arguments of a call: a part of CEL, the Common Expression Language.
//!
//! ```text
//! arguments.amount <= 100 && arguments.currency in ["EUR", "USD"]
//! !has(arguments.force) || arguments.force == false
//! arguments.path.startsWith("/data/") && !arguments.path.contains("..")
//! arguments.items.all(item, item.price < 100.0)
//! ```
//!
//! The part: literals, lists, `arguments`, fields, indexes, `? :`, `||`, `&&`, comparisons, `in`, arithmetic, `!`, `-`; `has`,
//! `size`, `startsWith`, `endsWith`, `contains`, `matches` (with a literal pattern), `all`, `exists`, `exists_one`. Whatever else
//! is refused when the document is read, so that nobody relies on a rule that is none.
//!
//! Evaluation is ours and not a library's because it stands in the way of every call, before strangers' data: it borrows the
//! arguments, takes a bounded number of steps, and refuses to guess. What could be read in two ways has no value: keys that are
//! there twice, or in another case than asked for (some servers take that for the same).

mod eval;
mod json;
mod parse;

pub(crate) use json::ArgumentsOnce;

/// Longest condition, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 2_048;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most steps of one evaluation: an operator or a letter compared counts as one, or a part of one.
const STEPS_MAX: u32 = 100_000;

/// A condition, ready to be asked.
#[derive(Debug)]
pub(crate) struct Condition(Expr);

/// What a condition says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Holds,
    DoesNotHold,
    /// It has no value: a field is missing, types do not fit, the arguments are unclear, or it took too many steps.
    Unclear,
}

#[derive(Debug)]
enum Expr {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    List(Box<[Expr]>),
    Arguments,
    /// A variable of `all` or its like, by its place counted from the innermost.
    Variable(usize),
    Field(Box<Expr>, Box<str>),
    Has(Box<Expr>, Box<str>),
    Index(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Choose(Box<[Expr; 3]>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Box<Expr>),
    Calculate(Arithmetic, Box<Expr>, Box<Expr>),
    Size(Box<Expr>),
    TextTest(TextTest, Box<Expr>, Box<Expr>),
    Matches(Box<Expr>, Box<regex::Regex>),
    Each(Quantifier, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

impl Condition {
    /// Asks the condition about a call's arguments.
    pub(crate) fn ask(&self, arguments: &ArgumentsOnce<'_>) -> Answer {
        match arguments.parsed().map(|arguments| eval::holds(&self.0, arguments)) {
            Some(Some(true)) => Answer::Holds,
            Some(Some(false)) => Answer::DoesNotHold,
            Some(None) | None => Answer::Unclear,
        }
    }
}

#[cfg(test)]
mod tests;
