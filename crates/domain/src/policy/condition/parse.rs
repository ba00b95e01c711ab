//! Text into expression.

use super::{Arithmetic, Comparison, Condition, DEPTH_MAX, Expr, Quantifier, TEXT_BYTES_MAX, TextTest};

/// Memory of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// Why a text is no condition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at column {column}")]
pub(crate) struct ConditionFault {
    /// What is wrong.
    pub(crate) message: String,
    /// Where, in letters from 1.
    pub(crate) column: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Int(i128),
    Float(f64),
    Text(String),
    Sign(&'static str),
}

/// Longer ones first, so that `<=` is not read as `<`.
const SIGNS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", ".", "?", ":", "{",
    "}", "=",
];

impl Condition {
    /// Reads a condition; the fault says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, ConditionFault> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ConditionFault {
                message: format!("a condition has at most {TEXT_BYTES_MAX} bytes"),
                column: 1,
            });
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
            end: text.chars().count() + 1,
            depth: 0,
            variables: Vec::new(),
        };
        let expr = parser.expression()?;
        if parser.at < tokens.len() {
            return parser.fail("expected the end of the condition");
        }
        Ok(Self(expr))
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ConditionFault> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let column = text.chars().count() - rest.chars().count() + 1;
        let fail = |message: &str| ConditionFault {
            message: message.to_owned(),
            column,
        };
        let Some(letter) = rest.chars().next() else {
            return Ok(tokens);
        };
        let (token, after) = if letter.is_ascii_alphabetic() || letter == '_' {
            let raw = rest.strip_prefix(['r', 'R']).filter(|after| after.starts_with(['"', '\'']));
            if let Some(after) = raw {
                quoted(after, Escapes::Kept).ok_or_else(|| fail("this text does not end"))?
            } else {
                let (name, after) = split(rest, |letter| letter.is_ascii_alphanumeric() || letter == '_');
                (Token::Name(name.to_owned()), after)
            }
        } else if letter.is_ascii_digit() {
            number(rest).ok_or_else(|| fail("expected a number"))?
        } else if matches!(letter, '"' | '\'') {
            quoted(rest, Escapes::Undone).ok_or_else(|| fail("this text does not end, or has an escape that is not known"))?
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| fail("this sign has no meaning here"))?;
            (Token::Sign(sign), rest.strip_prefix(sign).unwrap_or_default())
        };
        tokens.push((token, column));
        rest = after;
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !belongs(letter)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn number(text: &str) -> Option<(Token, &str)> {
    let (whole, after) = split(text, |letter| letter.is_ascii_digit());
    let fraction = after
        .strip_prefix('.')
        .filter(|after| after.starts_with(|letter: char| letter.is_ascii_digit()));
    let Some(fraction) = fraction else {
        let after = after.strip_prefix('u').unwrap_or(after);
        let number: u64 = whole.parse().ok()?;
        return Some((Token::Int(number.into()), after));
    };
    let (fraction, after) = split(fraction, |letter| letter.is_ascii_digit());
    Some((Token::Float(format!("{whole}.{fraction}").parse().ok()?), after))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Kept,
    Undone,
}

/// A text in quotes, with what follows it.
fn quoted(text: &str, escapes: Escapes) -> Option<(Token, &str)> {
    let mut letters = text.chars();
    let quote = letters.next()?;
    let mut content = String::new();
    loop {
        match letters.next()? {
            letter if letter == quote => return Some((Token::Text(content), letters.as_str())),
            '\\' if escapes == Escapes::Undone => content.push(match letters.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'u' => {
                    let (hex, after) = letters.as_str().split_at_checked(4)?;
                    letters = after.chars();
                    char::from_u32(u32::from_str_radix(hex, 16).ok()?)?
                }
                letter @ ('\\' | '"' | '\'' | '`' | '?') => letter,
                _ => return None,
            }),
            letter => content.push(letter),
        }
    }
}

struct Parser<'t> {
    tokens: &'t [(Token, usize)],
    at: usize,
    end: usize,
    depth: usize,
    /// Names in force, innermost last.
    variables: Vec<String>,
}

