//! The readings of an ambiguous text: a list or a decimal comma, a letter or a unit. Two texts are
//! equal if a reading of one equals a reading of the other.

use super::lexer::{self, Mode};
use super::numeral::Comma;
use crate::config::MathConfig;
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::operations::Operations;

/// A node, and whether the reading is lenient. Two lenient readings are not compared with each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub id: Id,
    pub lenient: bool,
    /// The unevaluated operations of the text.
    pub operations: Operations,
}

/// Returns all readings of `text`, the most literal first, or the reason why there is none.
pub(crate) fn readings(arena: &mut Arena, config: &MathConfig, text: &str) -> Res<Vec<Reading>> {
    let chars: Vec<char> = text.chars().collect();
    // `\$5` and `€5` have a unit, as `5 dollars` has.
    let currency = [
        ("\\$", "dollar"),
        ("€", "euro"),
        ("£", "pound sterling"),
        ("¥", "yen"),
        ("₹", "rupee"),
    ]
    .into_iter()
    .find(|(sign, _)| text.contains(sign))
    .map(|(_, unit)| unit);
    let plain = Mode {
        comma: Comma::Thousands,
        letter_units: false,
        bars_open: false,
        upper_i: false,
        index_i: ["_{i=", "_{i =", "_{i \\"]
            .iter()
            .any(|bound| text.contains(bound)),
    };
    let mut out: Vec<Reading> = Vec::new();
    let mut failure = None;
    let mut push = |arena: &mut Arena, result: Res<Id>, lenient: bool| -> Res<()> {
        let operations = std::mem::take(&mut arena.operations);
        match result.and_then(|id| expand(arena, id)) {
            Ok(mut id) => {
                if let Some(unit) = currency
                    && arena.exact(id).is_some()
                {
                    let unit = arena.intern(unit);
                    id = arena.add_node(Node::Quantity(id, unit))?;
                }
                match out.iter_mut().find(|r| r.id == id) {
                    None => out.push(Reading {
                        id,
                        lenient,
                        operations,
                    }),
                    // Two readings have the same value.
                    Some(same) => same.operations = same.operations.with(operations),
                }
                Ok(())
            }
            Err(Stop::Limit(what)) => Err(Stop::Limit(what)),
            Err(stop) => {
                failure.get_or_insert(stop);
                Ok(())
            }
        }
    };
    let first = lexer::read(arena, &chars, plain);
    let failed = first.is_err();
    push(arena, first, false)?;
    if failed && chars.contains(&'|') {
        let id = lexer::read(
            arena,
            &chars,
            Mode {
                bars_open: true,
                ..plain
            },
        );
        push(arena, id, false)?;
    }
    match comma_between_digits(&chars) {
        Some(decimal) => {
            let id = lexer::read(
                arena,
                &chars,
                Mode {
                    comma: Comma::Separator,
                    ..plain
                },
            );
            push(arena, id, true)?;
            if decimal && config.decimal_comma {
                let id = lexer::read(
                    arena,
                    &chars,
                    Mode {
                        comma: Comma::Decimal,
                        ..plain
                    },
                );
                push(arena, id, true)?;
            }
        }
        None => {
            if let Some(joined) = spaced_thousands(&chars) {
                let id = lexer::read(arena, &joined, plain);
                push(arena, id, true)?;
            }
        }
    }
    if letter_after_number(&chars) {
        let id = lexer::read(
            arena,
            &chars,
            Mode {
                letter_units: true,
                ..plain
            },
        );
        push(arena, id, true)?;
    }
    if chars.contains(&'I') {
        let id = lexer::read(
            arena,
            &chars,
            Mode {
                upper_i: true,
                ..plain
            },
        );
        push(arena, id, true)?;
    }
    // A text that cannot be parsed as a whole may end in `= value`.
    if failed
        && !chars.iter().any(|c| matches!(c, ',' | ';' | '<' | '>'))
        && let Some(at) = chars.iter().rposition(|c| *c == '=')
    {
        let id = lexer::read(arena, &chars[at + 1..], plain);
        push(arena, id, true)?;
    }
    if out.is_empty() {
        return Err(failure.unwrap_or(Stop::Syntax("an empty text")));
    }
    Ok(out)
}

