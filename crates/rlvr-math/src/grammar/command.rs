//! Commands: brackets, environments, fonts, names.

use super::lexer::Lexer;
use super::token::{Bracket, Tok};
use super::unit;
use super::vocabulary::{self, Word};
use crate::node::arena::Node;
use crate::node::budget::Res;

impl Lexer<'_, '_> {
    /// Reads a command.
    pub(crate) fn command(&mut self) -> Res<()> {
        let Some(next) = self.peek(1) else {
            self.at += 1;
            return Ok(());
        };
        if !next.is_ascii_alphabetic() {
            return match next {
                '{' => self.open(Bracket::Set, 2),
                '}' => self.close_matching(|b| b == Bracket::Set, true, 2),
                '|' => self.bar(Bracket::Norm, 2),
                '\\' => {
                    self.at += 2;
                    if self
                        .frames
                        .iter()
                        .any(|f| matches!(f.bracket, Bracket::Matrix | Bracket::Determinant))
                    {
                        self.push(Tok::Row);
                        // `\\[2pt]`
                        if self.peek(0) == Some('[')
                            && let Some(close) =
                                self.text[self.at..].iter().take(12).position(|c| *c == ']')
                            && self.text[self.at..self.at + close]
                                .windows(2)
                                .any(|w| matches!(w, ['p', 't'] | ['e', 'x'] | ['e', 'm']))
                        {
                            self.at += close + 1;
                        }
                    } else {
                        self.spaced = true;
                    }
                    Ok(())
                }
                '%' => {
                    self.at += 2;
                    self.push(Tok::Percent);
                    Ok(())
                }
                // Spacing, `\$`, `\(` and `\[` are ignored.
                _ => {
                    self.at += 2;
                    self.spaced = true;
                    Ok(())
                }
            };
        }
        let start = self.at + 1;
        let mut end = start;
        while self.text.get(end).is_some_and(char::is_ascii_alphabetic) {
            end += 1;
        }
        let mut name: String = self.text[start..end].iter().collect();
        let spaced = self.spaced;
        if let Some(handled) = self.structure(&name, end) {
            return handled;
        }
        let mut word = vocabulary::command(&name);
        if word.is_none() {
            // `\quadx` and `\cdotx`: the longest command that the name starts with.
            for length in (2..name.len()).rev() {
                if let Some(known) = vocabulary::command(&name[..length]) {
                    word = Some(known);
                    name.truncate(length);
                    end = start + length;
                    break;
                }
            }
        }
        self.at = end;
        // `m\angle A` is the measure of the angle.
        if name == "angle"
            && matches!(self.previous(), Some(Tok::Ident { name, .. }) if name == "m")
        {
            self.top().tokens.pop();
        }
        match word {
            Some(Word::Font) => self.font(&name),
            Some(Word::Tok(Tok::Mid)) => self.vertical(&name),
            Some(Word::Tok(Tok::Command(command))) => {
                self.push(Tok::Command(command));
                Ok(())
            }
            Some(word) => self.known(word, spaced),
            None => {
                self.push(Tok::Ident {
                    name: format!("\\{name}"),
                    spaced,
                });
                Ok(())
            }
        }
    }