type Parsed = Result<Expr, ConditionFault>;

impl Parser<'_> {
    fn fail<T>(&self, message: impl Into<String>) -> Result<T, ConditionFault> {
        let column = self.tokens.get(self.at).map_or(self.end, |(_, column)| *column);
        Err(ConditionFault {
            message: message.into(),
            column,
        })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(own)) if *own == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ConditionFault> {
        if self.take(sign) {
            Ok(())
        } else {
            self.fail(format!("expected `{sign}`"))
        }
    }

    fn name(&mut self) -> Result<String, ConditionFault> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.fail("expected a name"),
        }
    }

    /// One level deeper, as far as that is allowed.
    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth == DEPTH_MAX {
            return self.fail(format!("this is nested more than {DEPTH_MAX} levels deep"));
        }
        self.depth += 1;
        let expr = parse(self);
        self.depth -= 1;
        expr
    }

    fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.or()?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let yes = parser.expression()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            Ok(Expr::Choose(Box::new([condition, yes, no])))
        })
    }

    /// `one sign other sign …`, grouped from the left.
    fn chain(&mut self, next: fn(&mut Self) -> Parsed, join: impl Fn(&mut Self) -> Option<Join>) -> Parsed {
        let mut expr = next(self)?;
        let mut links = 0;
        while let Some(join) = join(self) {
            links += 1;
            if links > DEPTH_MAX {
                return self.fail(format!("more than {DEPTH_MAX} links in one chain"));
            }
            let other = next(self)?;
            expr = join(Box::new(expr), Box::new(other));
        }
        Ok(expr)
    }

    fn or(&mut self) -> Parsed {
        self.chain(Self::and, |parser| parser.take("||").then_some(Expr::Or as Join))
    }

    fn and(&mut self) -> Parsed {
        self.chain(Self::relation, |parser| parser.take("&&").then_some(Expr::And as Join))
    }

    fn relation(&mut self) -> Parsed {
        const COMPARISONS: [(&str, Join); 6] = [
            ("==", |one, other| Expr::Compare(Comparison::Equal, one, other)),
            ("!=", |one, other| Expr::Compare(Comparison::Unequal, one, other)),
            ("<=", |one, other| Expr::Compare(Comparison::LessOrEqual, one, other)),
            (">=", |one, other| Expr::Compare(Comparison::GreaterOrEqual, one, other)),
            ("<", |one, other| Expr::Compare(Comparison::Less, one, other)),
            (">", |one, other| Expr::Compare(Comparison::Greater, one, other)),
        ];
        self.chain(Self::sum, |parser| {
            if matches!(parser.peek(), Some(Token::Name(name)) if name == "in") {
                parser.at += 1;
                return Some(Expr::In);
            }
            COMPARISONS
                .into_iter()
                .find_map(|(sign, join)| parser.take(sign).then_some(join))
        })
    }

    fn sum(&mut self) -> Parsed {
        const SUMS: [(&str, Join); 2] = [
            ("+", |one, other| Expr::Calculate(Arithmetic::Add, one, other)),
            ("-", |one, other| Expr::Calculate(Arithmetic::Subtract, one, other)),
        ];
        self.chain(Self::product, |parser| {
            SUMS.into_iter().find_map(|(sign, join)| parser.take(sign).then_some(join))
        })
    }

    fn product(&mut self) -> Parsed {
        const PRODUCTS: [(&str, Join); 3] = [
            ("*", |one, other| Expr::Calculate(Arithmetic::Multiply, one, other)),
            ("/", |one, other| Expr::Calculate(Arithmetic::Divide, one, other)),
            ("%", |one, other| Expr::Calculate(Arithmetic::Remainder, one, other)),
        ];
        self.chain(Self::unary, |parser| {
            PRODUCTS
                .into_iter()
                .find_map(|(sign, join)| parser.take(sign).then_some(join))
        })
    }

    fn unary(&mut self) -> Parsed {
        if self.take("!") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.unary()?))));
        }
        if self.take("-") {
            return self.deeper(|parser| Ok(Expr::Negate(Box::new(parser.unary()?))));
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        let mut links = 0;
        loop {
            links += 1;
            if links > DEPTH_MAX {
                return self.fail(format!("more than {DEPTH_MAX} links in one chain"));
            }
            if self.take("[") {
                let at = self.expression()?;
                self.expect("]")?;
                expr = Expr::Index(Box::new(expr), Box::new(at));
            } else if self.take(".") {
                let name = self.name()?;
                expr = if self.take("(") {
                    self.method(expr, &name)?
                } else {
                    Expr::Field(Box::new(expr), name.into())
                };
            } else {
                return Ok(expr);
            }
        }
    }

    fn method(&mut self, of: Expr, name: &str) -> Parsed {
        let of = Box::new(of);
        let test = match name {
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            "contains" => TextTest::Contains,
            "size" => {
                self.expect(")")?;
                return Ok(Expr::Size(of));
            }
            "matches" => {
                let Some(Token::Text(pattern)) = self.peek() else {
                    return self.fail("`matches` needs its pattern as a literal text");
                };
                let pattern = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
                let Ok(pattern) = pattern else {
                    return self.fail("this is no regular expression, or too large a one");
                };
                self.at += 1;
                self.expect(")")?;
                return Ok(Expr::Matches(of, Box::new(pattern)));
            }
            "all" => return self.each(Quantifier::All, of),
            "exists" => return self.each(Quantifier::Exists, of),
            "exists_one" => return self.each(Quantifier::ExistsOne, of),
            _ => return self.fail(format!("`{name}` is no function that conditions have")),
        };
        let part = self.expression()?;
        self.expect(")")?;
        Ok(Expr::TextTest(test, of, Box::new(part)))
    }

    fn each(&mut self, quantifier: Quantifier, list: Box<Expr>) -> Parsed {
        let name = self.name()?;
        if name == "arguments" {
            return self.fail("`arguments` is taken; name the variable otherwise");
        }
        self.expect(",")?;
        self.variables.push(name);
        let body = self.expression();
        self.variables.pop();
        let body = body?;
        self.expect(")")?;
        Ok(Expr::Each(quantifier, list, Box::new(body)))
    }

    fn primary(&mut self) -> Parsed {
        let Some(token) = self.peek().cloned() else {
            return self.fail("expected a value");
        };
        let expr = match token {
            Token::Int(number) => Expr::Int(number),
            Token::Float(number) => Expr::Float(number),
            Token::Text(text) => Expr::Text(text.into()),
            Token::Name(name) => return self.named(&name),
            Token::Sign("(") => {
                self.at += 1;
                let expr = self.expression()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Sign("[") => {
                self.at += 1;
                return self.list();
            }
            Token::Sign(_) => return self.fail("expected a value"),
        };
        self.at += 1;
        Ok(expr)
    }

    fn list(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.take("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.expression()?);
        }
        Ok(Expr::List(items.into()))
    }

    fn named(&mut self, name: &str) -> Parsed {
        let expr = match name {
            "true" => Expr::Bool(true),
            "false" => Expr::Bool(false),
            "null" => Expr::Null,
            "arguments" => Expr::Arguments,
            "has" | "size" => return self.function(name),
            _ => match self.variables.iter().rev().position(|own| own == name) {
                Some(depth) => Expr::Variable(depth),
                None => return self.fail(format!("`{name}` is not known; conditions speak of `arguments`")),
            },
        };
        self.at += 1;
        Ok(expr)
    }

    fn function(&mut self, name: &str) -> Parsed {
        self.at += 1;
        self.expect("(")?;
        let of = self.expression()?;
        let expr = match (name, of) {
            ("has", Expr::Field(object, field)) => Expr::Has(object, field),
            ("has", _) => return self.fail("`has` asks for a field, such as `has(arguments.amount)`"),
            (_, of) => Expr::Size(Box::new(of)),
        };
        self.expect(")")?;
        Ok(expr)
    }
}

/// Makes one expression of two.
type Join = fn(Box<Expr>, Box<Expr>) -> Expr;