/// Returns whether a comma is directly between digits, and if so whether it can be a decimal comma:
/// the only comma, in a text without brackets, and not before exactly three digits unless the
/// integer part is 0.
fn comma_between_digits(text: &[char]) -> Option<bool> {
    let commas: Vec<usize> = (0..text.len()).filter(|&i| text[i] == ',').collect();
    let between = |i: usize| {
        i > 0 && text[i - 1].is_ascii_digit() && text.get(i + 1).is_some_and(char::is_ascii_digit)
    };
    if !commas.iter().any(|&i| between(i)) {
        return None;
    }
    let [at] = commas[..] else { return Some(false) };
    if text
        .iter()
        .any(|c| matches!(c, '(' | '[' | '{' | ';' | '.'))
    {
        return Some(false);
    }
    let after = text[at + 1..]
        .iter()
        .take_while(|c| c.is_ascii_digit())
        .count();
    let before: String = text[..at]
        .iter()
        .rev()
        .take_while(|c| c.is_ascii_digit())
        .collect();
    Some(after != 3 || before == "0" || before.len() > 3)
}

/// Joins `1 000 000` to one number.
fn spaced_thousands(text: &[char]) -> Option<Vec<char>> {
    let whole: String = text.iter().collect();
    let trimmed = whole.trim().trim_start_matches(['-', '+', '−']);
    let (integer, _) = trimmed.split_once('.').unwrap_or((trimmed, ""));
    let mut groups = integer.split([' ', '\u{a0}', '\u{202f}']);
    let first = groups.next()?;
    let digits = |g: &str| !g.is_empty() && g.bytes().all(|b| b.is_ascii_digit());
    let rest: Vec<&str> = groups.collect();
    let fits = digits(first)
        && first.len() <= 3
        && !first.starts_with('0')
        && !rest.is_empty()
        && rest.iter().all(|g| g.len() == 3 && digits(g));
    fits.then(|| {
        text.iter()
            .copied()
            .filter(|c| !c.is_whitespace())
            .collect()
    })
}

fn letter_after_number(text: &[char]) -> bool {
    (1..text.len()).any(|i| {
        text[i].is_ascii_alphabetic()
            && text[i - 1] == ' '
            && !text.get(i + 1).is_some_and(|c| c.is_ascii_alphabetic())
            && text[..i]
                .iter()
                .rev()
                .find(|c| **c != ' ')
                .is_some_and(|c| c.is_ascii_digit() || *c == '}')
    })
}

/// Expands `a \pm b` to two values, which are added to the list or set that contains it.
fn expand(arena: &mut Arena, root: Id) -> Res<Id> {
    let double = |arena: &Arena, id: Id| {
        arena.any(id, |n| matches!(n, Node::PlusMinus(_) | Node::MinusPlus(_)))
    };
    if !double(arena, root) {
        return Ok(root);
    }
    let (items, set) = match arena.node(root).clone() {
        Node::List(items) => (items, false),
        Node::Set(items) => (items, true),
        _ => (vec![root], false),
    };
    let mut out = Vec::new();
    for item in items {
        if double(arena, item) {
            out.push(choose_sign(arena, item, true)?);
            out.push(choose_sign(arena, item, false)?);
        } else {
            out.push(item);
        }
    }
    arena.add_node(if set { Node::Set(out) } else { Node::List(out) })
}

fn choose_sign(arena: &mut Arena, root: Id, plus: bool) -> Res<Id> {
    let order = arena.reachable(&[root]);
    let mut map = std::collections::HashMap::with_capacity(order.len());
    for id in order {
        arena.budget.spend(2)?;
        let new = match arena.node(id).clone() {
            Node::PlusMinus(x) | Node::MinusPlus(x) => {
                let x = map.get(&x).copied().unwrap_or(x);
                let positive = plus == matches!(arena.node(id), Node::PlusMinus(_));
                if positive { x } else { arena.negate(x)? }
            }
            node => {
                let node = node.with_children(|c| map.get(&c).copied().unwrap_or(c));
                arena.remake(node)?
            }
        };
        map.insert(id, new);
    }
    Ok(map.get(&root).copied().unwrap_or(root))
}
