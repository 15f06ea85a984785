//! The list of mutants, as cargo-mutants prints it.

use serde::Deserialize;

/// A change of one place of a file.
#[derive(Deserialize)]
pub(crate) struct Mutant {
    /// The file, from the root of the workspace on.
    pub(crate) file: String,
    pub(crate) function: Option<Function>,
    /// What is replaced.
    pub(crate) span: Span,
    /// By what: code, or nothing.
    pub(crate) replacement: String,
    pub(crate) genre: Genre,
}

/// The function around a mutant.
#[derive(Deserialize)]
pub(crate) struct Function {
    /// The type it returns, with its arrow.
    pub(crate) return_type: String,
}

#[derive(Deserialize)]
pub(crate) struct Span {
    pub(crate) start: Position,
}

/// A place in a file: both from 1 on, the column in characters.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The kind of a change.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Genre {
    /// A function's body becomes a value.
    FnValue,
    BinaryOperator,
    /// An operator before its operand is deleted.
    UnaryOperator,
    /// An arm is deleted from a match that has an arm for the rest.
    MatchArm,
    /// The condition of an arm becomes `true` or `false`.
    MatchArmGuard,
    /// A field is deleted from a struct expression that has a base.
    StructField,
}
