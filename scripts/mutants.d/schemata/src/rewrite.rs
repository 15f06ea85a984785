//! One file, and the mutants in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;
use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, Member};

use crate::list::{Genre, Mutant, Position};
use crate::{Fate, Place};

/// What is written into a file.
struct Insertion {
    /// Before this byte of the original.
    at: usize,
    text: String,
    /// The mutants that the text holds, each with its bytes of the text.
    mutants: Vec<(u32, Range<usize>)>,
    /// Bytes of the original that the text takes the place of.
    instead_of: usize,
}

/// A file that is being rewritten.
pub(crate) struct Rewriting<'a> {
    text: &'a str,
    /// The mutants to write: by kind and place, with their replacements.
    wanted: BTreeMap<(Genre, Position), Vec<(u32, &'a Mutant)>>,
    /// Names of functions that have to stay `const`.
    constant: &'a BTreeSet<String>,
    insertions: Vec<Insertion>,
    /// Of those that are not written.
    fates: BTreeMap<u32, Fate>,
    /// Whether the code that is visited is evaluated by the compiler.
    in_constant: bool,
}

impl<'a> Rewriting<'a> {
    /// Writes the mutants into `text`, but not those refused. Every mutant has a fate then.
    pub(crate) fn new(
        text: &'a str,
        mutants: &[(u32, &'a Mutant)],
        refused: &BTreeSet<u32>,
        constant: &'a BTreeSet<String>,
    ) -> Result<Self> {
        let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, mutant) in mutants {
            if !refused.contains(number) {
                let key = (mutant.genre, mutant.span.start);
                wanted.entry(key).or_default().push((*number, *mutant));
            }
        }
        let mut rewriting = Self {
            text,
            wanted,
            constant,
            insertions: Vec::new(),
            fates: BTreeMap::new(),
            in_constant: false,
        };
        rewriting.visit_file(&syn::parse_file(text)?);
        let refused = mutants.iter().filter(|(n, _)| refused.contains(n));
        for (number, _) in refused {
            let why = "the compiler refuses it behind a switch";
            rewriting.fates.insert(*number, Fate::Unwritten { why });
        }
        for (number, _) in std::mem::take(&mut rewriting.wanted)
            .into_values()
            .flatten()
        {
            let why = "its place was not found";
            rewriting.fates.insert(number, Fate::Unwritten { why });
        }
        Ok(rewriting)
    }

    /// The text with all mutants, and what became of each.
    pub(crate) fn finish(mut self) -> (String, BTreeMap<u32, Fate>) {
        // Stable: what encloses something was inserted before it, where both begin.
        self.insertions.sort_by_key(|insertion| insertion.at);
        let (mut text, mut done) = (String::new(), 0);
        for insertion in self.insertions {
            text.push_str(&self.text[done..insertion.at]);
            for (number, bytes) in insertion.mutants {
                let place = Place {
                    begin: text.len() + bytes.start,
                    end: text.len() + bytes.end,
                };
                match self.fates.get_mut(&number) {
                    Some(Fate::Written { places }) => places.push(place),
                    _ => {
                        let places = vec![place];
                        self.fates.insert(number, Fate::Written { places });
                    }
                }
            }
            text.push_str(&insertion.text);
            done = insertion.at + insertion.instead_of;
        }
        text.push_str(&self.text[done..]);
        (text, self.fates)
    }

    /// The mutants of this kind at this place, if a switch can choose between them.
    fn take(&mut self, genre: Genre, start: LineColumn) -> Vec<(u32, &'a Mutant)> {
        let position = Position {
            line: start.line,
            column: start.column + 1,
        };
        let found = self.wanted.remove(&(genre, position)).unwrap_or_default();
        if !self.in_constant {
            return found;
        }
        for (number, _) in found {
            let why = "the compiler evaluates its place";
            self.fates.insert(number, Fate::Unwritten { why });
        }
        Vec::new()
    }

    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.insertions.push(Insertion {
            at,
            text: text.into(),
            mutants: Vec::new(),
            instead_of: 0,
        });
    }

    /// Makes an expression a choice between these texts and itself; what else changes inside it is
    /// visited by `inside`.
    fn choose(
        &mut self,
        expression: Range<usize>,
        choices: Vec<(u32, String)>,
        inside: impl FnOnce(&mut Self),
    ) {
        if choices.is_empty() {
            return inside(self);
        }
        let (mut text, mut mutants) = ("(".to_owned(), Vec::new());
        for (number, choice) in choices {
            let begin = text.len();
            text += &format!("if ::mutant_switch::active({number}) {{ {choice} }} else ");
            mutants.push((number, begin..text.len()));
        }
        text += "{ ";
        self.insertions.push(Insertion {
            at: expression.start,
            text,
            mutants,
            instead_of: 0,
        });
        inside(self);
        self.insert(expression.end, " })");
    }

