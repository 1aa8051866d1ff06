//! Sets of reals as sorted pieces with open or closed ends.

use super::comparer::Comparer;
use super::values;
use crate::node::arena::Id;
use crate::node::budget::Res;
use std::cmp::Ordering;

/// An end of a piece: infinite, or a value that may be included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) value: Option<Id>,
    pub(crate) closed: bool,
}

/// The reals between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) low: End,
    pub(crate) high: End,
}

pub(crate) const INFINITE: End = End {
    value: None,
    closed: false,
};

/// A set of reals, and the name of its variable if there is one.
pub(crate) struct Region {
    pub(crate) name: Option<Id>,
    pub(crate) pieces: Vec<Piece>,
}

/// Compares two ends. `low` says whether they are lower ends.
fn order_ends(c: &Comparer, a: End, b: End, low: bool) -> Res<Option<Ordering>> {
    let outer = if low {
        Ordering::Less
    } else {
        Ordering::Greater
    };
    Ok(match (a.value, b.value) {
        (None, None) => Some(Ordering::Equal),
        (None, Some(_)) => Some(outer),
        (Some(_), None) => Some(outer.reverse()),
        (Some(x), Some(y)) => match values::order(c.arena, x, y)? {
            Some(Ordering::Equal) if a.closed != b.closed => {
                Some(if a.closed { outer } else { outer.reverse() })
            }
            other => other,
        },
    })
}

/// Returns the union as sorted pieces that do not overlap or touch. `None` if the order of ends is
/// not known.
pub(crate) fn merge(c: &Comparer, pieces: Vec<Piece>) -> Res<Option<Vec<Piece>>> {
    // Insertion sort, because the order of two ends may not be known.
    let mut sorted: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        c.arena.budget.spend(1 + sorted.len() as u64)?;
        let mut place = sorted.len();
        while place > 0 {
            match order_ends(c, piece.low, sorted[place - 1].low, true)? {
                Some(Ordering::Less) => place -= 1,
                Some(_) => break,
                None => return Ok(None),
            }
        }
        sorted.insert(place, piece);
    }
    let mut out: Vec<Piece> = Vec::with_capacity(sorted.len());
    for piece in sorted {
        let Some(last) = out.last_mut() else {
            out.push(piece);
            continue;
        };
        let touches = match (last.high.value, piece.low.value) {
            (None, _) | (_, None) => true,
            (Some(x), Some(y)) => match values::order(c.arena, x, y)? {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => last.high.closed || piece.low.closed,
                Some(Ordering::Less) => false,
                None => return Ok(None),
            },
        };
        if !touches {
            out.push(piece);
            continue;
        }
        match order_ends(c, piece.high, last.high, false)? {
            Some(Ordering::Greater) => last.high = piece.high,
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(out))
}

pub(crate) fn intersect(c: &Comparer, a: &[Piece], b: &[Piece]) -> Res<Option<Vec<Piece>>> {
    let mut out = Vec::new();
    for x in a {
        for y in b {
            c.arena.budget.spend(4)?;
            let (Some(lows), Some(highs)) = (
                order_ends(c, x.low, y.low, true)?,
                order_ends(c, x.high, y.high, false)?,
            ) else {
                return Ok(None);
            };
            let low = if lows.is_lt() { y.low } else { x.low };
            let high = if highs.is_gt() { y.high } else { x.high };
            let empty = match (low.value, high.value) {
                (Some(l), Some(h)) => match values::order(c.arena, l, h)? {
                    Some(Ordering::Greater) => true,
                    Some(Ordering::Equal) => !(low.closed && high.closed),
                    Some(Ordering::Less) => false,
                    None => return Ok(None),
                },
                _ => false,
            };
            if !empty {
                out.push(Piece { low, high });
            }
        }
    }
    merge(c, out)
}

/// Returns the reals outside of sorted pieces.
pub(crate) fn complement(pieces: &[Piece]) -> Vec<Piece> {
    let flip = |end: End| End {
        value: end.value,
        closed: !end.closed,
    };
    let mut out = Vec::new();
    let mut low = Some(INFINITE);
    for piece in pieces {
        if let Some(low) = low
            && piece.low.value.is_some()
        {
            out.push(Piece {
                low,
                high: flip(piece.low),
            });
        }
        low = piece.high.value.map(|_| flip(piece.high));
    }
    if let Some(low) = low {
        out.push(Piece {
            low,
            high: INFINITE,
        });
    }
    out
}
