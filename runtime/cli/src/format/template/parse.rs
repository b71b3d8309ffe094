//! Tokens become a tree.

use super::lex::{Piece, Token};
use serde_json::Value;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Parentheses and blocks within each other; more would be a template that was made to exhaust the stack.
const MAX_DEPTH: usize = 64;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    /// The first condition that holds.
    If {
        cases: Vec<(Pipeline, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        of: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        each: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// The variables exist already.
    pub(super) assigns: bool,
    /// Never empty.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// `.A.B`, `$x.A`, `(pipeline).A`, a literal, a function.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Parenthesis(Box<Pipeline>),
}

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0, loops: 0 };
    match parser.block()? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(format!("unexpected {{{{{}}}}}", end.word)),
    }
}

/// What ended a block: `end` or `else`, and what followed it.
struct End {
    word: String,
    rest: Vec<Token>,
}

struct Parser {
    pieces: IntoIter<Piece>,
    depth: usize,
    /// `range`s around here.
    loops: usize,
}

type Block = (Vec<Node>, Option<End>);

impl Parser {
    fn block(&mut self) -> Result<Block, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("blocks are nested too deeply".to_owned());
        }
        let mut nodes = Vec::new();
        let mut ended = None;
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) => nodes.push(Node::Text(text)),
                Piece::Action(tokens) => match self.action(tokens)? {
                    Ok(node) => nodes.push(node),
                    Err(end) => {
                        ended = Some(end);
                        break;
                    }
                },
            }
        }
        self.depth -= 1;
        Ok((nodes, ended))
    }

    fn action(&mut self, tokens: Vec<Token>) -> Result<Result<Node, End>, String> {
        let Some(Token::Word(word)) = tokens.first() else { return Ok(Ok(Node::Print(pipeline(tokens)?))) };
        let word = word.clone();
        let rest = || tokens[1..].to_vec();
        Ok(match word.as_str() {
            "end" | "else" => Err(End { word, rest: rest() }),
            "if" => Ok(self.condition(rest())?),
            "with" => {
                let of = pipeline(rest())?;
                let (then, otherwise) = self.with_else("with")?;
                Ok(Node::With { of, then, otherwise })
            }
            "range" => {
                let over = pipeline(rest())?;
                self.loops += 1;
                let (each, otherwise) = self.with_else("range")?;
                self.loops -= 1;
                Ok(Node::Range { over, each, otherwise })
            }
            "break" | "continue" if self.loops == 0 => return Err(format!("{{{{{word}}}}} outside {{{{range}}}}")),
            "break" if tokens.len() == 1 => Ok(Node::Break),
            "continue" if tokens.len() == 1 => Ok(Node::Continue),
            "define" | "template" | "block" => return Err(format!("rlrun does not know {{{{{word}}}}}")),
            _ => Ok(Node::Print(pipeline(tokens)?)),
        })
    }

    fn condition(&mut self, tokens: Vec<Token>) -> Result<Node, String> {
        let mut cases = Vec::new();
        let mut condition = pipeline(tokens)?;
        loop {
            let (then, end) = self.block()?;
            cases.push((condition, then));
            let End { word, mut rest } = end.ok_or("{{if}} lacks its {{end}}")?;
            match rest.first() {
                None if word == "end" => return Ok(Node::If { cases, otherwise: Vec::new() }),
                None => return Ok(Node::If { cases, otherwise: self.last("if")? }),
                Some(Token::Word(next)) if word == "else" && next == "if" => condition = pipeline(rest.split_off(1))?,
                Some(_) => return Err(format!("{{{{{word}}}}} takes nothing here")),
            }
        }
    }

    fn with_else(&mut self, of: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (then, end) = self.block()?;
        let End { word, rest } = end.ok_or_else(|| format!("{{{{{of}}}}} lacks its {{{{end}}}}"))?;
        if !rest.is_empty() {
            return Err(format!("{{{{{word}}}}} takes nothing here"));
        }
        Ok(if word == "end" { (then, Vec::new()) } else { (then, self.last(of)?) })
    }

    /// What follows `else`, up to `end`.
    fn last(&mut self, of: &str) -> Result<Vec<Node>, String> {
        match self.block()? {
            (nodes, Some(End { word, rest })) if word == "end" && rest.is_empty() => Ok(nodes),
            _ => Err(format!("{{{{{of}}}}} lacks its {{{{end}}}}")),
        }
    }
}