    fn unviable(&mut self, number: u32, why: &'static str) {
        self.fates.insert(number, Fate::Unviable { why });
    }

    /// Visits code that the compiler evaluates.
    fn constant(&mut self, inside: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.in_constant, true);
        inside(self);
        self.in_constant = before;
    }

    /// The mutants of the operators of an expression, each with the text of the whole.
    fn operators(&mut self, whole: &Range<usize>, node: &Expr, found: &mut Vec<(u32, String)>) {
        let Expr::Binary(binary) = node else { return };
        self.operators(whole, &binary.left, found);
        let operator = binary.op.span();
        for (number, mutant) in self.take(Genre::BinaryOperator, operator.start()) {
            let bytes = operator.byte_range();
            let mut text = self.text[whole.start..bytes.start].to_owned();
            text.push_str(&mutant.replacement);
            text.push_str(&self.text[bytes.end..whole.end]);
            match syn::parse_str::<Expr>(&text) {
                Ok(_) => found.push((number, text)),
                Err(_) => self.unviable(number, "its operators need parentheses"),
            }
        }
        self.operators(whole, &binary.right, found);
    }

    /// Visits the operands of an expression of operators.
    fn operands(&mut self, node: &Expr) {
        match node {
            Expr::Binary(binary) => {
                self.operands(&binary.left);
                self.operands(&binary.right);
            }
            operand => self.visit_expr(operand),
        }
    }

    /// Visits the conditions of a chain of `let`, which has to stay one.
    fn chain(&mut self, node: &Expr) {
        match node {
            Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) && has_let(node) => {
                self.chain(&binary.left);
                for (number, _) in self.take(Genre::BinaryOperator, binary.op.span().start()) {
                    self.unviable(number, "the condition has a let");
                }
                self.chain(&binary.right);
            }
            condition => self.visit_expr(condition),
        }
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let mut stays = false;
        if let Some(keyword) = signature.constness {
            stays = self.constant.contains(&signature.ident.to_string());
            let bytes = keyword.span().byte_range();
            if !stays {
                self.insertions.push(Insertion {
                    at: bytes.start,
                    text: String::new(),
                    mutants: Vec::new(),
                    instead_of: bytes.len(),
                });
            }
        }
        let before = std::mem::replace(&mut self.in_constant, stays);
        if let Some(first) = block.stmts.first() {
            for (number, mutant) in self.take(Genre::FnValue, first.span().start()) {
                self.returned(number, mutant, block);
            }
        }
        visit::visit_block(self, block);
        self.in_constant = before;
    }

    /// A function's body that is a value at once, if the switch says so.
    fn returned(&mut self, number: u32, mutant: &Mutant, block: &syn::Block) {
        let returns = mutant.function.as_ref().map(|f| f.return_type.as_str());
        if returns.is_some_and(|returns| returns.contains("impl ")) {
            let why = "it returns another type";
            self.fates.insert(number, Fate::Unwritten { why });
            return;
        }
        let replacement = &mutant.replacement;
        let text = format!(" if ::mutant_switch::active({number}) {{ return {replacement}; }}");
        let bytes = 0..text.len();
        self.insertions.push(Insertion {
            at: block.brace_token.span.open().byte_range().end,
            text,
            mutants: vec![(number, bytes)],
            instead_of: 0,
        });
    }

    fn arm(&mut self, arm: &syn::Arm) {
        let Some((_, guard)) = &arm.guard else {
            for (number, _) in self.take(Genre::MatchArm, arm.span().start()) {
                let text = format!(" if !::mutant_switch::active({number})");
                let bytes = 0..text.len();
                self.insertions.push(Insertion {
                    at: bytes_of(arm.pat.span()).end,
                    text,
                    mutants: vec![(number, bytes)],
                    instead_of: 0,
                });
            }
            return;
        };
        let mutants = self.take(Genre::MatchArmGuard, guard.span().start());
        if has_let(guard) {
            for (number, _) in mutants {
                let why = "the condition of an arm has a let";
                self.fates.insert(number, Fate::Unwritten { why });
            }
            return self.chain(guard);
        }
        let choices = mutants.into_iter();
        let choices = choices.map(|(number, mutant)| (number, mutant.replacement.clone()));
        let choices = choices.collect();
        self.choose(bytes_of(guard.span()), choices, |this| {
            this.visit_expr(guard)
        });
    }

    /// A field that comes from the base if it is deleted.
    fn field(&mut self, field: &syn::FieldValue, path: &syn::Path, base: &Expr) {
        let mutants = self.take(Genre::StructField, field.span().start());
        let Member::Named(name) = &field.member else {
            return self.visit_expr(&field.expr);
        };
        let base_text = &self.text[bytes_of(base.span())];
        let value = match base {
            Expr::Path(_) | Expr::Field(_) => format!("{base_text}.{name}"),
            _ => {
                let path = &self.text[bytes_of(path.span())];
                format!("({path} {{ ..{base_text} }}).{name}")
            }
        };
        let bytes = bytes_of(field.expr.span());
        if field.colon_token.is_none() && !mutants.is_empty() {
            self.insert(bytes.start, format!("{name}: "));
        }
        let choices = mutants
            .into_iter()
            .map(|(number, _)| (number, value.clone()));
        let choices = choices.collect();
        self.choose(bytes, choices, |this| this.visit_expr(&field.expr));
    }
}

