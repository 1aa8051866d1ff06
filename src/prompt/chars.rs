//! A tokenizer with one token per character and per special string.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::Tokenizer;
use crate::{Error, Result};

const PAD: &str = "<pad>";
const EOS: &str = "<eos>";
const PAD_ID: u32 = 0;
const EOS_ID: u32 = 1;
/// The number of characters that an error shows on each side of the unknown one.
const SHOWN: usize = 20;

/// A tokenizer with one token per character and one per special string.
///
/// Id 0 is `<pad>` and id 1 is `<eos>`, the only stop token. The specials follow in the given
/// order, then the characters in order of first appearance. Specials are matched before characters,
/// the longest first. [`encode`](Tokenizer::encode) treats `<pad>` and `<eos>` in a text as plain
/// characters and never returns id 0 or 1, so a prompt cannot inject a stop token.
/// [`decode`](Tokenizer::decode) omits both, and writes ids outside the vocabulary as U+FFFD.
///
/// It is serialized as `{"characters": "...", "specials": [...]}` and validated when it is read.
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
///
/// let tokenizer = CharTokenizer::new("ab<", &["<think>"])?;
/// assert_eq!(tokenizer.encode("a<think>b<")?, [3, 2, 4, 5]);
/// assert_eq!(tokenizer.decode(&[3, 2, 4, 5, 1, 0, 0])?, "a<think>b<");
/// assert_eq!(tokenizer.token_id("<eos>"), Some(1));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct CharTokenizer {
    /// The text of each id, including `<pad>` and `<eos>`.
    tokens: Vec<String>,
    /// The specials with their ids, the longest first.
    specials: Vec<(String, u32)>,
    characters: HashMap<char, u32>,
}

/// The serialized form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    characters: String,
    #[serde(default)]
    specials: Vec<String>,
}

impl CharTokenizer {
    /// Creates a tokenizer of these characters and specials. A character that is repeated, or that
    /// is also a special, gets one token.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a special is empty, repeated, `<pad>` or `<eos>`, or if there
    /// are neither characters nor specials.
    pub fn new(characters: &str, specials: &[&str]) -> Result<Self> {
        let mut tokens = vec![PAD.to_owned(), EOS.to_owned()];
        for (i, &special) in specials.iter().enumerate() {
            let expected = match special {
                "" => "a string of at least one character",
                PAD | EOS => "another string: `<pad>` and `<eos>` are built in",
                _ if specials[..i].contains(&special) => "distinct specials",
                _ => {
                    tokens.push(special.to_owned());
                    continue;
                }
            };
            return Err(Error::config(
                format!("specials[{i}]"),
                format!("{special:?}"),
                expected,
            ));
        }
        let mut longest_first: Vec<(String, u32)> = (2..)
            .zip(&tokens[2..])
            .map(|(id, token)| (token.clone(), id))
            .collect();
        longest_first.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));

        let mut seen = HashMap::new();
        for character in characters.chars() {
            let token = character.to_string();
            if !seen.contains_key(&character) && !specials.contains(&token.as_str()) {
                seen.insert(character, tokens.len() as u32);
                tokens.push(token);
            }
        }
        if tokens.len() == 2 {
            return Err(Error::config(
                "characters",
                format!("{characters:?}"),
                "at least one character or special",
            ));
        }
        Ok(Self {
            tokens,
            specials: longest_first,
            characters: seen,
        })
    }

    /// Creates a tokenizer of the characters in `texts`, sorted by code point. The characters of a
    /// special get tokens only if they also occur outside of specials.
    ///
    /// ```
    /// use rlvr::prompt::{CharTokenizer, Tokenizer};
    ///
    /// let tokenizer = CharTokenizer::from_texts(["2+1=", "<answer>3"], &["<answer>"])?;
    /// assert_eq!(tokenizer, CharTokenizer::new("+123=", &["<answer>"])?);
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// The same as [`CharTokenizer::new`].
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        specials: &[&str],
    ) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut longest_first = specials.to_vec();
        longest_first.retain(|special| !special.is_empty());
        longest_first.sort_by_key(|special| std::cmp::Reverse(special.len()));
        for text in texts {
            let mut rest = text;
            while let Some(character) = rest.chars().next() {
                let special = longest_first.iter().find(|s| rest.starts_with(**s));
                if special.is_none() {
                    seen.insert(character);
                }
                rest = &rest[special.map_or(character.len_utf8(), |s| s.len())..];
            }
        }
        Self::new(&String::from_iter(seen), specials)
    }

    fn unknown(&self, text: &str, position: usize, character: char) -> Error {
        let before: Vec<char> = text[..position].chars().rev().take(SHOWN).collect();
        let shown = before
            .into_iter()
            .rev()
            .chain(text[position..].chars().take(SHOWN + 1));
        Error::UnknownCharacter {
            character,
            position,
            text: shown.collect(),
            vocabulary: self.vocab_size(),
        }
    }
}

impl Tokenizer for CharTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut position = 0;
        while let Some(character) = text[position..].chars().next() {
            let special = self
                .specials
                .iter()
                .find(|(special, _)| text[position..].starts_with(special));
            let (id, length) = match special {
                Some((special, id)) => (*id, special.len()),
                None => match self.characters.get(&character) {
                    Some(id) => (*id, character.len_utf8()),
                    None => return Err(self.unknown(text, position, character)),
                },
            };
            ids.push(id);
            position += length;
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut text = String::new();
        for &id in ids {
            match self.tokens.get(id as usize) {
                Some(_) if id == PAD_ID || id == EOS_ID => {}
                Some(token) => text.push_str(token),
                None => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Ok(text)
    }

    fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.tokens
            .iter()
            .position(|t| t == token)
            .map(|id| id as u32)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        vec![EOS_ID]
    }
}

