//! Parses everything above arithmetic: lists, connectives, relations, unions, ratios.
//!
//! Brackets are already groups, so each rule splits a flat sequence at its weakest separator: `;`,
//! then `and` and `or`, then `,`, then relations, set operations and `:`. `term` parses the sums
//! between them.

use super::cursor::arguments;
use super::term;
use super::token::{Bracket, Tok};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::RelOp;
use crate::node::operations::Operations;

/// Parses the tokens between two brackets, or of a whole text. `None` if there are none.
pub(crate) fn sequence(arena: &mut Arena, text: &[char], tokens: Vec<Tok>) -> Res<Option<Id>> {
    let tokens = trim(&tokens);
    if tokens.is_empty() {
        return Ok(None);
    }
    arena.budget.spend(tokens.len() as u64)?;
    // `^{\circ}`, `^{+}`
    if let [one] = tokens {
        match one {
            Tok::Degree => return arena.symbol("°").map(Some),
            Tok::Prime => return arena.symbol("′").map(Some),
            Tok::Plus => return arena.symbol("＋").map(Some),
            Tok::Minus => return arena.symbol("−").map(Some),
            _ => {}
        }
    }
    if tokens.iter().any(|t| matches!(t, Tok::Choose | Tok::Over)) {
        return choose(arena, text, tokens).map(Some);
    }
    let strong: Vec<&[Tok]> = split(tokens, |t| *t == Tok::Semicolon);
    let mut parts = Vec::new();
    for part in &strong {
        if let Some(id) = connected(arena, text, part)? {
            parts.push(id);
        }
    }
    if strong.len() == 1 {
        return Ok(parts.first().copied());
    }
    list(arena, parts).map(Some)
}

/// Removes separators at the ends, which have no meaning.
fn trim(mut tokens: &[Tok]) -> &[Tok] {
    let idle = |t: &Tok| {
        matches!(
            t,
            Tok::Comma | Tok::Semicolon | Tok::And | Tok::Or | Tok::Ampersand | Tok::Row
        )
    };
    while let [first, rest @ ..] = tokens
        && idle(first)
    {
        tokens = rest;
    }
    while let [rest @ .., last] = tokens
        && idle(last)
    {
        tokens = rest;
    }
    tokens
}