impl<'ast> Visit<'ast> for Rewriting<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            let condition = attribute.parse_args::<syn::Ident>();
            attribute.path().is_ident("cfg") && condition.is_ok_and(|word| word == "test")
        };
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|this| visit::visit_item_const(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|this| visit::visit_impl_item_const(this, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.constant(|this| visit::visit_trait_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|this| visit::visit_item_static(this, item));
    }

    fn visit_variant(&mut self, item: &'ast syn::Variant) {
        self.constant(|this| visit::visit_variant(this, item));
    }

    fn visit_type(&mut self, node: &'ast syn::Type) {
        self.constant(|this| visit::visit_type(this, node));
    }

    fn visit_generic_argument(&mut self, node: &'ast syn::GenericArgument) {
        self.constant(|this| visit::visit_generic_argument(this, node));
    }

    fn visit_pat(&mut self, node: &'ast syn::Pat) {
        self.constant(|this| visit::visit_pat(this, node));
    }

    fn visit_expr_const(&mut self, node: &'ast syn::ExprConst) {
        self.constant(|this| visit::visit_expr_const(this, node));
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
        self.constant(|this| this.visit_expr(&node.len));
    }

    fn visit_expr(&mut self, node: &'ast Expr) {
        match node {
            Expr::Binary(binary) if has_let(node) && matches!(binary.op, BinOp::And(_)) => {
                self.chain(node);
            }
            Expr::Binary(_) => {
                let whole = bytes_of(node.span());
                let mut choices = Vec::new();
                self.operators(&whole, node, &mut choices);
                self.choose(whole, choices, |this| this.operands(node));
            }
            Expr::Unary(unary) => {
                let operand = self.text[bytes_of(unary.expr.span())].to_owned();
                let mutants = self.take(Genre::UnaryOperator, unary.op.span().start());
                let choices = mutants.into_iter().map(|(n, _)| (n, operand.clone()));
                let choices = choices.collect();
                self.choose(bytes_of(node.span()), choices, |this| {
                    this.visit_expr(&unary.expr);
                });
            }
            Expr::Struct(built) if built.rest.is_some() => {
                let base = built.rest.as_deref().expect("a base");
                for field in &built.fields {
                    self.field(field, &built.path, base);
                }
                self.visit_expr(base);
            }
            _ => visit::visit_expr(self, node),
        }
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        self.visit_pat(&node.pat);
        self.arm(node);
        self.visit_expr(&node.body);
    }
}

fn bytes_of(span: Span) -> Range<usize> {
    span.byte_range()
}