    /// Reads a command that is a bracket.
    pub(crate) fn structure(&mut self, name: &str, end: usize) -> Option<Res<()>> {
        let length = end - self.at;
        Some(match name {
            "begin" | "end" => {
                let close = self.text[end..].iter().take(24).position(|c| *c == '}')?;
                let environment: String = self.text[end..end + close]
                    .iter()
                    .filter(|c| **c != '{' && **c != ' ')
                    .collect();
                self.environment(
                    name == "begin",
                    environment.trim_end_matches('*'),
                    end + close + 1,
                )
            }
            "lbrace" => self.open(Bracket::Set, length),
            "rbrace" => self.close_matching(|b| b == Bracket::Set, true, length),
            "lfloor" => self.open(Bracket::Floor, length),
            "rfloor" => self.close_matching(|b| b == Bracket::Floor, false, length),
            "lceil" => self.open(Bracket::Ceil, length),
            "rceil" => self.close_matching(|b| b == Bracket::Ceil, false, length),
            "langle" => self.open(Bracket::Angle, length),
            "rangle" => self.close_matching(|b| b == Bracket::Angle, false, length),
            "lbrack" => self.open(Bracket::Square, length),
            "rbrack" => self.close_matching(
                |b| matches!(b, Bracket::Square | Bracket::Paren),
                true,
                length,
            ),
            "lvert" => self.open(Bracket::Abs, length),
            "rvert" => self.close_matching(|b| b == Bracket::Abs, true, length),
            "lVert" => self.open(Bracket::Norm, length),
            "rVert" => self.close_matching(|b| b == Bracket::Norm, true, length),
            "Vert" => self.bar(Bracket::Norm, length),
            "left" | "right" => {
                let mut at = end;
                while self.text.get(at) == Some(&' ') {
                    at += 1;
                }
                self.at = at;
                match self.text.get(at) {
                    Some('.') => {
                        self.at += 1;
                        Ok(())
                    }
                    // `\left{`, often written for `\left\{`, groups.
                    Some('|') if name == "left" => self.open(Bracket::Abs, 1),
                    Some('|') => self.close_matching(|b| b == Bracket::Abs, true, 1),
                    Some('[') if name == "right" => self.close_matching(
                        |b| matches!(b, Bracket::French | Bracket::Square | Bracket::Paren),
                        false,
                        1,
                    ),
                    Some(']') if name == "left" => self.open(Bracket::French, 1),
                    _ => Ok(()),
                }
            }
            "hspace" | "vspace" | "hskip" | "phantom" | "label" | "tag" | "color" | "textcolor" => {
                self.at = end;
                if self.peek(0) == Some('{') {
                    let close = self.text[end..].iter().position(|c| *c == '}').unwrap_or(0);
                    self.at = end + close + 1;
                }
                Ok(())
            }
            "pmod" => {
                self.at = end;
                self.push(Tok::Mod);
                Ok(())
            }
            _ => return None,
        })
    }

    pub(crate) fn environment(&mut self, begin: bool, name: &str, end: usize) -> Res<()> {
        let bracket = match name {
            "matrix" | "pmatrix" | "bmatrix" | "Bmatrix" | "smallmatrix" | "psmallmatrix"
            | "bsmallmatrix" | "array" | "tabular" | "cases" | "Vmatrix" => Bracket::Matrix,
            "vmatrix" => Bracket::Determinant,
            _ => Bracket::Plain,
        };
        let length = end - self.at;
        if !begin {
            return if bracket == Bracket::Plain {
                self.at = end;
                Ok(())
            } else {
                self.close_matching(
                    |b| matches!(b, Bracket::Matrix | Bracket::Determinant),
                    true,
                    length,
                )
            };
        }
        if bracket == Bracket::Plain {
            self.at = end;
            return Ok(());
        }
        self.open(bracket, length)?;
        // The columns of an array: `{cc|c}`.
        if matches!(name, "array" | "tabular")
            && self.peek(0) == Some('{')
            && let Some(close) = self.text[self.at..].iter().position(|c| *c == '}')
        {
            self.at += close + 1;
        }
        Ok(())
    }

    /// Reads `\vert` and `\mid`: a bar, or the separator before a condition.
    pub(crate) fn vertical(&mut self, name: &str) -> Res<()> {
        if name == "mid" {
            self.push(Tok::Mid);
            return Ok(());
        }
        self.bar(Bracket::Abs, 0)
    }

