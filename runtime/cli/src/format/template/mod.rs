//! Templates in the language of Go's text/template, as far as formats of command lines use it: fields, pipelines,
//! variables, `if`, `range`, `with`, and the functions that podman and docker offer. Not there: `define`, `template`,
//! `block` and methods.

mod functions;
mod lex;
mod parse;
mod print;
mod run;

use parse::Node;
use serde_json::Value;

/// A template that was read.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(Template { nodes: parse::parse(lex::lex(text)?)? })
    }

    /// What the template makes of `data`.
    ///
    /// # Errors
    /// When it names what is not there, or gives a function what it cannot take.
    pub(crate) fn execute(&self, data: &Value) -> Result<String, String> {
        run::execute(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests;