type Tokens = Peekable<IntoIter<Token>>;

fn pipeline(tokens: Vec<Token>) -> Result<Pipeline, String> {
    let mut tokens = tokens.into_iter().peekable();
    let pipeline = pipeline_until_close(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(pipeline),
        Some(_) => Err("a parenthesis is closed that was not opened".to_owned()),
    }
}

fn pipeline_until_close(tokens: &mut Tokens, depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err("parentheses are nested too deeply".to_owned());
    }
    let (variables, assigns) = declaration(tokens)?;
    let mut commands = vec![Vec::new()];
    loop {
        let operand = match tokens.peek() {
            None | Some(Token::Close) => break,
            Some(Token::Pipe) => {
                tokens.next();
                commands.push(Vec::new());
                continue;
            }
            Some(_) => operand(tokens, depth)?,
        };
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("a command is missing".to_owned());
    }
    let callable = |c: &Vec<Operand>| matches!(c.first().map(|o| &o.base), Some(Base::Function(_)));
    if let Some(bad) = commands.iter().skip(1).find(|c| !callable(c)) {
        return Err(format!("only a function can follow |, not {}", if bad.len() == 1 { "a value" } else { "values" }));
    }
    Ok(Pipeline { variables, assigns, commands })
}

/// `$x :=`, `$i, $x :=`, `$x =`.
fn declaration(tokens: &mut Tokens) -> Result<(Vec<String>, bool), String> {
    let mut ahead = tokens.clone();
    let mut names = Vec::new();
    while let Some(Token::Variable(name)) = ahead.next() {
        names.push(name);
        let assigns = match ahead.next() {
            Some(Token::Comma) if names.len() == 1 => continue,
            Some(Token::Declare) => false,
            Some(Token::Assign) => true,
            _ => return Ok((Vec::new(), false)),
        };
        if names.iter().any(String::is_empty) {
            return Err("$ cannot be changed".to_owned());
        }
        *tokens = ahead;
        return Ok((names, assigns));
    }
    Ok((Vec::new(), false))
}

fn operand(tokens: &mut Tokens, depth: usize) -> Result<Operand, String> {
    let mut fields = Vec::new();
    let base = match tokens.next() {
        Some(Token::Dot) => return Ok(Operand { base: Base::Dot, fields }),
        Some(Token::Field { name, .. }) => {
            fields.push(name);
            Base::Dot
        }
        Some(Token::Variable(name)) => Base::Variable(name),
        Some(Token::Literal(value)) => Base::Literal(value),
        Some(Token::Word(word)) => match word.as_str() {
            "true" => Base::Literal(Value::Bool(true)),
            "false" => Base::Literal(Value::Bool(false)),
            "nil" => Base::Literal(Value::Null),
            _ => Base::Function(super::functions::known(&word)?),
        },
        Some(Token::Open) => {
            let inner = pipeline_until_close(tokens, depth + 1)?;
            tokens.next().ok_or("a parenthesis is not closed")?;
            Base::Parenthesis(Box::new(inner))
        }
        Some(Token::Comma | Token::Declare | Token::Assign | Token::Close | Token::Pipe) | None => {
            return Err("a value is missing".to_owned());
        }
    };
    while let Some(Token::Field { name, .. }) = tokens.next_if(|t| matches!(t, Token::Field { glued: true, .. })) {
        fields.push(name);
    }
    let fieldless = matches!(base, Base::Literal(_) | Base::Function(_));
    if fieldless && !fields.is_empty() {
        return Err(format!("field {} of what has no fields", fields.join(".")));
    }
    Ok(Operand { base, fields })
}