/// Whether an expression of `&&` has a `let` among its operands.
fn has_let(node: &Expr) -> bool {
    match node {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Function, Span as ListSpan};

    /// A mutant of what `place` is, the first of its kind in `text`.
    fn mutant(text: &str, genre: Genre, place: &str, replacement: &str) -> Mutant {
        let before = &text[..text.find(place).expect("the place")];
        Mutant {
            file: String::new(),
            function: Some(Function {
                return_type: "-> bool".to_owned(),
            }),
            span: ListSpan {
                start: Position {
                    line: before.matches('\n').count() + 1,
                    column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
                },
            },
            replacement: replacement.to_owned(),
            genre,
        }
    }

    /// What a text becomes with a mutant, and the mutant's fate: "written", or why not.
    fn rewritten(text: &str, mutant: &Mutant, constant: &[&str]) -> (String, &'static str) {
        let constant = constant.iter().map(|name| (*name).to_owned()).collect();
        let numbered = [(7, mutant)];
        let rewriting = Rewriting::new(text, &numbered, &BTreeSet::new(), &constant)
            .expect("a file that can be parsed");
        let (text, mut fates) = rewriting.finish();
        syn::parse_file(&text).expect("what is written can be parsed");
        let fate = match fates.remove(&7).expect("a fate") {
            Fate::Written { .. } => "written",
            Fate::Unviable { why } | Fate::Unwritten { why } => why,
        };
        (text, fate)
    }

    #[track_caller]
    fn assert_written(text: &str, mutant: &Mutant, expected: &str) {
        let found = rewritten(text, mutant, &[]);
        let expected = expected.replace("ACTIVE", "::mutant_switch::active(7)");
        assert_eq!(found, (expected, "written"));
    }

    #[test]
    fn operator_binds_as_in_the_mutated_text() {
        let text = "fn f() -> bool { x(a && b && c) }";
        assert_written(
            text,
            &mutant(text, Genre::BinaryOperator, "&&", "||"),
            "fn f() -> bool { x((if ACTIVE { a || b && c } else { a && b && c })) }",
        );
    }

    #[test]
    fn operator_that_needs_parentheses_is_unviable() {
        let text = "fn f() -> bool { a == b && c < d }";
        let mutant = mutant(text, Genre::BinaryOperator, "&&", "==");
        let fate = rewritten(text, &mutant, &[]).1;
        assert_eq!(fate, "its operators need parentheses");
    }

    #[test]
    fn condition_beside_a_let_is_written_and_the_chain_is_not() {
        let text = "fn f() { if let Some(x) = y && x == 1 { g() } }";
        assert_written(
            text,
            &mutant(text, Genre::BinaryOperator, "==", "!="),
            "fn f() { if let Some(x) = y && (if ACTIVE { x != 1 } else { x == 1 }) { g() } }",
        );
        let chain = mutant(text, Genre::BinaryOperator, "&&", "||");
        assert_eq!(rewritten(text, &chain, &[]).1, "the condition has a let");
    }

    #[test]
    fn body_returns_at_once() {
        let text = "fn f() -> bool {\n    g()\n}";
        assert_written(
            text,
            &mutant(text, Genre::FnValue, "g()", "true"),
            "fn f() -> bool { if ACTIVE { return true; }\n    g()\n}",
        );
    }

    #[test]
    fn function_stays_constant_only_if_a_constant_calls_it() {
        let text = "const fn f() -> bool { !G }";
        let mutant = mutant(text, Genre::UnaryOperator, "!", "");
        assert_written(
            text,
            &mutant,
            " fn f() -> bool { (if ACTIVE { G } else { !G }) }",
        );
        let expected = (text.to_owned(), "the compiler evaluates its place");
        assert_eq!(rewritten(text, &mutant, &["f"]), expected);
    }

    #[test]
    fn arm_is_skipped_and_guard_is_replaced() {
        let text = "fn f() { match a { 1 => b, c if c > d => e, _ => g } }";
        assert_written(
            text,
            &mutant(text, Genre::MatchArm, "1 =>", ""),
            "fn f() { match a { 1 if !ACTIVE => b, c if c > d => e, _ => g } }",
        );
        assert_written(
            text,
            &mutant(text, Genre::MatchArmGuard, "c > d", "true"),
            "fn f() { match a { 1 => b, c if (if ACTIVE { true } else { c > d }) => e, _ => g } }",
        );
    }

    #[test]
    fn field_comes_from_the_base() {
        let text = "fn f() { A { b, ..c } }";
        assert_written(
            text,
            &mutant(text, Genre::StructField, "b,", ""),
            "fn f() { A { b: (if ACTIVE { c.b } else { b }), ..c } }",
        );
        let text = "fn f() { A { b: d, ..A::new() } }";
        assert_written(
            text,
            &mutant(text, Genre::StructField, "b:", ""),
            "fn f() { A { b: (if ACTIVE { (A { ..A::new() }).b } else { d }), ..A::new() } }",
        );
    }

    #[test]
    fn mutants_inside_a_mutant_are_written_too() {
        let text = "fn f() -> bool { a == !b }";
        let mutants = [
            (1, &mutant(text, Genre::BinaryOperator, "==", "!=")),
            (2, &mutant(text, Genre::UnaryOperator, "!", "")),
        ];
        let (none, constant) = (BTreeSet::new(), BTreeSet::new());
        let rewriting = Rewriting::new(text, &mutants, &none, &constant).expect("parsed");
        let expected = "fn f() -> bool { (if ::mutant_switch::active(1) { a != !b } else { \
                        a == (if ::mutant_switch::active(2) { b } else { !b }) }) }";
        assert_eq!(rewriting.finish().0, expected);
    }
}