fn split(tokens: &[Tok], at: impl Fn(&Tok) -> bool) -> Vec<&[Tok]> {
    tokens
        .split(|t| at(t))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Returns a list, or the element if there is only one.
fn list(arena: &mut Arena, mut parts: Vec<Id>) -> Res<Id> {
    match parts.len() {
        0 => Err(Stop::Syntax("an empty list")),
        1 => Ok(parts.remove(0)),
        _ => arena.add_node(Node::List(parts)),
    }
}

/// Returns whether a node is a relation other than an equation.
fn is_inequality(arena: &Arena, id: Id) -> bool {
    match arena.node(id) {
        Node::Rel(ops, _) => ops
            .iter()
            .any(|op| !matches!(op, RelOp::Eq | RelOp::Approx)),
        Node::And(_) | Node::Or(_) => true,
        _ => false,
    }
}

/// Parses parts joined by `and` and `or`, and by commas between them.
fn connected(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Option<Id>> {
    let has_or = tokens.contains(&Tok::Or);
    let mut groups: Vec<Vec<Id>> = Vec::new();
    for part in split(tokens, |t| matches!(t, Tok::And | Tok::Or)) {
        let mut items = Vec::new();
        for item in split(part, |t| *t == Tok::Comma) {
            // `(1,000)`: a group of thousands is not an element.
            if let [
                Tok::Num {
                    digits: Some(digits),
                    ..
                },
            ] = item
                && digits.len() == 3
                && digits.starts_with('0')
                && part.len() > 1
            {
                return Err(Stop::Syntax("a group of thousands in a list"));
            }
            items.push(relation(arena, text, item)?);
        }
        if !items.is_empty() {
            groups.push(items);
        }
    }
    let all: Vec<Id> = groups.iter().flatten().copied().collect();
    if all.len() < 2 {
        return Ok(all.first().copied());
    }
    if all.iter().any(|&id| is_inequality(arena, id)) {
        return arena
            .add_node(if has_or {
                Node::Or(all)
            } else {
                Node::And(all)
            })
            .map(Some);
    }
    // `p = 5, q = 2 and p = 7, q = 2`: systems of the same length are lists.
    let size = groups[0].len();
    let systems = groups.len() > 1
        && size > 1
        && groups.iter().all(|g| g.len() == size)
        && all
            .iter()
            .all(|&id| matches!(arena.node(id), Node::Rel(..)));
    if systems {
        let mut lists = Vec::new();
        for group in groups {
            lists.push(list(arena, group)?);
        }
        return list(arena, lists).map(Some);
    }
    list(arena, all).map(Some)
}

/// Parses `a = b`, `a < b <= c`, `x \in S`, or an expression without a relation.
fn relation(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    let outer = std::mem::take(&mut arena.operations);
    let mut written = Vec::new();
    let id = sides(arena, text, tokens, &mut written)?;
    // The last side of a chain of equations counts: `37+48 = 85`.
    arena.operations = outer;
    let chain =
        matches!(arena.node(id), Node::Rel(ops, _) if ops.iter().all(|op| *op == RelOp::Eq));
    let left = written.len().saturating_sub(1);
    for operations in written.into_iter().skip(if chain { left } else { 0 }) {
        arena.note(operations);
    }
    Ok(id)
}

/// Records the unevaluated operations of the groups among `tokens`.
fn note_groups(arena: &mut Arena, tokens: &[Tok]) {
    for token in tokens {
        if let Tok::Group { operations, .. } = token {
            arena.note(*operations);
        }
    }
}

/// Parses the sides of a relation. `written` receives the operations of each side that counts.
fn sides(
    arena: &mut Arena,
    text: &[char],
    tokens: &[Tok],
    written: &mut Vec<Operations>,
) -> Res<Id> {
    let mut side_of = |arena: &mut Arena, id: Res<Id>, tokens: &[Tok]| {
        note_groups(arena, tokens);
        written.push(std::mem::take(&mut arena.operations));
        id
    };
    if !tokens.iter().any(|t| matches!(t, Tok::Rel(_) | Tok::To)) {
        let id = operations(arena, text, tokens);
        return side_of(arena, id, tokens);
    }
    let mut ops = Vec::new();
    let mut sides: Vec<Id> = Vec::new();
    let mut start = 0;
    for at in 0..=tokens.len() {
        let op = match tokens.get(at) {
            None => None,
            Some(Tok::Rel(op)) => Some(*op),
            Some(Tok::To) => Some(RelOp::To),
            Some(_) => continue,
        };
        let side = &tokens[start..at];
        start = at + 1;
        if side.is_empty() {
            // `= 5`, or an incomplete equation.
            if sides.is_empty() && matches!(op, Some(RelOp::Eq | RelOp::Approx)) {
                continue;
            }
            if op.is_none() && !sides.is_empty() {
                ops.pop();
                break;
            }
            return Err(Stop::Syntax("a relation without a side"));
        }
        let id = named(arena, text, side);
        sides.push(side_of(arena, id, side)?);
        ops.extend(op);
    }
    ops.truncate(sides.len().saturating_sub(1));
    if sides.len() == 1 {
        return Ok(sides[0]);
    }
    // An approximation after an exact value is ignored.
    if let Some(at) = ops.iter().position(|op| *op == RelOp::Approx)
        && at > 0
        && ops[..at].iter().all(|op| *op == RelOp::Eq)
    {
        ops.truncate(at);
        sides.truncate(at + 1);
        written.truncate(at + 1);
    }
    // `\sqrt{2} \approx 1.414` too, unless the left side is the name of the right one.
    if ops[..] == [RelOp::Approx] && !matches!(arena.node(sides[0]), Node::Sym(_) | Node::App(..)) {
        written.truncate(1);
        return Ok(sides[0]);
    }
    arena.add_node(Node::Rel(ops, sides))
}

/// Parses a side of a relation. Alone there, `f(x)` and `W(n)` are function values, not products.
fn named(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    if let [
        Tok::Ident { name, .. },
        Tok::Group {
            open: Bracket::Paren,
            id: Some(id),
            ..
        },
    ] = tokens
    {
        let args = arguments(arena, *id);
        let name = arena.intern(name);
        return arena.add_node(Node::App(name, args));
    }
    // `f^{-1}(x) = ...`
    if let [
        Tok::Ident { name, .. },
        Tok::Caret,
        Tok::Group {
            open: Bracket::Brace,
            span,
            ..
        },
        Tok::Group {
            open: Bracket::Paren,
            id: Some(id),
            ..
        },
    ] = tokens
        && matches!(name.as_str(), "f" | "g" | "h" | "F" | "G" | "H")
    {
        let args = arguments(arena, *id);
        let power: String = text[span.0..span.1].iter().collect();
        let name = arena.intern(&format!("{name}^{power}"));
        return arena.add_node(Node::App(name, args));
    }
    operations(arena, text, tokens)
}

/// Parses unions, intersections and differences, from left to right.
fn operations(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    let is_op = |t: &Tok| matches!(t, Tok::Union | Tok::Intersection | Tok::Without);
    let mut total: Option<(Id, Tok)> = None;
    let mut start = 0;
    for at in 0..=tokens.len() {
        if at < tokens.len() && !is_op(&tokens[at]) {
            continue;
        }
        let next = ratio(arena, text, &tokens[start..at])?;
        start = at + 1;
        let joined = match total.take() {
            None => next,
            Some((left, Tok::Union)) => {
                let mut parts = match arena.node(left) {
                    Node::Union(parts) => parts.clone(),
                    _ => vec![left],
                };
                parts.push(next);
                arena.add_node(Node::Union(parts))?
            }
            Some((left, Tok::Intersection)) => {
                let mut parts = match arena.node(left) {
                    Node::Intersection(parts) => parts.clone(),
                    _ => vec![left],
                };
                parts.push(next);
                arena.add_node(Node::Intersection(parts))?
            }
            Some((left, _)) => arena.add_node(Node::Without(left, next))?,
        };
        match tokens.get(at) {
            None => return Ok(joined),
            Some(op) => total = Some((joined, op.clone())),
        }
    }
    Err(Stop::Syntax("an incomplete set operation"))
}

/// Parses `3:4`, `1:2:3`, and times of day: `3:30`.
fn ratio(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    if !tokens.contains(&Tok::Colon) {
        return term::sum(arena, text, tokens);
    }
    if let [
        Tok::Num {
            id: h,
            digits: Some(hours),
            ..
        },
        Tok::Colon,
        Tok::Num {
            id: m,
            digits: Some(minutes),
            ..
        },
        rest @ ..,
    ] = tokens
        && hours.len() <= 2
        && minutes.len() == 2
        && rest
            .iter()
            .all(|t| matches!(t, Tok::Text(_) | Tok::Unit(_) | Tok::Ident { .. }))
    {
        let clock = arena.intern("clock");
        let time = arena.add_node(Node::App(clock, vec![*h, *m]))?;
        // AM or PM is like a unit: it may be missing, but not differ.
        let half: String = rest
            .iter()
            .map(|t| match t {
                Tok::Text(w) | Tok::Unit(w) | Tok::Ident { name: w, .. } => {
                    w.to_lowercase().replace('.', "")
                }
                _ => String::new(),
            })
            .collect();
        if half.is_empty() {
            return Ok(time);
        }
        let half = arena.intern(&half);
        return arena.add_node(Node::Quantity(time, half));
    }
    let mut parts = Vec::new();
    for part in tokens.split(|t| *t == Tok::Colon) {
        if part.is_empty() {
            return Err(Stop::Syntax("a ratio without a side"));
        }
        parts.push(term::sum(arena, text, part)?);
    }
    arena.add_node(Node::Ratio(parts))
}

/// Parses `{n \choose k}` and `{a \over b}`.
fn choose(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    let Some(at) = tokens
        .iter()
        .position(|t| matches!(t, Tok::Choose | Tok::Over))
    else {
        return Err(Stop::Syntax("not a binomial"));
    };
    if at == 0 || at + 1 == tokens.len() {
        return Err(Stop::Syntax("a binomial without arguments"));
    }
    let top = term::sum(arena, text, &tokens[..at])?;
    let bottom = term::sum(arena, text, &tokens[at + 1..])?;
    note_groups(arena, tokens);
    if tokens[at] == Tok::Choose {
        arena.note(Operations::function(crate::node::function::Func::Binom));
        arena.function(crate::node::function::Func::Binom, vec![top, bottom])
    } else {
        arena.note_quotient(&[top], &[bottom]);
        arena.divide(top, bottom)
    }
}

/// Parses the content of `\{ \}`: elements, or `x | condition`.
pub(crate) fn set(arena: &mut Arena, text: &[char], tokens: Vec<Tok>) -> Res<Option<Id>> {
    let mark = tokens
        .iter()
        .position(|t| matches!(t, Tok::Mid | Tok::Colon));
    if let Some(at) = mark
        && tokens[at + 1..].iter().any(|t| matches!(t, Tok::Rel(_)))
    {
        let Some(variable) = sequence(arena, text, tokens[..at].to_vec())? else {
            return Err(Stop::Syntax("an incomplete set"));
        };
        let Some(condition) = sequence(arena, text, tokens[at + 1..].to_vec())? else {
            return Err(Stop::Syntax("an incomplete set"));
        };
        return arena.add_node(Node::Builder(variable, condition)).map(Some);
    }
    sequence(arena, text, tokens)
}

/// Parses the cells of a matrix.
pub(crate) fn matrix(arena: &mut Arena, text: &[char], tokens: Vec<Tok>) -> Res<Id> {
    let mut columns = 0;
    let mut cells = Vec::new();
    for row in tokens.split(|t| *t == Tok::Row) {
        if row.is_empty() {
            continue;
        }
        let mut count = 0;
        for cell in row.split(|t| *t == Tok::Ampersand) {
            let Some(id) = sequence(arena, text, cell.to_vec())? else {
                return Err(Stop::Syntax("an empty cell"));
            };
            if matches!(arena.node(id), Node::Matrix(..)) {
                return Err(Stop::Syntax("a matrix in a matrix"));
            }
            cells.push(id);
            count += 1;
        }
        if columns != 0 && columns != count {
            return Err(Stop::Syntax("rows of different lengths"));
        }
        columns = count;
    }
    if columns == 0 {
        return Err(Stop::Syntax("an empty matrix"));
    }
    arena.add_node(Node::Matrix(columns as u32, cells))
}
