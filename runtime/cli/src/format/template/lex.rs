//! Text and tokens: what stands outside and inside of `{{` and `}}`.

use serde_json::{Number, Value};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.` alone.
    Dot,
    /// `.Name`; glued when nothing separates it from what it is a field of.
    Field {
        name: String,
        glued: bool,
    },
    /// `$` or `$name`, without the dollar.
    Variable(String),
    Word(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

pub(super) fn lex(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_left = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trim_left { before.trim_start() } else { before };
        let trim_right = after.is_some_and(|a| a.starts_with("- ") || a.starts_with("-\t") || a.starts_with("-\n"));
        let before = if trim_right { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(after) = after else { return Ok(pieces) };
        let inside = if trim_right { &after[1..] } else { after };
        let (tokens, left) = action(inside)?;
        (rest, trim_left) = left;
        pieces.extend(tokens.map(Piece::Action));
    }
}

/// What follows an action, and whether blanks at its start go.
type Left<'a> = (&'a str, bool);

/// The tokens of an action, none for a comment.
fn action(text: &str) -> Result<(Option<Vec<Token>>, Left<'_>), String> {
    if let Some(comment) = text.trim_start().strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or("a comment is not closed")?;
        return match end(after) {
            Some(left) => Ok((None, left)),
            None => Err("a comment must fill its action".to_owned()),
        };
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        if let Some(left) = end(rest) {
            return Ok((Some(tokens), left));
        }
        let blank = rest.trim_start();
        let separated = blank.len() < rest.len() || tokens.is_empty();
        let mut cursor = Cursor(blank);
        tokens.push(token(&mut cursor, separated)?.ok_or("an action is not closed with }}")?);
        rest = cursor.0;
    }
}

/// The end of an action, if it is here.
fn end(text: &str) -> Option<Left<'_>> {
    let trimmed = text.trim_start();
    match trimmed.strip_prefix("}}") {
        Some(after) => Some((after, false)),
        // The minus needs a blank before it: `{{3-}}` is no trim mark.
        None if trimmed.len() < text.len() => Some((trimmed.strip_prefix("-}}")?, true)),
        None => None,
    }
}

/// The rest of an action.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn next(&mut self) -> Option<char> {
        self.next_if(|_| true)
    }

    fn next_if(&mut self, fits: impl FnOnce(&char) -> bool) -> Option<char> {
        let first = self.0.chars().next().filter(fits)?;
        self.0 = &self.0[first.len_utf8()..];
        Some(first)
    }
}

fn token(chars: &mut Cursor<'_>, separated: bool) -> Result<Option<Token>, String> {
    let Some(first) = chars.next() else { return Ok(None) };
    Ok(Some(match first {
        '(' => Token::Open,
        ')' => Token::Close,
        '|' => Token::Pipe,
        ',' => Token::Comma,
        '=' => Token::Assign,
        ':' if chars.next_if(|c| *c == '=').is_some() => Token::Declare,
        '.' => match name(chars) {
            name if !name.is_empty() => Token::Field { name, glued: !separated },
            _ => Token::Dot,
        },
        '$' => Token::Variable(name(chars)),
        '"' => Token::Literal(Value::String(quoted(chars)?)),
        '`' => Token::Literal(Value::String(raw(chars)?)),
        c if c.is_ascii_digit() || matches!(c, '-' | '+') => Token::Literal(Value::Number(number(c, chars)?)),
        c if is_name(c) => Token::Word(format!("{c}{}", name(chars))),
        c => return Err(format!("`{}` has no meaning in an action", c.escape_default())),
    }))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn name(chars: &mut Cursor<'_>) -> String {
    std::iter::from_fn(|| chars.next_if(|c| is_name(*c))).collect()
}

fn number(first: char, chars: &mut Cursor<'_>) -> Result<Number, String> {
    let more = std::iter::from_fn(|| chars.next_if(|c| is_name(*c) || *c == '.'));
    let text: String = std::iter::once(first).chain(more).collect();
    let whole = text.parse::<i64>().ok().map(Number::from);
    whole.or_else(|| Number::from_f64(text.parse().ok()?)).ok_or_else(|| format!("`{text}` is no number"))
}

fn raw(chars: &mut Cursor<'_>) -> Result<String, String> {
    let text: String = std::iter::from_fn(|| chars.next_if(|c| *c != '`')).collect();
    chars.next().map(|_| text).ok_or_else(|| "a string is not closed".to_owned())
}

fn quoted(chars: &mut Cursor<'_>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            Some('"') => return Ok(text),
            Some('\\') => text.push(escaped(chars)?),
            Some(c) if c != '\n' => text.push(c),
            Some(_) | None => return Err("a string is not closed".to_owned()),
        }
    }
}

fn escaped(chars: &mut Cursor<'_>) -> Result<char, String> {
    Ok(match chars.next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some(c @ ('\\' | '"' | '\'')) => c,
        Some('x') => hex(chars, 2)?,
        Some('u') => hex(chars, 4)?,
        Some('U') => hex(chars, 8)?,
        Some(_) | None => return Err(NO_ESCAPE.to_owned()),
    })
}

const NO_ESCAPE: &str = "a string has an escape that is none";

fn hex(chars: &mut Cursor<'_>, digits: usize) -> Result<char, String> {
    let text: String = (0..digits).map_while(|_| chars.next_if(char::is_ascii_hexdigit)).collect();
    let code = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
    code.and_then(char::from_u32).ok_or_else(|| NO_ESCAPE.to_owned())
}