    /// Reads `\text{...}`, `\mathrm{...}` and the like: a connective, a unit, a name, words, or
    /// mathematics in another font.
    pub(crate) fn font(&mut self, name: &str) -> Res<()> {
        while self.peek(0) == Some(' ') {
            self.at += 1;
        }
        if self.peek(0) != Some('{') {
            return Ok(());
        }
        let Some(close) = matching_brace(self.text, self.at) else {
            return Ok(());
        };
        self.arena.budget.spend((close - self.at) as u64 / 8)?;
        let inner: String = self.text[self.at + 1..close].iter().collect();
        let content = inner
            .trim()
            .trim_matches(|c| matches!(c, '~' | '.' | '\\'))
            .trim();
        let spaced = self.spaced;
        if (matches!(name, "mathbb" | "Bbb") || (name.starts_with("math") && content == "R"))
            && let [set @ ('R' | 'Z' | 'N' | 'Q' | 'C')] = content.chars().collect::<Vec<_>>()[..]
        {
            self.at = close + 1;
            let id = self.arena.add_node(Node::Numbers(set))?;
            self.push(Tok::Value(id));
            return Ok(());
        }
        if content.is_empty() {
            self.at = close + 1;
            self.spaced = true;
            return Ok(());
        }
        // `\operatorname{h_{\theta}}` is a name.
        if name == "operatorname" && content.contains('_') {
            self.at = close + 1;
            let written: String = content
                .chars()
                .filter(|c| !c.is_whitespace() && !"{}".contains(*c))
                .collect();
            let name = match written
                .split_once("_\\")
                .map(|(n, sub)| (n, vocabulary::greek(sub)))
            {
                Some((base, Some(letter))) => format!("{base}_{letter}"),
                _ => written,
            };
            self.push(Tok::Ident { name, spaced });
            return Ok(());
        }
        let bare = content.trim_matches(|c| matches!(c, ',' | ' ')).to_owned();
        let lower = bare.to_lowercase();
        if lower == "and" || lower == "or" || lower == "and/or" {
            self.at = close + 1;
            self.push(if lower == "or" { Tok::Or } else { Tok::And });
            return Ok(());
        }
        // Other words may surround the connective: `\text{ for part (a) and }` also separates.
        if lower.ends_with(" and") || lower.starts_with("and ") || lower.ends_with(" or") {
            self.at = close + 1;
            self.push(Tok::And);
            return Ok(());
        }
        let letters = bare.chars().filter(|c| c.is_alphabetic()).count();
        let math = matches!(
            name,
            "boldsymbol"
                | "bm"
                | "mathbf"
                | "mathit"
                | "mathcal"
                | "mathscr"
                | "mathfrak"
                | "mathnormal"
                | "pmb"
        );
        if letters > 1 && !bare.contains('\\') {
            if matches!(bare.as_str(), "min" | "sec" | "in") && self.after_operand() {
                self.at = close + 1;
                self.push(Tok::Unit(bare));
                return Ok(());
            }
            if let Some(known) = vocabulary::plain(&bare)
                .or_else(|| vocabulary::command(&bare).filter(|_| name == "operatorname"))
                && (!matches!(known, Word::Symbol(_)) || name == "operatorname")
            {
                self.at = close + 1;
                return self.known(known, spaced);
            }
            if matches!(lower.as_str(), "percent" | "per cent") {
                self.at = close + 1;
                self.push(Tok::Percent);
                return Ok(());
            }
            if !bare
                .chars()
                .any(|c| c.is_ascii_digit() || matches!(c, '=' | '+' | '('))
                || unit::canonical(&bare).is_some()
            {
                self.at = close + 1;
                if self.after_operand() {
                    self.push(Tok::Unit(bare));
                } else {
                    self.push(Tok::Text(bare));
                }
                return Ok(());
            }
        }
        // One letter in an upright font after a number is a unit: `5\,\mathrm{m}`.
        if letters == 1
            && bare.chars().count() == 1
            && !math
            && unit::is_letter(&bare)
            && self.after_operand()
            && name != "operatorname"
        {
            self.at = close + 1;
            self.push(Tok::Unit(bare));
            return Ok(());
        }
        if bare == "T" || bare == "d" {
            self.at = close + 1;
            self.push(Tok::Ident { name: bare, spaced });
            return Ok(());
        }
        // Mathematics: the braces form an ordinary group.
        Ok(())
    }
}

/// Returns the position of the brace that closes the one at `open`.
fn matching_brace(text: &[char], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = open;
    while at < text.len() {
        match text[at] {
            '\\' => at += 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
