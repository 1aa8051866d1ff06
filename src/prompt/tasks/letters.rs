//! Tasks about the letters of words.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check, coin, pick};
use super::words::WORDS;
use crate::Result;
use crate::prompt::Problem;

/// Generates texts and asks for the number of occurrences of a letter.
///
/// There is at least one. Metadata: `letter`, `text`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterCounting {
    /// The number of words, within 1..=100. Default: `5..=15`.
    pub words: RangeInclusive<u64>,
}

impl Default for LetterCounting {
    fn default() -> Self {
        Self { words: 5..=15 }
    }
}

impl Generator for LetterCounting {
    fn validate(&self) -> Result<()> {
        check("words", &self.words, 1..=100)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let count = between(rng, &self.words);
        let words: Vec<&str> = (0..count).map(|_| *pick(rng, WORDS)).collect();
        let text = words.join(" ");
        let mut letters: Vec<char> = text.chars().filter(|c| *c != ' ').collect();
        letters.sort_unstable();
        letters.dedup();
        let letter = *pick(rng, &letters);
        let times = text.chars().filter(|c| *c == letter).count();
        let prompt = format!(
            "How many times does the letter \"{letter}\" occur in \"{text}\"? Answer with the number only."
        );
        Some(
            Problem::new(prompt, times.to_string())
                .with_metadata("letter", letter.to_string())
                .with_metadata("text", text),
        )
    }
}

/// Generates words to be spelled backward.
///
/// The words are random, of alternating consonants and vowels. Metadata: `word`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpellBackward {
    /// The number of letters of the word, within 2..=30. Default: `3..=10`.
    pub letters: RangeInclusive<u64>,
}

impl Default for SpellBackward {
    fn default() -> Self {
        Self { letters: 3..=10 }
    }
}

impl Generator for SpellBackward {
    fn validate(&self) -> Result<()> {
        check("letters", &self.letters, 2..=30)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let count = between(rng, &self.letters);
        let mut vowel = coin(rng);
        let mut word = String::new();
        for _ in 0..count {
            let letters: &[u8] = if vowel {
                b"aeiou"
            } else {
                b"bcdfghklmnprstvwz"
            };
            word.push(char::from(*pick(rng, letters)));
            vowel = !vowel;
        }
        let backward: String = word.chars().rev().collect();
        let prompt = format!(
            "Spell the word {word} backward, as in nus for sun. Answer with the letters only."
        );
        Some(Problem::new(prompt, backward).with_metadata("word", word))
    }
}