impl TryFrom<Form> for CharTokenizer {
    type Error = Error;

    fn try_from(form: Form) -> Result<Self> {
        let specials: Vec<&str> = form.specials.iter().map(String::as_str).collect();
        Self::new(&form.characters, &specials)
    }
}

impl From<CharTokenizer> for Form {
    fn from(tokenizer: CharTokenizer) -> Self {
        let first_character = 2 + tokenizer.specials.len();
        Self {
            characters: tokenizer.tokens[first_character..].concat(),
            specials: tokenizer.tokens[2..first_character].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokenizer() -> CharTokenizer {
        CharTokenizer::new("a<eos>bé0a", &["<think>", "<think>>", "</think>"]).unwrap()
    }

    #[test]
    fn ids_follow_the_order_given() {
        let tokenizer = tokenizer();
        // pad, eos, three specials, then a < e o s > b é 0.
        assert_eq!(tokenizer.vocab_size(), 14);
        assert_eq!(tokenizer.encode("ab<é0").unwrap(), [5, 11, 6, 12, 13]);
        assert_eq!(tokenizer.token_id("<pad>"), Some(0));
        assert_eq!(tokenizer.token_id("</think>"), Some(4));
        assert_eq!(tokenizer.token_id("é"), Some(12));
        assert_eq!(tokenizer.token_id("ab"), None);
        assert_eq!(tokenizer.stop_tokens(), [1]);
    }

    #[test]
    fn the_longest_special_wins() {
        assert_eq!(tokenizer().encode("<think>>").unwrap(), [3]);
        assert_eq!(tokenizer().encode("<think>a>").unwrap(), [2, 5, 10]);
    }

    #[test]
    fn a_prompt_cannot_inject_a_stop() {
        let ids = tokenizer().encode("a<eos>").unwrap();
        assert_eq!(ids, [5, 6, 7, 8, 9, 10]);
        assert_eq!(tokenizer().decode(&ids).unwrap(), "a<eos>");
        let digits = CharTokenizer::new("01", &[]).unwrap();
        assert!(matches!(
            digits.encode("0<eos>"),
            Err(Error::UnknownCharacter {
                character: '<',
                position: 1,
                ..
            })
        ));
    }

    #[test]
    fn the_error_for_an_unknown_character_shows_its_context() {
        let tokenizer = CharTokenizer::new("é", &[]).unwrap();
        let error = tokenizer
            .encode(&format!("{}x{}", "é".repeat(30), "é".repeat(30)))
            .unwrap_err();
        let Error::UnknownCharacter {
            character,
            position,
            text,
            vocabulary,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((character, position, vocabulary), ('x', 60, 3));
        assert_eq!(text, format!("{}x{}", "é".repeat(20), "é".repeat(20)));
    }

    #[test]
    fn ids_outside_the_vocabulary_are_replacement_characters() {
        let tokenizer = CharTokenizer::new("a", &[]).unwrap();
        assert_eq!(
            tokenizer.decode(&[2, 3, 2, u32::MAX]).unwrap(),
            "a\u{fffd}a\u{fffd}"
        );
    }

    #[test]
    fn invalid_specials_are_errors() {
        for (specials, value) in [
            (&["<a>", "<a>"][..], "invalid `specials[1]`: \"<a>\""),
            (&[""], "invalid `specials[0]`: \"\""),
            (&["<pad>"], "invalid `specials[0]`: \"<pad>\""),
            (&["<a>", "<eos>"], "invalid `specials[1]`: \"<eos>\""),
        ] {
            let error = CharTokenizer::new("ab", specials).unwrap_err().to_string();
            assert!(error.starts_with(value), "{error}");
            assert!(CharTokenizer::from_texts(["ab"], specials).is_err());
        }
        assert!(CharTokenizer::new("", &[]).is_err());
    }

    #[test]
    fn a_character_that_is_a_special_gets_one_token() {
        let tokenizer = CharTokenizer::new("a#b", &["#"]).unwrap();
        assert_eq!(tokenizer.vocab_size(), 5);
        assert_eq!(tokenizer.encode("b#").unwrap(), [4, 2]);
    }

    #[test]
    fn deserialization_validates() {
        let text = serde_json::to_string(&tokenizer()).unwrap();
        assert_eq!(
            text,
            r#"{"characters":"a<eos>bé0","specials":["<think>","<think>>","</think>"]}"#
        );
        assert_eq!(
            serde_json::from_str::<CharTokenizer>(&text).unwrap(),
            tokenizer()
        );
        for wrong in [
            r#"{"characters":"a","specials":["<eos>"]}"#,
            r#"{"characters":""}"#,
            r#"{"characters":"a","special":[]}"#,
            r#"{"specials":["<a>"]}"#,
        ] {
            assert!(
                serde_json::from_str::<CharTokenizer>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(pieces in prop::collection::vec(
            prop_oneof!["[a<>eosbé0]{0,4}", Just("<think>".to_owned()), Just("</think>".to_owned())], 0..12,
        )) {
            let (tokenizer, text) = (tokenizer(), pieces.concat());
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            prop_assert!(ids.iter().all(|&id| id > EOS_ID && (id as usize) < tokenizer.vocab_size()));
        }

        #[test]
        fn from_texts_encodes_its_texts(texts in prop::collection::vec(".{1,20}", 1..5)) {
            let specials = ["<think>", "ab"];
            let tokenizer = CharTokenizer::from_texts(texts.iter().map(String::as_str), &specials).unwrap();
            for text in &texts {
                prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
            }
            let form = serde_json::to_string(&tokenizer).unwrap();
            prop_assert_eq!(serde_json::from_str::<CharTokenizer>(&form).unwrap(), tokenizer);
        }
    }
}
